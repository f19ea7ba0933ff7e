import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import get_args

import click
import pytest
from attrs import frozen

from convsdk import hookspecs
from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.channels.email.incoming import Raw, Source
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.cli import main
from convsdk.config import load_config
from convsdk.core.blocks import BLOCKS
from convsdk.core.model import Claim, Rule, Trait, Trust
from convsdk.core.ports import Secret
from convsdk.plugins import load_plugins
from convsdk.testing import request

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")

NO_SCRIPT = {"tutorial.md"}  # its blocks are files of a distribution: tests/test_tutorial.py runs them

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@frozen
class Block:
    language: str
    text: str
    line: int


def _blocks(page):
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start(2))) for found in FENCE.finditer(text)]


def _run(block, page, namespace):
    # The empty lines in front make a traceback name the line of the page.
    code = compile("\n" * block.line + block.text, page, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)  # noqa: S102  (running the project's own documentation is the point)
    return printed.getvalue()


def _shown_outputs():
    """Give each command that is shown with what it prints: a console block of one, with no other block between."""
    blocks = [block for page in PAGES for block in _blocks(page)]
    pairs = [
        (one.text.removeprefix("$ ").strip(), other.text) for one, other in pairwise(blocks) if other.language == "text"
    ]
    return [(command, output) for command, output in pairs if re.fullmatch(r"convsdk (demo|plugins)[^\n]*", command)]


def _commands():
    consoles = "".join(block.text for page in PAGES for block in _blocks(page) if block.language == "console")
    return sorted(set(re.findall(r"^\$ convsdk ([a-z-]+)", consoles, re.MULTILINE)))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NO_SCRIPT], ids=lambda page: page.name)
def test_python_of_a_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    """Every Python block runs; a text block right after one is what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django_site")
    namespace = {"__name__": f"documentation of {page.stem}"}
    printed = None

    for block in _blocks(page):
        if block.language == "text" and printed is not None:
            assert printed == block.text, f"{page.name}:{block.line}"
        printed = _run(block, page, namespace) if block.language == "python" else None


@pytest.mark.parametrize(("command", "output"), _shown_outputs(), ids=lambda shown: shown.split("\n")[0][:40])
def test_output_of_a_command_is_what_it_prints(command, output, tmp_path):
    """A text block after a console block of one `convsdk` command is a part of what that prints."""
    program = shutil.which(command.split()[0], path=Path(sys.executable).parent)
    assert program, "the console script is not installed beside the interpreter"

    answer = subprocess.run(
        [program, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )

    assert output in answer.stdout


@each_page
def test_toml_of_a_page_is_toml(page):
    """Every TOML block can be read."""
    for block in _blocks(page):
        if block.language == "toml":
            tomllib.loads(block.text)


def test_example_of_the_configuration_page_is_accepted(tmp_path):
    """The configuration that the page begins with has no mistake, once its secrets are where it says."""
    example = next(block for block in _blocks(ROOT / "docs/configuration.md") if block.language == "toml")
    names = re.findall(r'env = "(\w+)"', example.text)
    for name in re.findall(r'file = "(\w+)"', example.text):
        (tmp_path / name).write_text("a secret of the tests, long enough")
    (tmp_path / "convsdk.toml").write_text(example.text)

    environ = dict.fromkeys(names, "a secret of the tests, long enough") | {"CRM_WEBHOOK_SECRET": "whsec_" + "A" * 32}
    config = load_config(tmp_path / "convsdk.toml", load_plugins(), environ=environ)

    assert {channel.type for channel in config.channels.values()} == {"chat", "email", "messenger", "js_identify"}


def test_example_of_the_bot_page_is_accepted(tmp_path):
    """The flow that the page begins with has no mistake, and has a block of every built-in type."""
    example = next(block for block in _blocks(ROOT / "docs/bot.md") if block.language == "toml")
    (tmp_path / "convsdk.toml").write_text(example.text)

    config = load_config(tmp_path / "convsdk.toml", load_plugins(), environ={})

    assert {block.type for block in config.channels["shop-chat"].config.bot.blocks} == set(BLOCKS)


@each_page
def test_links_of_a_page_lead_somewhere(page):
    """Every link to a file of the project names one that is there."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


@each_page
def test_pictures_of_a_page_have_words(page):
    """Every picture says in words what it shows, for those who cannot see it."""
    assert "![](" not in page.read_text(encoding="utf-8")


