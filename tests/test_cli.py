import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from importlib import resources
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from servers import fresh_postgresql, sql

import convsdk
from convsdk.cli import main
from convsdk.cli.screen import cell, plain
from convsdk.cli.session import policy_of
from convsdk.config import WorkspaceConfig
from convsdk.core.model import Claim, Direction, Identifier, Message, Trust
from convsdk.core.ports import Secret
from convsdk.core.storage import Batch
from convsdk.rejects import Rejects
from convsdk.store import open_store, postgresql
from convsdk.testing import NOON

DEMO = Path(convsdk.__file__).parent / "demo"
MAILS = Path(__file__).parent / "mail"
SCENARIOS = Path(__file__).parent / "scenarios" / "identity_core.json"
CONFIG = """
[workspaces.default]
country = "DE"
[channels.mail]
type = "email"
address = "help@shop.example"
authserv_id = "mx.shop.example"
[channels.chat]
type = "chat"
[channels.page]
type = "messenger"
app_secret = { env = "APP_SECRET" }
verify_token = { env = "APP_SECRET" }
"""
PICKY_STORE = """
import sys
from convsdk.errors import PermanentError
from convsdk.hookspecs import hookimpl
from convsdk.store.memory import MemoryStore

class Picky(MemoryStore):
    def transact(self, workspace, work):
        print("a transaction", file=sys.stderr)

        def picky(transaction):
            write = transaction.write

            def write_what_can_be_kept(batch):
                if any("poison" in one.text for one in batch.messages):
                    raise PermanentError("poison cannot be kept")
                write(batch)

            transaction.write = write_what_can_be_kept
            return work(transaction)

        return super().transact(workspace, picky)

@hookimpl
def convsdk_stores(ctx):
    return {"picky": lambda url: Picky()}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command line in an empty folder, and give its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP_SECRET", "hunter2-hunter2")

    def run(*arguments, stdin=None, status=0):
        result = CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)
        assert result.exit_code == status, result.output + repr(result.exception)
        return result

    return run


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with one plugin on the path."""

    def install(name, source):
        folder = tmp_path / "site" / f"convsdk_{name}-1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: convsdk-{name}\nVersion: 1\n", encoding="utf-8")
        module = f"{tmp_path.name}_{name}"
        (folder / "entry_points.txt").write_text(f"[convsdk.plugins]\n{name} = {module}\n", encoding="utf-8")
        (tmp_path / "site" / f"{module}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


@pytest.fixture
def shop(run, tmp_path):
    """Give a folder with a configuration in it."""
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def mail(sender, number=1, text="Hello", *, answered="", result="pass"):
    """Build a mail, which answers the one with the number `answered`."""
    domain = sender.partition("@")[2]
    references = f"In-Reply-To: <{answered}@{domain}>\r\n" if answered != "" else ""
    return (
        f"Authentication-Results: mx.shop.example; dmarc={result} header.from={domain}\r\n"
        f"From: <{sender}>\r\nTo: help@shop.example\r\nMessage-ID: <{number}@{domain}>\r\n{references}\r\n{text}\r\n"
    ).encode()


def mbox(*mails):
    """Build an mbox."""
    return b"\n".join(b"From x@a.example Mon Jan 12 09:00:00 2026\n" + one.replace(b"\r\n", b"\n") for one in mails)


def kept_aside():
    """Give what was kept aside."""
    rejects = Rejects(Path("rejects"))
    return [rejects.read(one) for one in rejects.ids()]


def lines(result):
    """Read the JSON lines of a result."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def in_process(*arguments, cwd):
    """Run the program as a user does."""
    return subprocess.run(
        [sys.executable, "-c", "from convsdk.cli import main; main()", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )


def test_help_names_every_command_and_imports_none(run):
    """The overview is made without importing a command's module."""
    code = "import sys\nfrom convsdk.cli import main\nmain(['--help'], standalone_mode=False)\n"
    code += "sys.exit('convsdk.hub' in sys.modules or 'rich' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert all(name in done.stdout for name in ("demo", "ingest", "scenarios", "unmerge"))


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_command_says_what_the_overview_says(run, name):
    """A command's own help begins with its line of the overview, and each takes the common options."""
    overview = re.sub(r"\s+", " ", run("--help").output)

    told = re.sub(r"\s+", " ", run(name, "--help").output)

    first = main.get_command(click.Context(main), name).help.partition("\n")[0]
    assert f"{name} {first}" in overview
    assert all(option in told for option in ("--config", "--store", "--workspace", "--json"))


def test_demo_runs_in_a_process_of_its_own(tmp_path):
    """The demo shows contacts from all four ways, refuses the forgery, and leaves its store behind."""
    done = in_process("demo", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for told in ("1. A form", "2. An inbound", "3. Messenger", "4. An address", "by chat form", "by manual entry"):
        assert told in done.stdout
    assert "external_id:4711  (proven)" in done.stdout
    assert "refused, and nothing is kept" in done.stdout
    assert "its cookie spoke for that contact" in done.stdout
    assert (tmp_path / "convsdk-demo.db").exists()
    assert in_process("demo", cwd=tmp_path).stdout == done.stdout


def test_demo_tells_each_decision_as_json(run):
    """Every input is told with its outcome; merge and unmerge end where they began."""
    told = lines(run("demo", "--json", "--store", "memory:"))

    outcomes = [(one["file"], one["outcome"]) for one in told if "outcome" in one]
    assert ("chat-form.json", "created") in outcomes
    assert ("mail-newsletter.eml", "created") not in outcomes
    assert ("messenger-forged.json", "refused") in outcomes
    assert ("mail-ben.eml", "duplicate") in outcomes
    states = {
        state: [one["identifiers"] for one in told if one.get("state") == state]
        for state in ("before", "merged", "unmerged")
    }
    assert states["merged"] == [["email:ben@atelier.example", "email:ben.ahlen@post.example"]]
    assert states["before"] == states["unmerged"] != states["merged"]
    contacts = {one["name"]: one["conversations"] for one in told if "redirects" in one}
    assert all(contacts.values())
    assert sorted(contacts) == ["Ann Berg", "Ben", "Ben Ahlén", "Carla Nilsson", "Dora Lind"]


def test_demo_names_commands_that_work(run):
    """What the demo suggests to look around with runs as it stands."""
    commands = [line.split()[1:] for line in run("demo").stdout.splitlines() if line.startswith("  convsdk ")]

    told = [run(*command).stdout for command in commands]

    assert [one.split()[0] for one in told] == ["ID", "messenger_psid:104200/7781230045", "ID"]


def test_demo_refuses_a_store_with_contacts(run, tmp_path):
    """The demo never writes into a store that somebody uses."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    run("demo", "--store", url)

    result = run("demo", "--store", url, status=2)

    assert "is not empty" in result.stderr


def test_scenarios_pass_in_a_process_of_their_own(tmp_path):
    """One line for each scenario, and exit status 0 where all hold."""
    done = in_process("scenarios", SCENARIOS, cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    told = done.stdout.splitlines()
    assert told[-1] == "62 scenarios, 0 failed"
    assert all(line.startswith("ok  ") for line in told[:-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", ["memory:", "sqlite:"])
def test_failing_scenario_is_told_with_its_difference(run, tmp_path, store):
    """A scenario that does not hold is told with what was expected and found; exit status 1."""
    document = json.loads(SCENARIOS.read_text(encoding="utf-8"))
    scenario = next(one for one in document["scenarios"] if one["then"].get("contacts"))
    scenario["then"]["contacts"] = [["email:nobody@nowhere.example"]]
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"scenarios": [scenario]}), encoding="utf-8")

    result = run("scenarios", file, "--store", store, status=1)

    assert result.stdout.startswith(f"FAIL  {scenario['id']}")
    assert "contacts: expected [['email:nobody@nowhere.example']], found" in result.stdout
    told = lines(run("scenarios", file, "--store", store, "--json", status=1))
    assert [one["passed"] for one in told] == [False]


def test_parse_shows_events_as_json_lines(run):
    """What an adapter makes of a file is shown, with trust by name, and nothing is stored."""
    result = run("parse", "email", DEMO / "mail-ben.eml", "--set", "address=help@shop.example", "--json")

    (event,) = lines(result)
    assert event["event"] == "MessageReceived"
    assert event["hint"]["identifiers"][0]["trust"] == "asserted"
    assert event["attachments"][0]["name"] == "chair.pdf"
    assert not Path("convsdk.db").exists()


def test_parse_tells_all_that_is_read_out_of_a_mail(run):
    """Sender with trust, class with its reason, what is answered, own words and quote are in the line."""
    result = run(
        "parse", "email", MAILS / "body-signature-above-the-quote.eml", "--json",
        "--set", "address=help@shop.example",
    )  # fmt: skip

    (event,) = lines(result)
    assert event["hint"]["identifiers"] == [
        {"kind": "email", "value": "ann@mail.example", "trust": "asserted", "scope": ""}
    ]
    assert (event["detail"]["class"], event["detail"]["why"][:7]) == ("human", "nothing")
    assert (event["text"], event["references"], event["attachments"]) == ("Yes, please.", [], [])
    assert [kind for kind, _ in event["detail"]["sections"]] == ["reply", "signature", "quote"]
    told = event["summary"]
    assert (told["sender"], told["trust"], told["class"]) == ("ann@mail.example", "asserted", "human")
    assert told["text"] == "Yes, please."
    assert "Ann" in told["signature"]
    assert told["quote"].strip().splitlines()[-1].startswith(">")


def test_parse_tells_people_what_matters(run):
    """Without --json there is a line for each thing that is known, with nothing that could steer a terminal."""
    told = run("parse", "email", "-", stdin=mail("ann@a.example", text="Is it \x1b[31mblue?")).stdout

    shown = dict(line.split(":", 1) for line in told.splitlines() if line)
    shown = {key: value.strip() for key, value in shown.items()}
    assert (shown["sender"], shown["trust"], shown["class"]) == ("ann@a.example", "asserted", "human")
    assert (shown["id"], shown["text"]) == ("<1@a.example>", "Is it  [31mblue?")


def test_parse_takes_the_settings_of_a_channel(run, shop):
    """A configured channel's own settings decide, and no secret of it is shown."""
    told = run("parse", "email", "-", "--channel", "mail", "--json", stdin=mail("ann@a.example"))
    page = run("parse", "messenger", DEMO / "messenger-question.json", "--channel", "page")

    assert lines(told)[0]["summary"]["trust"] == "channel"
    assert "hunter2" not in page.output + told.output


def test_parse_reads_a_mail_of_a_channel_with_a_source(run, shop):
    """A file is a mail, whoever posts mail to the channel; with header fields it is such a request."""
    source = '[channels.posted]\ntype = "email"\naddress = "a@shop.example"\nsource = { by = "mailgun", signing_key = '
    (shop / "convsdk.toml").write_text(f'{source}{{ env = "APP_SECRET" }} }}', encoding="utf-8")
    options = ("--channel", "posted", "--json")

    told = run("parse", "email", "-", *options, stdin=mail("ann@a.example"))
    posted = run(
        "parse", "email", "-", *options, "--header", "Content-Type: application/x-www-form-urlencoded",
        stdin=b"body-mime=From: eve@e.example%0A%0AHi",
    )  # fmt: skip

    assert [lines(one)[0]["summary"]["sender"] for one in (told, posted)] == ["ann@a.example", "eve@e.example"]


def test_parse_takes_settings_as_toml(run):
    """A setting can be text, or any TOML value."""
    result = run(
        "parse", "email", "-",
        "--set", "address=help@shop.example", "--set", 'own=["ann@shop.example"]', "--json",
        stdin=mail("ann@shop.example"),
    )  # fmt: skip

    assert lines(result)[0]["detail"]["class"] == "own"


def test_parse_needs_no_secret(run):
    """A webhook's events can be looked at without the secret that it is signed with."""
    told = lines(run("parse", "messenger", DEMO / "messenger-question.json", "--header", "X-Any: thing", "--json"))

    assert [one["external_id"] for one in told] == ["m_AG1", "m_AG2"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["email", "-", "--channel", "mail"], "no channel 'mail' of type 'email' is configured (there are: none)"),
        (["email", "-", "--channel", "mail", "--set", "a=b"], "leave --set out"),
        (["email", "-", "--set", "address"], "is no setting: write --set key=value"),
        (["emial", "-"], "did you mean 'email'?"),
        (["chat", "-"], "is no chat message or form"),
        (["chat", "-", "--set", 'secret="hunter2"'], "must not stand in the file itself"),
    ],
)
def test_parse_says_in_one_line_what_is_wrong(run, arguments, told):
    """A mistake is one line on standard error, with exit status 2 and no folder of ours in it."""
    result = run("parse", *arguments, stdin=b"nonsense", status=2)

    assert result.stderr.startswith("Error: ")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert "convsdk.toml" not in result.stderr
    assert "hunter2" not in result.stderr


def test_parse_tells_how_settings_are_given(run):
    """A refused setting is told with both ways to give it, a refused secret with the one that can."""
    plain = run("parse", "email", "-", "--set", "address=3", stdin=b"", status=2).stderr
    secret = run("parse", "chat", "-", "--set", 'secret="hunter2"', stdin=b"", status=2).stderr
    unknown = run("parse", "emial", "-", stdin=b"", status=2).stderr

    assert "--set KEY=VALUE" in plain
    assert all("--channel NAME" in told for told in (plain, secret, unknown))
    assert "--set" not in secret + unknown


DOVES = """
from attrs import field, frozen
from convsdk.core.events import Noted
from convsdk.core.ports import Capabilities, Channel, Response, Secret, is_secret
from convsdk.core.signing import hmac_of, require_header
from convsdk.hookspecs import hookimpl

@frozen(kw_only=True)
class Settings:
    token: Secret = field(validator=is_secret("ask the dovecote", pattern="dove-[a-z]+"))
    signing_secret: Secret = field(validator=is_secret("ask the dovecote"))

class Doves(Channel):
    type, settings = "doves", Settings
    can = Capabilities(verifies=True, challenges=True)

    def challenge(self, request):
        if request.body.startswith(b"signed"):
            self.verify(request)
        return Response(status=202, body=request.body[4:]) if request.body.startswith(b"coo:") else None

    def verify(self, request):
        require_header(request, "Dove-Signature", hmac_of(request.body, self.config.signing_secret), channel=self.name)

    def parse(self, request):
        if request.body.startswith((b"coo:", b"signed", b"hush")):
            return []
        text = request.body.decode()
        return [Noted(external_id=f"d{text}", kind="cooed", at=request.received_at, text=text)]

@hookimpl
def convsdk_channels(ctx):
    return [Doves]
"""