def test_reference_has_every_public_module():
    """What a program may import from is on a page of the reference."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    pinned = (ROOT / "tests/public_api.txt").read_text(encoding="utf-8")

    modules = set(re.findall(r"^(convsdk(?:\.[a-z_]+)*)\.[A-Za-z]\w*", pinned, re.MULTILINE))

    assert modules - set(re.findall(r"automodule:: (\S+)", pages)) == set()


def test_example_of_the_readme_is_short():
    """The README has one Python example, of fewer than 20 lines, and shows its output."""
    languages = [block.language for block in _blocks(ROOT / "README.md")]
    example = next(block for block in _blocks(ROOT / "README.md") if block.language == "python")

    assert languages.count("python") == 1
    assert languages[languages.index("python") + 1] == "text"
    assert len(example.text.splitlines()) < 20


def test_hooks_page_has_one_heading_for_each_hook():
    """The headings of the hooks page are the hooks, in the order in which they are declared."""
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/hooks.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings == [name for name in vars(hookspecs) if name.startswith("convsdk_")]


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.value)
def test_identity_page_explains_rule(rule):
    """Every rule that a decision can name has a row in the table of the identity page."""
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", (ROOT / "docs/identity.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert rule.value in rows


@pytest.mark.parametrize("command", _commands())
def test_command_of_the_documentation_exists(command):
    """Every `convsdk` command that a console block shows is one that the command line has."""
    program = shutil.which("convsdk", path=Path(sys.executable).parent)
    assert program, "the console script is not installed beside the interpreter"

    answer = subprocess.run([program, command, "--help"], capture_output=True, text=True, check=False, timeout=60)

    assert answer.returncode == 0, answer.stderr


def _options(command, name):
    """Give the options of a command and of those below it, each with the name that it is called by."""
    below = command.commands.items() if type(command) is click.Group else ()
    own = {
        option for one in command.params if isinstance(one, click.Option) for option in one.opts + one.secondary_opts
    }
    return {name: own} | {key: found for one, each in below for key, found in _options(each, f"{name} {one}").items()}


def test_commands_page_has_every_command_and_option():
    """The page of commands has a row for each, which names its options and no others; all share those of one table."""
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    shared = set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE))
    rows = re.findall(r"^\| `convsdk ([a-z-]+(?: [a-z-]+)?)\b(.*)$", page, re.MULTILINE)
    shown = {name: set(re.findall(r"(?<![\w-])--[a-z-]+", rest)) for name, rest in rows}

    context = click.Context(main)
    real = {}
    for name in main.list_commands(context):
        real |= _options(main.get_command(context, name), name)

    assert shown == {name: options - shared for name, options in real.items()}


SITE_SECRET = "a-secret-of-the-site-that-is-long-enough"
USER = {"id": 7, "email": "zoe@shop.example", "email_verified": True, "name": "Zo\u00eb \u2713", "company": "Shop/Co"}
PROVEN_BY_TOKEN = {
    Claim("external_id", "7", Trust.PROVEN, scope="shop"),
    Claim("email", "zoe@shop.example", Trust.PROVEN),
    Trait("name", "Zo\u00eb \u2713", Trust.PROVEN),
    Trait("company", "Shop/Co", Trust.PROVEN),
}
RECORD = json.dumps(USER)  # that is a literal of JavaScript and Ruby, too
ISSUERS = {
    "js": (["node", "--input-type=module"], f'process.stdout.write(chatToken("{SITE_SECRET}", "v1", {RECORD}));'),
    "php": (["php"], f"echo chat_token('{SITE_SECRET}', 'v1', json_decode('{RECORD}', true));"),
    "ruby": (["ruby"], f'print chat_token("{SITE_SECRET}", "v1", {RECORD})'),
}


def _snippets(language, name):
    """Give the blocks of the identification page that define `name`."""
    blocks = _blocks(ROOT / "docs/identification.md")
    return [block for block in blocks if block.language == language and name in block.text]


def _python_of_the_site(block, name):
    namespace = {}
    _run(block, ROOT / "docs/identification.md", namespace)
    return namespace[name](SITE_SECRET, "v1", USER)


def _identified(**content):
    """Give what a channel with the settings of the page makes of a call that this visitor's page makes now."""
    settings = JsIdentifySettings(secrets=(Secret(SITE_SECRET),), audience="shop", namespace="shop")
    now = request(json={"id": "i1", "visitor": "v1", **content}, received_at=datetime.now(UTC))
    (event,) = JsIdentifyChannel("shop-site", settings).parse(now)
    return event.hint