def test_parse_asks_for_a_secret_that_has_a_form(run, install, monkeypatch):
    """A secret that nothing made up would fit is asked for by name, and can be that of a variable."""
    install("doves", DOVES)
    monkeypatch.setenv("DOVE", "dove-white")
    monkeypatch.setenv("HAWK", "hawk")

    asked = run("parse", "doves", "-", stdin=b"m1", status=2).stderr
    given = run("parse", "doves", "-", "--set", 'token={ env = "DOVE" }', "--json", stdin=b"m1")
    wrong = run("parse", "doves", "-", "--set", 'token={ env = "HAWK" }', stdin=b"m1", status=2).stderr

    assert "token has a form of its own" in asked
    assert """--set 'token={ env = "NAME" }'""" in asked
    assert ("malformed" in asked, "signing_secret" in asked) == (False, False)
    assert lines(given)[0]["text"] == "m1"
    assert "ask the dovecote" in wrong


def test_parse_tells_what_answers_a_handshake(run, install, monkeypatch):
    """A set-up handshake is told as one, with the status and the body of its answer; other silence as that."""
    install("doves", DOVES)
    monkeypatch.setenv("DOVE", "dove-white")
    given = ("--set", 'token={ env = "DOVE" }')

    shown = run("parse", "doves", "-", *given, stdin=b"coo:1158").stdout
    told = run("parse", "doves", "-", *given, "--json", stdin=b"coo:1158")
    refused = run("parse", "doves", "-", *given, stdin=b"signed").stdout
    quiet = run("parse", "doves", "-", *given, stdin=b"hush").stdout

    assert "set-up handshake" in shown
    assert (lines(told)[0]["status"], lines(told)[0]["body"]) == (202, "1158")
    assert "handshake that is not authentic here" in refused
    assert (quiet.startswith("no events"), "handshake" in quiet) == (True, False)


def test_ingest_tells_a_handshake(run, install, shop, monkeypatch):
    """A handshake among what is taken in is told, as it holds nothing to take in."""
    install("doves", DOVES)
    monkeypatch.setenv("DOVE", "dove-white")
    secrets = 'token = { env = "DOVE" }\nsigning_secret = { env = "APP_SECRET" }'
    (shop / "convsdk.toml").write_text(f'[channels.loft]\ntype = "doves"\n{secrets}\n', encoding="utf-8")
    signature = hmac.new(b"hunter2-hunter2", b"coo:1158", hashlib.sha256).hexdigest()

    result = run("ingest", "loft", "-", "--header", f"Dove-Signature: {signature}", stdin=b"coo:1158")

    assert result.stdout == "0 events: nothing\n"
    assert "-: a set-up handshake, which holds no events: 'convsdk parse doves' shows its answer" in result.stderr


def test_parse_tells_the_type_of_a_channel(run, shop):
    """A channel in the place of a type is told, with the option that takes its name."""
    told = run("parse", "mail", "-", stdin=mail("ann@a.example"), status=2).stderr

    assert "use --channel mail" in told
    assert "its type 'email'" in told


def test_parse_asks_a_broken_configuration_nothing(run, tmp_path):
    """What is no type is told as that, whatever else is wrong."""
    (tmp_path / "convsdk.toml").write_text("[nonsense", encoding="utf-8")

    assert "did you mean 'email'?" in run("parse", "emial", "-", stdin=b"", status=2).stderr


def test_header_without_colon_is_refused(run):
    """A header field is a name, a colon and a value."""
    result = run("parse", "chat", "-", "--header", "nonsense", stdin=b"", status=2)

    assert "has no colon" in result.stderr


def test_ingest_keeps_refused_bytes_aside(run, shop):
    """A bad file stops no other: its bytes are kept, and it is told, with exit status 1."""
    (shop / "a.eml").write_bytes(mail("ann@a.example"))
    (shop / "bad.eml").write_bytes(b"\x00\x01 nonsense")

    result = run("ingest", "mail", "bad.eml", "absent.eml", "a.eml", status=1)

    assert result.stdout == "1 events: 1 created\n"
    told = sorted(result.stderr.splitlines())
    assert told[0] == "absent.eml: No such file or directory"
    assert told[1].startswith("bad.eml: ")
    assert [one.body for one in kept_aside()] == [b"\x00\x01 nonsense"]
    assert [one["name"] for one in lines(run("contacts", "--json"))] == ["email:ann@a.example"]


def test_rejects_are_listed_without_what_is_in_them(run, shop):
    """A reject is told by id, channel, time and error; body, headers and address stay in its file."""
    (shop / "bad.eml").write_bytes(b"\x00\x01 nonsense")
    run("ingest", "mail", "bad.eml", "--header", "Authorization: hunter3", status=1)

    table, (record,) = run("rejects"), lines(run("rejects", "--json"))

    (kept,) = kept_aside()
    assert table.stdout.splitlines()[0].split() == ["ID", "CHANNEL", "RECEIVED_AT", "BYTES", "ERROR"]
    assert table.stdout.splitlines()[1].split()[:2] == [kept.id, "mail"]
    assert sorted(record) == ["bytes", "channel", "error", "id", "method", "received_at", "sha256"]
    assert (record["bytes"], record["error"], record["sha256"]) == (11, kept.error, kept.sha256)
    assert "hunter3" not in table.stdout + str(record)


def test_no_rejects_are_none(run, shop):
    """A folder that is empty, or not there, has no rejects."""
    assert run("rejects").stdout == "no rejects in rejects\n"
    assert run("rejects", "--retry").stdout == "0 of 0 rejects taken in\n"


def test_rejects_that_can_be_kept_by_now_are_taken_in(run, shop, monkeypatch):
    """Once the cause is gone, a retry keeps what is authentic and readable, and removes it; the rest stays."""
    file = DEMO / "messenger-question.json"
    signature = hmac.new(b"hunter2-hunter2", file.read_bytes(), hashlib.sha256).hexdigest()
    (shop / "bad.eml").write_bytes(b"\x00\x01 nonsense")
    run("ingest", "mail", "bad.eml", status=1)
    monkeypatch.setenv("APP_SECRET", "another")
    run("ingest", "page", file, "--header", f"X-Hub-Signature-256: sha256={signature}", status=1)
    refused = run("rejects", "--retry", status=1)
    monkeypatch.setenv("APP_SECRET", "hunter2-hunter2")

    result = run("rejects", "--retry", "--json", status=1)

    assert refused.stdout.endswith("0 of 2 rejects taken in\n")
    assert "X-Hub-Signature-256 is missing, repeated or wrong" in refused.stdout
    told = {one["channel"]: one for one in lines(result)}
    assert [one.channel for one in kept_aside()] == ["mail"]
    assert (told["page"]["problem"], sum(told["page"]["outcomes"].values())) == ("", 2)
    assert told["mail"]["problem"]
    assert len(lines(run("conversations", "--json"))) == 1


def test_one_reject_is_retried_by_its_id(run, shop, install):
    """An id picks one reject out; an unknown one is told, and nothing is run."""
    install("picky", PICKY_STORE)
    (shop / "box.mbox").write_bytes(
        mbox(mail("a@a.example", text="poison"), mail("b@a.example", 2, text="more poison"))
    )
    run("ingest", "mail", "box.mbox", "--store", "picky:", status=1)
    first, second = (one.id for one in kept_aside())

    taken = run("rejects", "--retry", first)
    absent = run("rejects", "--retry", first, status=2)

    assert taken.stdout.splitlines() == [f"{first}: 1 created", "1 of 1 rejects taken in"]
    assert [one.id for one in kept_aside()] == [second]
    assert f"holds no reject '{first}'" in absent.stderr


def test_reject_that_the_store_still_refuses_stays(run, shop, install):
    """What fails again is told with its cause and stays where it is."""
    install("picky", PICKY_STORE)
    (shop / "a.eml").write_bytes(mail("a@a.example", text="poison"))
    run("ingest", "mail", "a.eml", "--store", "picky:", status=1)

    result = run("rejects", "--retry", "--store", "picky:", status=1)

    (kept,) = kept_aside()
    assert result.stdout.splitlines() == [f"{kept.id}: poison cannot be kept", "0 of 1 rejects taken in"]


def test_reject_of_a_channel_that_is_gone_stays(run, shop):
    """Where a reject's channel is no longer configured, it is told and kept; a spoilt file hides no other."""
    (shop / "bad.eml").write_bytes(b"\x00\x01 nonsense")
    run("ingest", "mail", "bad.eml", status=1)
    (shop / "rejects" / f"{'0' * 24}.json").write_text("{")
    (shop / "convsdk.toml").write_text(CONFIG.replace("channels.mail", "channels.post"), encoding="utf-8")

    result = run("rejects", "--retry", status=1)

    assert "no channel 'mail' is configured" in result.stdout
    assert "0000.json is no reject" in result.stderr
    assert result.stdout.endswith("0 of 2 rejects taken in\n")
    assert len(list((shop / "rejects").iterdir())) == 2


# -- a pipe of a mail server

ENVELOPE = ("--sender", "ann@a.example", "--recipient", "help+abcdefghij234567@shop.example")


def test_piped_mail_is_taken_with_its_envelope(run, shop):
    """The mail is in the store at exit status 0, under the conversation that its recipient names."""
    result = run("ingest", "mail", "-", *ENVELOPE, stdin=b"From ann@a.example Mon Jan 12\n" + mail("ann@a.example"))

    assert result.stdout == "<1@a.example>: created\n"
    assert lines(run("contacts", "--json"))[0]["name"] == "email:ann@a.example"


def test_envelope_comes_from_the_environment_of_a_mail_server(run, shop, monkeypatch):
    """Postfix's variables count where no option is given; its name of the empty sender is that of a program."""
    for name, value in (("SENDER", "MAILER-DAEMON"), ("RECIPIENT", "help@shop.example")):
        monkeypatch.setenv(name, value)

    run("ingest", "mail", "-", stdin=mail("ann@a.example"))

    assert lines(run("contacts", "--json")) == []


def test_piped_mail_that_cannot_be_read_is_kept_with_its_envelope(run, shop):
    """Status 0, as its bytes are on disk: sent back, they would be lost to the operator."""
    result = run("ingest", "mail", "-", *ENVELOPE, stdin=b"\x00 nonsense")

    (kept,) = kept_aside()
    assert (kept.body, kept.envelope.sender, kept.envelope.recipients) == (
        b"\x00 nonsense",
        *ENVELOPE[1::2][:1],
        ENVELOPE[3:],
    )
    assert "[kept as rejects/" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["fax"], 78),
        (["chat"], 78),
        (["mail", "--store", "sqlite:////nowhere/shop.db"], 75),
        (["mail", "--store", "buggy:"], 75),
        (["mail", "--config", "absent.toml"], 75),
        (["mail", "--rejects", "convsdk.toml", "--store", "picky:"], 75),
    ],
)
def test_exit_status_is_the_answer_to_a_mail_server(run, shop, install, arguments, status):
    """Whatever somebody here can mend, even a bug, lets the mail wait; one line says what is wrong."""
    install("picky", PICKY_STORE.replace("a transaction", ""))
    install("buggy", PICKY_STORE.replace("picky", "buggy").replace('print("a transaction", file=sys.stderr)', "1 / 0"))
    channel, *options = arguments

    result = run("ingest", channel, "-", *options, *ENVELOPE, stdin=mail("eve@e.example", text="poison"), status=status)

    assert len(result.stderr.split("\n")) - 1 == 1 + ("picky:" in options)


@pytest.mark.parametrize(("given", "status"), [(mail("ann@a.example"), 0), (b"\x00 nonsense", 0), (b"", 65)])
def test_exit_status_is_the_answer_where_nothing_can_be_written(shop, given, status):
    """A log on a full disk sends no mail back, and keeps none waiting that was taken."""
    command = [sys.executable, "-c", "from convsdk.cli import main; main()", "ingest", "mail", "-", *ENVELOPE]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=shop, input=given, stdout=full, stderr=full, check=False)

    assert done.returncode == status


def test_empty_pipe_is_no_mail(run, shop):
    """Nothing at all will never be a mail."""
    run("ingest", "mail", "-", *ENVELOPE, stdin=b"", status=65)