@pytest.mark.parametrize("block", _snippets("python", "chat_token"), ids=["pyjwt", "standard library"])
def test_token_made_as_the_python_of_the_page_does_is_believed(block):
    """Both ways to make a token in Python prove the whole record."""
    hint = _identified(token=_python_of_the_site(block, "chat_token"))

    assert {*hint.identifiers, *hint.traits} == PROVEN_BY_TOKEN


@pytest.mark.parametrize("language", ISSUERS)
def test_token_made_as_the_page_does_in_other_languages_is_believed(language):
    """The page's snippets for Node, PHP and Ruby prove the whole record, too."""
    program, call = ISSUERS[language]
    if not shutil.which(program[0]):
        pytest.skip(f"{program[0]} is not installed, so the snippet in {language} is not run")
    (block,) = _snippets(language, "base64url")

    made = subprocess.run(program, input=block.text + call, capture_output=True, text=True, check=True, timeout=60)

    hint = _identified(token=made.stdout)
    assert (made.stderr, {*hint.identifiers, *hint.traits}) == ("", PROVEN_BY_TOKEN)


def test_hmac_made_as_the_page_does_is_believed():
    """The page's HMAC proves the account."""
    (block,) = _snippets("python", "chat_signature")

    hint = _identified(**_python_of_the_site(block, "chat_signature"))

    assert hint.identifiers == (Claim("external_id", "7", Trust.PROVEN, scope="shop"),)


def _is_believed(headers):
    """Say whether the channel of the mail sources page believes the mail with those header fields."""
    settings = EmailSettings(address="in-7f3a@shop.example", source=Raw(secrets=(Secret(MAIL_SECRET),)))
    posted = request(POSTED, headers=dict(headers), received_at=datetime.now(UTC))
    EmailChannel("support", settings).verify(posted)
    return [one.value for event in EmailChannel("support", settings).parse(posted) for one in event.hint.identifiers]


MAIL_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
POSTED = b"From: Ann <ann@mail.example>\n\nGr\xc3\xbc\xc3\x9fe\n"
WORKER = """
globalThis.fetch = async (url, asked) => { process.stdout.write(JSON.stringify(asked.headers)); return { ok: true }; };
const message = { raw: Buffer.from(%r, "base64"), from: "ann@mail.example", to: "in-7f3a@shop.example" };
await worker.email(message, { SECRET: %r });
"""


def test_mail_posted_as_the_python_of_the_page_does_is_believed():
    """The page's function signs mail and envelope."""
    (block,) = (one for one in _blocks(ROOT / "docs/email-sources.md") if one.language == "python")
    namespace = {}
    _run(block, ROOT / "docs/email-sources.md", namespace)

    made = namespace["posted"](POSTED, sender="ann@mail.example", recipient="in-7f3a@shop.example", id="m-2")

    assert _is_believed(made.headers) == ["ann@mail.example"]


def test_mail_posted_by_the_worker_of_the_page_is_believed():
    """The page's worker signs mail and envelope."""
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed, so the worker is not run")
    (block,) = (one for one in _blocks(ROOT / "docs/email-sources.md") if one.language == "js")
    driver = WORKER % (base64.b64encode(POSTED).decode(), MAIL_SECRET)
    program = block.text.replace("export default", "const worker =") + driver

    made = subprocess.run(
        [node, "--input-type=module"], input=program, capture_output=True, text=True, check=True, timeout=60
    )

    assert _is_believed(json.loads(made.stdout)) == ["ann@mail.example"]


def test_channels_of_the_mail_sources_page_are_accepted(tmp_path):
    """Each example of a source has no mistake, once its secrets are set."""
    environ = dict.fromkeys(("MAILGUN_SIGNING_KEY", "POSTMARK_HOOK_PASSWORD", "SENDGRID_HOOK_PASSWORD"), "a secret")
    examples = [one.text for one in _blocks(ROOT / "docs/email-sources.md") if one.language == "toml"]

    for example in examples:
        (tmp_path / "convsdk.toml").write_text(example)
        load_config(tmp_path / "convsdk.toml", load_plugins(), environ=environ | {"SUPPORT_MAIL_SECRET": MAIL_SECRET})

    assert len(examples) == len(get_args(Source))