def test_envelope_of_a_file_is_refused(run, shop):
    """An envelope is that of one mail on standard input."""
    assert "give - as the only file" in run("ingest", "mail", "a.eml", "--sender", "", status=2).stderr


@pytest.mark.parametrize("name", ["box.mbox", "-"])
def test_ingest_splits_an_mbox(run, shop, name):
    """Each mail of an mbox is one message, at the time of its From line; a second run changes nothing."""
    box = mbox(mail("ann@a.example", "ann"), mail("bob@a.example", "bob"))
    (shop / "box.mbox").write_bytes(box)

    first = run("ingest", "mail", name, "--json", stdin=box)
    second = run("ingest", "mail", name, stdin=box)

    assert [(one["outcome"], one["file"]) for one in lines(first)] == [
        ("created", f"{name}#1"),
        ("created", f"{name}#2"),
    ]
    assert second.stdout == "2 events: 2 duplicate\n"
    assert lines(run("conversations", "--json"))[0]["last_at"] == "2026-01-12T09:00:00+00:00"


def test_mail_that_the_store_refuses_loses_none_of_its_neighbours(run, shop, install):
    """Mails are written many at a time; where one cannot be kept, the others are written one by one."""
    install("picky", PICKY_STORE)
    (shop / "box.mbox").write_bytes(
        mbox(mail("ann@a.example"), mail("eve@e.example", text="poison"), mail("bob@b.example"))
    )

    result = run("ingest", "mail", "box.mbox", "--store", "picky:", "--json", status=1)

    told = lines(result)
    assert [one["file"] for one in told if "outcome" in one] == ["box.mbox#1", "box.mbox#3"]
    (problem,) = (one for one in told if "problem" in one)
    assert (problem["file"], problem["problem"]) == ("box.mbox#2", "poison cannot be kept")
    (kept,) = kept_aside()
    assert b"poison" in kept.body
    assert problem["kept"] == f"rejects/{kept.id}.json"


def test_ingest_writes_many_mails_in_one_transaction(run, shop, install):
    """Several hundred mails take a few transactions and not several hundred."""
    install("picky", PICKY_STORE)
    (shop / "box.mbox").write_bytes(mbox(*(mail("ann@a.example", number) for number in range(450))))

    result = run("ingest", "mail", "box.mbox", "--store", "picky:")

    assert result.stdout == "450 events: 449 attached, 1 created\n"
    assert result.stderr.count("a transaction") == 3


def test_ingest_checks_signatures(run, shop):
    """A webhook is taken with its signature, and refused without; no secret is shown."""
    file = DEMO / "messenger-question.json"
    signature = hmac.new(b"hunter2-hunter2", file.read_bytes(), hashlib.sha256).hexdigest()

    refused = run("ingest", "page", file, status=1)
    taken = run("ingest", "page", file, "--header", f"X-Hub-Signature-256: sha256={signature}")

    assert "X-Hub-Signature-256 is missing" in refused.stderr
    assert "hunter2" not in refused.output
    assert taken.stdout.startswith("2 events")


def test_ingest_of_a_bare_body_asks_for_its_signature(run, shop):
    """Nobody signs a bare body: what to give or do is told, and of a wrong signature to compare the secret."""
    file = DEMO / "messenger-question.json"

    bare = run("ingest", "page", file, status=1).stderr
    wrong = run("ingest", "page", file, "--header", "X-Hub-Signature-256: sha256=00", status=1).stderr

    assert "a bare body is not signed" in bare
    assert "--header 'NAME: VALUE'" in bare
    assert "'convsdk parse messenger FILE --channel page'" in bare
    assert ("compare" in bare, "bare body" in wrong) == (False, False)


def test_ingest_into_an_unknown_channel_is_told(run, shop):
    """A channel has to be configured."""
    result = run("ingest", "fax", DEMO / "mail-ben.eml", status=2)

    assert result.stderr == (
        "Error: no channel 'fax' is configured (there are: chat, mail, page): add [channels.fax]\n"
    )


@pytest.fixture
def two(run, shop):
    """Take two mails in, and give the ids of their contacts."""
    for number, who in enumerate(("ann", "bob")):
        (shop / f"{who}.eml").write_bytes(mail(f"{who}@a.example", number))
    run("ingest", "mail", "ann.eml", "bob.eml")
    return [one["id"] for one in lines(run("contacts", "--json"))]


def test_contacts_are_plain_text_in_a_pipe(run, two):
    """A list is aligned text with a heading, without colour and frames."""
    head, first, second = run("contacts").stdout.splitlines()

    assert head.split()[:3] == ["ID", "NAME", "IDENTIFIERS"]
    assert first.split()[1] == "email:ann@a.example"
    assert second.index("email:bob") == head.index("NAME")


def test_contacts_come_in_pages(run, two):
    """A page ends with the cursor of the next."""
    result = run("contacts", "--limit", "1")

    assert f"--after {two[0]}" in result.stderr
    assert lines(run("contacts", "--after", two[0], "--json"))[0]["id"] == two[1]


def test_contact_is_shown_with_trust(run, two):
    """One contact is shown with how well each identifier is attested."""
    text = run("contact", two[0]).stdout

    assert "email:ann@a.example (channel)" in text
    assert len(lines(run("contact", two[0], "--json"))[0]["conversations"]) == 1


def test_conversations_of_one_contact(run, two):
    """Conversations can be asked for by contact."""
    found = lines(run("conversations", "--contact", two[0], "--json"))

    assert [(one["channel"], one["contact"], one["verified"]) for one in found] == [("mail", two[0], True)]
    assert run("conversations").stdout.splitlines()[0].startswith("ID")


def test_merge_and_unmerge(run, two):
    """A merge joins two contacts, says so when explained, and is taken back by its id."""
    preview = lines(run("merge", two[0], "email:bob@a.example", "--preview", "--json"))[0]
    ruled = lines(run("merge", two[0], "email:bob@a.example", "--by", "mia", "--json"))[0]
    explained = run("explain", two[1]).stdout
    run("unmerge", ruled["merge"], "--by", "mia")

    assert preview["identifiers"] == ["email:ann@a.example", "email:bob@a.example"]
    assert (preview["possible"], ruled["joined"], ruled["contacts"]) == (True, True, [two[0]])
    assert "mia merged" in explained
    assert [one["id"] for one in lines(run("contacts", "--json"))] == two
    assert len(lines(run("explain", two[0], "--json"))[0]["because"]) > 1


def test_forbidden_merge_is_told_with_its_rule(run, two, shop):
    """Where a rule forbids a merge, the exit status is 1 and the rule is named."""
    config = CONFIG.replace('country = "DE"', "component_cap = 1")
    (shop / "convsdk.toml").write_text(config, encoding="utf-8")

    told = lines(run("merge", *two, "--json", status=1))[0]

    assert told["joined"] is False
    assert "cap" in told["refused"][0]
    assert len(lines(run("suggestions", "--json"))) == 1
    assert "EVIDENCE" in run("suggestions").stdout


def test_withdrawn_hint_counts_no_more(run, two):
    """A hint is taken back by its id; a contact without other evidence is listed again when it is restored."""
    run("withdraw", "mail/<0@a.example>", "--by", "mia")
    left = [one["id"] for one in lines(run("contacts", "--json"))]
    run("restore", "mail/<0@a.example>", "--by", "mia")

    assert left == [two[1]]
    assert [one["id"] for one in lines(run("contacts", "--json"))] == two


def test_cannot_link_keeps_two_apart_until_it_is_taken_back(run, two):
    """Two people stay two, whoever merges them; taking the ruling back lets a merge through."""
    ruled = lines(run("cannot-link", *two, "--reason", "brothers", "--json"))[0]
    refused = lines(run("merge", *two, "--json", status=1))[0]
    run("unmerge", ruled["cannot_link"])

    assert ruled["contacts"] == two
    assert "staff said that they are two people" in refused["refused"][0]
    assert lines(run("merge", *two, "--json"))[0]["joined"] is True


def test_contact_is_named_by_an_identifier(run, two):
    """Where a contact is asked for, any identifier that it holds will do, in any spelling."""
    told = [run(command, "email:ANN@a.example", "--json") for command in ("contact", "explain")]

    assert [lines(one)[0].get("id", lines(one)[0].get("contact")) for one in told] == [two[0], two[0]]
    assert len(lines(run("conversations", "--contact", "email:ann@a.example", "--json"))) == 1


@pytest.mark.parametrize("command", ["merge", "cannot-link"])
def test_ruling_on_an_unknown_identifier_is_refused(run, two, command):
    """A slip in an address does not become a key of somebody."""
    result = run(command, two[0], "email:amn@a.example", status=2)

    assert result.stderr == "Error: nobody holds email:amn@a.example: see 'convsdk contacts'\n"
    assert lines(run("contact", two[0], "--json"))[0]["identifiers"] == ["email:ann@a.example"]


def test_messages_of_a_conversation_are_read_in_order(run, shop):
    """The newest messages are shown, the oldest of them first, and the cursor leads back."""
    (shop / "box.mbox").write_bytes(
        mbox(*(mail("ann@a.example", each, f"text {each}", answered=0 if each else "") for each in range(3)))
    )
    run("ingest", "mail", "box.mbox")
    conversation = lines(run("conversations", "--json"))[0]["id"]

    newest = run("messages", conversation, "--limit", 2, "--json")
    oldest = run("messages", conversation, "--before", newest.stderr.split()[-1])

    assert [one["text"].strip() for one in lines(newest)] == ["text 1", "text 2"]
    assert [line.split()[-4:-2] for line in oldest.stdout.splitlines()[1:]] == [["text", "0"]]


def test_notes_are_told_from_messages(run, install, shop, monkeypatch):
    """A note, such as that a message was deleted, has its kind in its row and in the JSON, where its text is as is."""
    install("doves", DOVES)
    monkeypatch.setenv("DOVE", "dove-white")
    secrets = 'token = { env = "DOVE" }\nsigning_secret = { env = "APP_SECRET" }'
    (shop / "convsdk.toml").write_text(f'[channels.loft]\ntype = "doves"\n{secrets}\n', encoding="utf-8")
    for body in (b"croo", b""):
        signature = hmac.new(b"hunter2-hunter2", body, hashlib.sha256).hexdigest()
        run("ingest", "loft", "-", "--header", f"Dove-Signature: {signature}", stdin=body)
    first, second = sorted(one["id"] for one in lines(run("conversations", "--json")))

    shown = [run("messages", one).stdout.splitlines()[-1] for one in (first, second)]
    told = [lines(run("messages", one, "--json"))[0] for one in (first, second)]

    assert "  [cooed] croo  " in shown[0]
    assert "  [cooed]  " in shown[1]
    assert [(one["noted"], one["text"]) for one in told] == [("cooed", "croo"), ("cooed", "")]


def test_answer_that_failed_is_shown_with_the_reason(run, shop):
    """An agent sees what became of an answer, in the platform's words."""
    (shop / "box.mbox").write_bytes(mbox(mail("ann@a.example")))
    run("ingest", "mail", "box.mbox")
    conversation = lines(run("conversations", "--json"))[0]["id"]
    answer = Message(
        id=10**6,
        conversation=conversation,
        channel="mail",
        external_id="out/1",
        direction=Direction.OUTBOUND,
        at=NOON,
        text="Hi!",
        status="failed",
        detail={"error": "551 nobody there"},
    )
    with closing(open_store("sqlite:///convsdk.db")) as store:
        store.transact("default", lambda one: one.write(Batch(messages=[answer])))

    shown = run("messages", conversation).stdout.splitlines()[-1]

    assert "failed" in shown
    assert shown.endswith("551 nobody there")


def test_conversations_come_in_pages(run, two):
    """A page of conversations ends with the time to ask for the next before."""
    newest = run("conversations", "--limit", 1, "--json")

    older = run("conversations", "--before", newest.stderr.split()[-1], "--json")

    assert [one["contact"] for one in (*lines(newest), *lines(older))] == [two[1], two[0]]


def test_events_are_listed_in_order(run, two):
    """What happened comes by id, from any place on, and each line has all of an event."""
    whole = lines(run("events", "--json"))
    first = lines(run("events", "--json", "--limit", "1"))
    rest = lines(run("events", "--json", "--since", first[0]["id"]))

    assert first + rest == whole
    assert whole[0].keys() == {"type", "at", "payload", "version", "id"}
    assert [one["type"] for one in whole].count("contact.created") == 2
    assert "contact.created" in run("events").stdout
    assert f"there may be more: --since {first[0]['id']}" in run("events", "--limit", "1").stderr


def test_unknown_target_cannot_be_told_again(run, two):
    """A misspelt target is told, and not made."""
    assert (
        "nobody called 'webhook/crn' was told anything yet" in run("events", "--again", "webhook/crn", status=2).stderr
    )


def test_mail_in_doubt_is_listed_and_decided_about(run, shop):
    """The queue says why; staff say whose it is, or dismiss it."""
    (shop / "box.mbox").write_bytes(mbox(*(mail("ann@a.example", each, result="fail") for each in range(2))))
    run("ingest", "mail", "box.mbox")
    queue = lines(run("review", "--json"))

    kept = lines(run("review", queue[0]["conversation"], "--sender", "Ann@a.example", "--by", "kim", "--json"))
    dismissed = lines(run("review", queue[1]["conversation"], "--dismiss", "--by", "kim", "--json"))

    assert [(one["from"], "DMARC failed" in one["why"]) for one in queue] == [("ann@a.example", True)] * 2
    assert kept == [{"conversation": queue[0]["conversation"], "contact": kept[0]["contact"], "by": "kim"}]
    assert lines(run("contact", "email:ann@a.example", "--json"))[0]["id"] == kept[0]["contact"]
    assert dismissed[0]["contact"] is None
    assert "nothing in doubt" in run("review").output


def test_decision_about_a_mail_in_doubt_must_be_one(run, shop):
    """One of --sender and --dismiss is needed, an address must be usable, and a conversation in review."""
    (shop / "box.mbox").write_bytes(mail("ann@a.example", result="fail"))
    run("ingest", "mail", "box.mbox")
    number = lines(run("review", "--json"))[0]["conversation"]

    assert "--dismiss" in run("review", number, status=2).output
    assert "--dismiss" in run("review", number, "--sender", "a@x.example", "--dismiss", status=2).output
    assert "no usable e-mail address" in run("review", number, "--sender", "nobody", status=2).output
    run("review", number, "--dismiss")
    assert "is in no review" in run("review", number, "--dismiss", status=2).output


def test_consent_and_membership_are_told_apart(run, two):
    """A yes to marketing is on record with its words, and is not enough for a list until the contact is on it."""
    asked = ["consent", "email:ann@a.example", "marketing", "--list", "news", "--json"]
    before = lines(run(*asked))[0]
    granted = lines(run(*asked, "--record", "granted", "--wording", "Yes, please", "--by", "mia"))[0]
    listed = lines(run("membership", two[0], "news", "--record", "subscribed", "--json"))[0]

    assert (before["consent"], before["may_write"]) == (None, False)
    assert "never asked" in before["missing"][0]
    assert (granted["consent"], granted["missing"]) == ("granted", ["the contact is not subscribed to news"])
    assert listed == {"contact": two[0], "list": "news", "membership": "subscribed"}
    assert lines(run(*asked))[0]["may_write"] is True


def test_ruling_needs_a_name(run, two, monkeypatch):
    """Where the user of the program has no name, as in a container, whoever decides has to give one."""

    def nameless():
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)

    assert "say who decides with --by NAME" in run("merge", *two, status=2).stderr
    assert lines(run("merge", *two, "--by", "mia", "--json"))[0]["joined"] is True


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["contact", "99999"], "no contact 99999"),
        (["explain", "99999"], "no contact 99999"),
        (["messages", "99999"], "no conversation 99999"),
        (["unmerge", "nothing"], "no merge 'nothing'"),
        (["withdraw", "nothing"], "no hint 'nothing'"),
        (["restore", "nothing"], "no withdrawal 'nothing'"),
        (["merge", "email:nonsense", "1"], "is no usable identifier"),
        (["contact", "9" * 30], "is no usable identifier"),
        (["consent", "1", "marketing"], "write kind:value"),
        (["contacts", "--workspace", "b"], "there is no workspace 'b'"),
        (["contacts", "--store", "mysql://u:hunter2@db/x"], "no store for 'db/x'"),
        (["contacts", "--store", ""], "no store for ''"),
        (["contacts", "--store", "sqlite:///no/folder/x.db"], "cannot open 'no/folder/x.db' as a store"),
        (["contacts", "--store", "sqlite:///convsdk.toml"], "cannot open 'convsdk.toml' as a store"),
        (["contacts", "--config", "absent.toml"], "absent.toml: cannot be read"),
        (["scenarios", "absent.json"], "absent.json cannot be read"),
    ],
)
def test_error_is_one_line_with_status_2(run, shop, arguments, told):
    """What cannot be done is told in one line on standard error, without a traceback and without a secret."""
    result = run(*arguments, status=2)

    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr
    assert "hunter2" not in result.stderr


def test_several_mistakes_point_to_check(run, shop):
    """A command names the first mistake of a configuration, and says how many more there are."""
    (shop / "convsdk.toml").write_text("stor = 1\n[channels.x]\ntype = 'zzz'\n", encoding="utf-8")

    result = run("contacts", status=2)

    assert "and 1 more: run 'convsdk check'" in result.stderr


def test_check_tells_all_mistakes(run, shop):
    """Every mistake is a line of its own, and the exit status is 1."""
    (shop / "convsdk.toml").write_text("stor = 1\n[channels.x]\ntype = 'zzz'\n", encoding="utf-8")

    told = run("check", status=1).stdout.splitlines()

    assert [line.partition(": ")[0] for line in told] == ["convsdk.toml:1", "convsdk.toml:3"]
    assert len(lines(run("check", "--json", status=1))[0]["problems"]) == 2


def test_check_of_a_good_configuration(run, shop):
    """A good configuration is summed up, without its secrets."""
    result = run("check", "--json")

    assert lines(result)[0]["channels"] == ["chat", "mail", "page"]
    assert "hunter2" not in result.output


def test_check_without_a_file_is_told(run):
    """There has to be something to check."""
    assert "cannot be read" in run("check", status=1).stdout


def test_channels_show_what_they_can(run, shop):
    """Channels are listed with their abilities, and without their settings."""
    told = {one["name"]: one for one in lines(run("channels", "--json"))}

    assert told["page"]["type"] == "messenger"
    assert "verifies" in told["page"]["can"]
    assert "hunter2" not in run("channels").output


def test_plugins_show_how_long_they_took(run):
    """Each plugin is listed with its state and the time that it took to load."""
    told = {one["name"]: one for one in lines(run("plugins", "--json"))}

    assert {"chat", "email", "js_identify", "messenger"} <= set(told)
    assert all(one["state"] == "loaded" and one["load_time_ms"] > 0 for one in told.values())


def test_broken_plugin_is_shown_with_its_fix(run, install):
    """A plugin that cannot be used is listed with the reason and the remedy."""
    install("fax", "import absent_fax_module")

    told = next(one for one in lines(run("plugins", "--json")) if one["name"] == "fax")

    assert told["state"] == "broken"
    assert "absent_fax_module" in told["reason"]
    assert told["fix"] in run("plugins").stdout


def test_command_of_a_plugin_is_a_command(run, install):
    """A command that a plugin brings runs under its name, and the list of plugins names it."""
    source = """
import click
from convsdk.hookspecs import hookimpl

@click.command("fax-import")
def fax_import():
    click.echo("imported")

@hookimpl
def convsdk_commands(ctx):
    return [fax_import]
"""
    install("fax", source)

    assert run("fax-import").stdout == "imported\n"
    assert "command fax-import" in run("plugins").stdout


def test_unwritable_folder_is_told_in_one_line(run, shop):
    """An error of the operating system is told with its file, and without a traceback."""
    (shop / "bad.eml").write_bytes(b"nonsense")
    (shop / "rejects").write_text("in the way", encoding="utf-8")

    result = run("ingest", "mail", "bad.eml", status=2)

    assert result.stderr == "Error: rejects: File exists\n"


def test_reader_that_has_seen_enough_is_no_error(shop, two):
    """A pipe that is closed early ends the program without a word."""
    code = "from convsdk.cli import main; main()"
    command = f"{sys.executable} -c '{code}' contacts --json | true"

    done = subprocess.run(["/bin/sh", "-c", command], cwd=shop, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_migrate_shows_no_password(run, tmp_path):
    """A store is made ready, and told without what its URL keeps secret."""
    result = run("migrate", "--store", f"sqlite:///{tmp_path / 'new.db'}")

    assert "up to date" in result.stdout
    assert (tmp_path / "new.db").exists()


def test_migrate_finishes_an_upgrade_when_asked(run, monkeypatch, tmp_path):
    """The steps that end support for the release before run with '--finish' alone, and are told; no secret is."""
    folder = tmp_path / "schema" / "postgresql"
    shutil.copytree(resources.files("convsdk.store") / "schema" / "postgresql", folder)
    (folder / "0002_gone.post.sql").write_text("create table finished (at timestamptz)")
    monkeypatch.setattr(postgresql.resources, "files", lambda _: tmp_path)
    url = f"{fresh_postgresql()}&password=hunter2"

    before, finish, again = (run("migrate", *more, "--store", url) for more in ((), ("--finish",), ("--finish",)))

    assert "finished" not in before.stdout
    assert re.search(r"finished: +0002_gone\.post\.sql", finish.stdout)
    assert "0002_gone" not in again.stdout
    assert "hunter2" not in before.stdout + finish.stdout
    assert sql(url, "select count(*) from finished") == [(0,)]


def test_migrate_of_a_file_has_nothing_to_finish(run):
    """A store of one process needs no second step."""
    result = run("migrate", "--finish", "--json")

    assert lines(result)[0]["finished"] == []


def test_command_that_nobody_brings_is_told(run):
    """An unknown name is refused after the plugins were asked."""
    assert "No such command 'faxes'" in run("faxes", status=2).stderr


def test_own_and_blocked_values_count_in_any_spelling(run):
    """What a workspace sets as its own or as blocked is compared in canonical form."""
    policy = policy_of(
        WorkspaceConfig(country="DE", own=("Help@Shop.example",), blocked=("030 901820", "n-0")), kinds=()
    )

    claims = [
        ("email", "help@SHOP.example"),
        ("phone", "+49 30 901820"),
        ("external_id", "n-0"),
        ("email", "a@b.example"),
    ]
    found = [policy.canonical(Claim(kind, value, Trust.AGENT)) for kind, value in claims]

    assert found == [None, None, None, Identifier("email", "", "a@b.example")]


def test_output_steers_no_terminal():
    """Control characters that a customer wrote are not written to the terminal."""
    assert cell("a\x1b[2Jb\u202ec\nd") == "a [2Jb c d"
    assert [cell(one) for one in (None, True, (), {"a": None}, ("x", "y"))] == ["-", "yes", "-", "a: -", "x, y"]


def test_secret_is_never_json():
    """A secret becomes stars."""
    assert plain({"key": Secret("hunter2")}) == {"key": "***"}


def on_terminal(command, cwd):
    """Run a command line on a terminal of 80 columns, and give its status and what is shown."""
    script = shutil.which("script")
    if script is None:
        pytest.skip("needs a pseudo-terminal")
    program = f"{sys.executable} -c 'from convsdk.cli import main; main()' {command}"
    done = subprocess.run(
        [script, "-qec", program, "/dev/null"], cwd=cwd, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    return done.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)


@pytest.mark.parametrize("command", ["contacts", "contact email:ann@a.example", "conversations", "plugins"])
def test_terminal_gets_a_drawing_that_cuts_nothing(shop, two, command):
    """On a terminal a list is drawn, and every value stays in one piece."""
    status, shown = on_terminal(command, shop)

    assert status == 0
    assert "…" not in shown
    if command.startswith("contact"):
        assert "email:ann@a.example" in shown
    assert ("─" in shown) is (command != "contact email:ann@a.example")


def test_progress_bar_leaves_the_output_alone(shop, two):
    """The bar stands on the terminal, and the JSON lines go where they were sent."""
    status, shown = on_terminal("ingest mail ann.eml bob.eml --json > told.jsonl", shop)

    told = [json.loads(line) for line in (shop / "told.jsonl").read_text(encoding="utf-8").splitlines()]
    assert status == 0
    assert "into mail" in shown
    assert [one["outcome"] for one in told] == ["duplicate", "duplicate"]


# -- answering


def test_staff_answer_what_the_widget_shows(run, tmp_path):
    """An answer is in the conversation, by who gave it, and goes nowhere where no widget would show it."""
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    asked = {"type": "message", "id": "m1", "visitor": "v1", "text": "Hello?"}
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    run("ingest", "chat", "asked.json")

    answered = run("reply", 1, "Hi!", "--by", "kim", "--json")

    told = lines(answered)[0]
    assert (told["by"], told["channel"]) == ("kim", "chat")
    assert "no e-mail channel follows 'chat' up" in told["why"]
    assert [one["text"] for one in lines(run("messages", 1, "--json"))] == ["Hello?", "Hi!", "assigned to kim"]
    assert "no conversation 7" in run("reply", 7, "Hi!", status=2).output
    assert "write some" in run("reply", 1, " ", status=2).output


def test_staff_assign_and_complete_what_is_in_the_inbox(run, tmp_path):
    """Who has it and whether it is done with is told, and can be taken back."""
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    asked = {"type": "message", "id": "m1", "visitor": "v1", "text": "Hello?"}
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    run("ingest", "chat", "asked.json")

    assigned = [lines(run("assign", 1, *to, "--by", "lee", "--json"))[0]["assignee"] for to in (["kim"], [])]
    completed = [lines(run("complete", 1, *undo, "--by", "lee", "--json"))[0]["status"] for undo in ([], ["--undo"])]

    assert (assigned, completed) == (["kim", ""], ["complete", "open"])
    assert [one["text"] for one in lines(run("messages", 1, "--json"))][1:] == [
        "assigned to kim by lee",
        "assigned to nobody by lee",
        "completed by lee",
        "reopened by lee",
    ]


def test_staff_say_that_they_are_there(run):
    """Whoever is on duty stays so for the hours that were said, and is gone at once with none."""
    nobody = lines(run("duty", "--json"))
    both = [lines(run("duty", "--hours", 8, "--by", name, "--json")) for name in ("kim", "lee")][-1]
    one = lines(run("duty", "--hours", 0, "--by", "kim", "--json"))

    assert [nobody, both, one] == [[{"on_duty": []}], [{"on_duty": ["kim", "lee"]}], [{"on_duty": ["lee"]}]]
