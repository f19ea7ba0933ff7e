import textwrap
from typing import ClassVar, Literal

import pytest
from attrs import evolve, field, frozen
from attrs.validators import matches_re, min_len
from hypothesis import given
from hypothesis import strategies as st

from convsdk.config import WorkspaceConfig, load_config
from convsdk.core.blocks import BLOCKS, BranchBlock, Choice, ChooseBlock, EndBlock, FormBlock
from convsdk.core.flow import Block, Flow, Say, Trigger
from convsdk.core.forms import Form
from convsdk.core.hours import OfficeHours
from convsdk.core.model import Direction
from convsdk.core.ports import Channel, Secret
from convsdk.errors import ConfigError
from convsdk.plugins import Broken, Plugins, load_plugins
from convsdk.toml_lines import lines_of


@frozen(kw_only=True)
class Field:
    label: str
    required: bool = False


@frozen(kw_only=True)
class ChatSettings:
    secret: Secret | None = None
    old_secrets: tuple[Secret, ...] = ()
    country: str | None = None
    limit: int = 10
    fields: tuple[Field, ...] = ()
    extra: dict[str, Field] = field(factory=dict)
    forms: dict[str, Form] = field(factory=dict)
    bot: Flow | None = None


def _is_long_enough(_, __, value):
    if len(value.reveal()) < 4:
        message = f"the secret {value.reveal()} is too short"
        raise ValueError(message)


@frozen(kw_only=True)
class PageSettings:
    app_secret: Secret = field(validator=_is_long_enough)
    mode: Literal["fast", "slow"] = "fast"
    way: Direction | None = None
    page: str = field(default="page", validator=[min_len(3), matches_re("[a-z]+")])
    greeting: str = field(default="hello", validator=min_len(2))


@frozen(kw_only=True)
class PigeonWay:
    by: ClassVar[str] = "pigeon"

    loft: str
    birds: int = 1


@frozen(kw_only=True)
class DrumWay:
    by: ClassVar[str] = "drum"

    key: Secret


@frozen(kw_only=True)
class PostSettings:
    sending: PigeonWay | DrumWay | None = None


class Post(Channel):
    type = "post"
    settings = PostSettings

    def parse(self, request):
        return []


class Chat(Channel):
    type = "chat"
    settings = ChatSettings

    def parse(self, request):
        return []


class Page(Chat):
    type = "page"
    settings = PageSettings


@frozen(kw_only=True)
class Voucher(Block):
    type = "voucher"
    code: str

    def enter(self, visit):
        return [Say(self.code)]


BROKEN = Broken(
    name="fax", distribution="convsdk-fax", version="1", reason="it lacks toner", fix="add toner", load_time_ms=1.0
)


@pytest.fixture
def load(tmp_path):
    """Write `convsdk.toml` and load it."""

    def load(text, environ=None, broken=()):
        path = tmp_path / "convsdk.toml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        types = {"chat": Chat, "page": Page, "post": Post}
        plugins = Plugins(channel_types=types, block_types=BLOCKS | {"voucher": Voucher}, broken=broken)
        return load_config(path, plugins, environ=environ or {})

    return load


@pytest.fixture
def problems(load, tmp_path):
    """Load what is wrong, and give the lines of the error without the folder."""

    def problems(text, environ=None, broken=()):
        with pytest.raises(ConfigError) as caught:
            load(text, environ, broken)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return problems


def test_whole_file_is_read(load, tmp_path):
    """Store, workspaces and channels arrive as values, with their secrets from the environment and from files."""
    (tmp_path / "app").write_text("from-file\n", encoding="utf-8")

    config = load(
        """
        store = "sqlite:///x.db"
        [workspaces.default]
        country = "DE"
        own = ["support@shop.example"]
        [channels.shop-chat]
        type = "chat"
        secret = { env = "CHAT" }
        old_secrets = [{ env = "CHAT" }, { file = "app" }]
        fields = [{ label = "Phone", required = true }]
        extra.company = { label = "Company" }
        [channels.shop-page]
        type = "page"
        app_secret.file = "app"
        """,
        {"CHAT": "from-env"},
    )

    assert config.store == "sqlite:///x.db"
    assert config.workspaces == {"default": WorkspaceConfig(country="DE", own=("support@shop.example",))}
    assert config.channels["shop-chat"].config == ChatSettings(
        secret=Secret("from-env"),
        old_secrets=(Secret("from-env"), Secret("from-file")),
        country="DE",
        fields=(Field(label="Phone", required=True),),
        extra={"company": Field(label="Company")},
    )
    assert config.channels["shop-page"].config.app_secret.reveal() == "from-file"
    assert config.channel_workspaces == {"shop-chat": "default", "shop-page": "default"}
    assert "from-" not in repr(config)


def test_empty_file_has_a_store_and_a_workspace(load):
    """Everything has a default."""
    config = load("")

    assert (config.store, list(config.workspaces), config.channels) == ("sqlite:///convsdk.db", ["default"], {})


def test_webhook_is_read(load):
    """A webhook arrives with its secrets as keys, and with what it is told unless it says otherwise."""
    key = "d2hhdCBhIHJlY2VpdmVyIGtub3dzLCB0b28="

    config = load(
        """
        [workspaces.shop]
        [webhooks.crm]
        workspace = "shop"
        url = "https://crm.example/t0k3n"
        secrets = [{ env = "CRM" }]
        """,
        {"CRM": f"whsec_{key}"},
    )

    assert config.webhooks["crm"].keys == (b"what a receiver knows, too",)
    assert (config.webhooks["crm"].events, config.webhooks["crm"].start) == (("*",), "now")
    assert config.webhook_workspaces == {"crm": "shop"}
    assert not any(word in repr(config) for word in (key, "t0k3n"))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('url = "crm.example"', "url: this is no web address"),
        ('url = "ftp://crm.example"', "url: this is no web address"),
        ('url = "https://:443/"', "url: this is no web address"),
        ('url = "https://crm.example:port/"', "url: this is no web address"),
        ('url = "https://ann:hunter2@crm.example/"', "url: this is no web address without a user"),
        ('url = "http://crm.example/"', "url: http is for this machine alone"),
        ("secrets = []", "secrets: there is nothing to sign with"),
        ('secrets = [{ env = "SHORT" }]', "secrets: secrets[0] is no whsec_ with 24 to 64 bytes"),
        ('secrets = [{ env = "BARE" }]', "secrets: secrets[0] is no whsec_ with 24 to 64 bytes"),
        ('secrets = [{ env = "GOOD" }, { env = "ODD" }]', "secrets: secrets[1] is no whsec_ with 24 to 64 bytes"),
        ("events = []", "events: "),
        ('start = "later"', "start is 'later': take one of 'now', 'beginning'"),
        ('workspace = "shop"', "there is no workspace 'shop'"),
        ('event = "contact.created"', "has no key 'event': did you mean 'events'?"),
    ],
)
def test_mistake_in_a_webhook_is_told_without_its_secrets(problems, setting, problem):
    """What a webhook cannot do is said with the remedy; neither a key nor a password in the URL is in it."""
    lines = {"url": 'url = "https://crm.example/"', "secrets": 'secrets = [{ env = "GOOD" }]'}
    lines[setting.partition(" ")[0]] = setting
    long = "Z29vZCBrZXlzIGhhdmUgMjQgYnl0ZXMgb3IgbW9yZQ=="
    environ = {"GOOD": f"whsec_{long}", "SHORT": "whsec_c2hvcnQ=", "BARE": long, "ODD": "whsec_hunter2"}

    told = problems("\n".join(["[webhooks.crm]", *lines.values()]), environ)

    assert len(told) == 1
    assert "webhook 'crm'" in told[0]
    assert problem in told[0]
    assert not any(word in told[0] for word in ("hunter2", long, "c2hvcnQ"))


def test_own_country_of_a_channel_wins(load):
    """A channel takes the country of its workspace only where it names none."""
    config = load(
        """
        [workspaces.at]
        country = "AT"
        [channels.a]
        type = "chat"
        workspace = "at"
        [channels.b]
        type = "chat"
        workspace = "at"
        country = "CH"
        """
    )

    assert [channel.config.country for channel in config.channels.values()] == ["AT", "CH"]


def test_all_problems_are_told_at_once_with_their_lines(problems):
    """One error holds every mistake, in the order of the file."""
    text = """\
        stor = "sqlite:///x.db"
        [workspaces.default]
        country = "de"
        external_id_cap = 0
        contry = "DE"
        [channels.Shop_Chat]
        type = "chat"
        limit = "ten"
        fields = [
            { label = "a" },
            { lable = "b" },
        ]
        [channels.page]
        type = "page"
        workspace = "b"
        """

    told = problems(text)

    assert told == [
        "convsdk.toml:1: the file has no key 'stor': did you mean 'store'?",
        (
            "convsdk.toml:3: workspace 'default': country: 'de' is no country: "
            'give its two capital letters (ISO 3166), such as "DE"'
        ),
        "convsdk.toml:4: workspace 'default': external_id_cap: 'external_id_cap' must be >= 1: 0",
        "convsdk.toml:5: workspace 'default' has no key 'contry': did you mean 'country'?",
        "convsdk.toml:6: channel 'Shop_Chat' has an unusable name: take small letters, digits and hyphens",
        "convsdk.toml:8: channel 'Shop_Chat': limit has a wrong value: expected a whole number, got text",
        "convsdk.toml:11: channel 'Shop_Chat': fields[1] has no key 'lable': did you mean 'label'?",
        "convsdk.toml:11: channel 'Shop_Chat': fields[1]: label is missing: add label = ...",
        "convsdk.toml:13: channel 'page': app_secret is missing: add app_secret = { env = \"NAME\" }",
        "convsdk.toml:15: channel 'page': there is no workspace 'b': add [workspaces.b], or take one of default",
    ]


def test_every_validator_is_heard(problems):
    """The errors of all fields' validators are taken over, each on its field's line, with no secret in them."""
    text = """\
        [workspaces.default]
        country = "de"
        external_id_cap = 0
        [channels.page]
        type = "page"
        page = "X"
        greeting = ""
        app_secret = { env = "S" }
        """

    told = problems(text, {"S": "qzq"})

    assert [line.split(": ")[0] for line in told] == [f"convsdk.toml:{number}" for number in (2, 3, 6, 7, 8)]
    assert "the secret *** is too short" in told[-1]
    assert "qzq" not in "".join(told)


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ('"hunter2"', "must not stand in the file itself: use { env"),
        ("5", "says not where it is kept: use { env"),
        ("{}", "says not where it is kept"),
        ('{ env = "SET", file = "x" }', "says not where it is kept"),
        ("{ env = 5 }", "env is a number"),
        ('{ env = "UNSET" }', "environment variable UNSET is not set"),
        ('{ env = "EMPTY" }', "environment variable EMPTY is empty"),
        ('{ file = "absent" }', "absent cannot be read"),
        ('{ file = "empty" }', "empty is empty"),
        ('{ file = "binary" }', "binary holds no text"),
    ],
)
def test_secret_that_cannot_be_had_is_told_without_its_value(problems, tmp_path, secret, problem):
    """A secret comes from a set variable or a readable file; the message names which, and never shows a value."""
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff")

    told = problems(f'[channels.page]\ntype = "page"\napp_secret = {secret}\n', {"EMPTY": "", "SET": "hunter2"})

    assert len(told) == 1
    assert told[0].startswith("convsdk.toml:3: channel 'page': app_secret")
    assert problem in told[0]
    assert "hunter2" not in told[0]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ('type = "fax"', "is broken, it lacks toner: add toner"),
        ('type = "chatt"', "did you mean 'chat'?"),
        ('type = "zzz"', "plugin 'fax' is broken, it lacks toner"),
        ("", "has no type: set type to one of: chat, page"),
        ("type = 5", "a type that is a number"),
    ],
)
def test_channel_without_a_working_plugin_is_told(problems, kind, problem):
    """A channel whose type nobody brings is an error; a broken plugin's reason is part of it."""
    told = problems(f"[channels.x]\n{kind}\n", broken=(BROKEN,))

    assert len(told) == 1
    assert problem in told[0]


def test_plugin_of_another_name_is_suspected_by_its_distribution(problems):
    """Of the broken plugins, the one named like the type is told, else all of the distribution named like it."""
    other = evolve(BROKEN, name="phone", reason="it lacks a line")

    told = [
        problems('[channels.x]\ntype = "fax"\n', broken=broken)
        for broken in [(BROKEN, other), (other,), (other, other)]
    ]

    assert [["lacks toner" in line for line in each] for each in told] == [[True], [False], [False, False]]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('mode = "medium"', "mode is 'medium': take one of 'fast', 'slow'"),
        ("way = 5", "way is 5: take one of 'inbound', 'outbound', 'note', 'line'"),
        ("greeting = []", "greeting has a wrong value: expected text, got a list"),
    ],
)
def test_value_of_another_kind_is_told_with_what_may_stand_there(problems, setting, problem):
    """A setting with a few permitted values names them; another one names the kind of value that it takes."""
    told = problems(f'[channels.page]\ntype = "page"\napp_secret = {{ env = "S" }}\n{setting}\n', {"S": "long enough"})

    assert told == [f"convsdk.toml:4: channel 'page': {problem}"]


FLOW = """\
trigger = { agents = "away" }
[[blocks]]
id = "open"
type = "branch"
on = "hours"
hours = { zone = "Europe/Berlin", week = ["Mon-Fri 09:00-17:00"] }
then = "gift"
[[blocks]]
id = "who"
type = "form"
form = "contact"
text = "Who are you?"
[[blocks]]
id = "gift"
type = "voucher"
code = "SAVE"
[[blocks]]
id = "topic"
type = "choose"
text = "What is it about?"
choices = [{ value = "order", label = "My order" }, { value = "other", label = "Else", next = "who" }]
[[blocks]]
id = "bye"
type = "end"
"""
CHAT = """\
[channels.shop-chat]
type = "chat"
forms.contact = { email = "required", phone = "required" }
"""


def test_bot_is_read_from_the_file_or_from_one_of_its_own(load, tmp_path):
    """A flow stands in the channel or in a file beside it, with the blocks of plugins and the channel's forms."""
    (tmp_path / "welcome.toml").write_text(FLOW, encoding="utf-8")
    inline = "[channels.shop-chat.bot]\n" + FLOW.replace("[[blocks]]", "[[channels.shop-chat.bot.blocks]]")

    flows = [load(CHAT + bot).channels["shop-chat"].config.bot for bot in (inline, 'bot = { file = "welcome.toml" }')]

    hours = OfficeHours(zone="Europe/Berlin", week=("Mon-Fri 09:00-17:00",))
    choices = (Choice(value="order", label="My order"), Choice(value="other", label="Else", next="who"))
    assert flows == [flows[0]] * 2
    assert flows[0] == Flow(
        trigger=Trigger(agents="away"),
        blocks=(
            BranchBlock(id="open", on="hours", hours=hours, then="gift"),
            FormBlock(id="who", form="contact", text="Who are you?"),
            Voucher(id="gift", code="SAVE"),
            ChooseBlock(id="topic", text="What is it about?", choices=choices),
            EndBlock(id="bye"),
        ),
        forms={"contact": Form(email="required", phone="required")},
    )


WRONG = """\
trigger = { on = "hover" }
colour = "red"
[[blocks]]
id = "hello"
type = "say"
txt = "Hello"
next = "topci"
[[blocks]]
id = "topic"
type = "form"
text = " "
form = "newsletter"
[[blocks]]
id = "who"
type = "form"
text = "Who?"
form = "newsletter"
next = "hours"
[[blocks]]
id = "hours"
type = "branch"
on = "hours"
hours = { zone = "Moon", week = ["Mon 09:00-10:00"] }
[[blocks]]
id = "pause"
type = "automation"
name = "welcome"
next = "nowhere"
[[blocks]]
id = "gift"
type = "vouchr"
[[blocks]]
id = "B 7"
type = 5
[[blocks]]
id = "bye"
type = "end"
next = "hello"
"""


@pytest.mark.parametrize("is_inline", [True, False])
def test_every_mistake_of_a_bot_is_told_with_line_and_block(problems, tmp_path, is_inline):
    """What is wrong with a block, and with the flow as a whole, is told at once, in the file where it stands."""
    (tmp_path / "welcome.toml").write_text(WRONG, encoding="utf-8")
    inline = "[channels.shop-chat.bot]\n" + WRONG.replace("[[blocks]]", "[[channels.shop-chat.bot.blocks]]")

    told = problems(CHAT + (inline if is_inline else 'bot = { file = "welcome.toml" }'))

    file, before = ("convsdk.toml", 4) if is_inline else ("welcome.toml", 0)
    expected = {
        1: "bot: trigger: on is 'hover': take one of 'open', 'message'",
        2: "bot has no key 'colour': remove it, or take one of trigger, blocks",
        3: "bot: block 1 ('hello'): text is missing: add text = ...",
        6: "bot: block 1 ('hello') has no key 'txt': did you mean 'text'?",
        11: "bot: block 2 ('topic'): text: text is blank: write some words",
        13: "bot: block 3 ('who'): there is no form 'newsletter': add it to the channel's forms, or take contact",
        23: "bot: block 4 ('hours'): hours: zone: 'Moon' is no time zone: take an IANA name, such as 'Europe/Berlin'",
        24: "bot: block 5 ('pause'): it goes on at 'nowhere', which is no block: name the id of a block",
        31: "bot: block 6 ('gift'): no plugin brings type 'vouchr': did you mean 'voucher'?",
        32: "bot: block 7 ('block-7') has no type: set type to one of: " + ", ".join(sorted({*BLOCKS, "voucher"})),
        35: "bot: block 8 ('bye'): it never goes on at its next: remove next",
    }
    assert told == [f"{file}:{line + before}: channel 'shop-chat': {said}" for line, said in expected.items()]


@pytest.mark.parametrize(
    ("bot", "problem"),
    [
        ("5", "bot has no list of blocks: add a table [[channels.shop-chat.bot.blocks]] for each, or name a file"),
        ("{}", "bot has no list of blocks"),
        ("{ blocks = [] }", "bot: a flow has 1 to 100 blocks, and not 0"),
        ("{ blocks = [5] }", "bot: block 1 ('block-1') has no type"),
        ('{ file = "absent.toml" }', "absent.toml: cannot be read (No such file or directory)"),
        ('{ file = "broken.toml" }', "broken.toml:2: this is no TOML"),
        ('{ file = "a\\u0000b" }', "names no file alone"),
        ('{ file = "a", blocks = [] }', "names no file alone"),
        ("{ file = 5 }", "names no file alone"),
    ],
)
def test_bot_that_cannot_be_read_is_told(problems, tmp_path, bot, problem):
    """Something that is no flow, or a file without one, is told on the line of the setting."""
    (tmp_path / "broken.toml").write_text("a = 1\nb =", encoding="utf-8")

    told = problems(f"{CHAT}bot = {bot}")

    assert len(told) == 1
    assert told[0].startswith("convsdk.toml:4: channel 'shop-chat': bot")
    assert problem in told[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [('store = "a"\nx = \n', 2), ('a = 1\nstore = """\n', 2), ("[a]\n[a]\n", 2)],
)
def test_syntax_error_carries_its_line(problems, text, line):
    """What is no TOML is told with the line."""
    told = problems(text)

    assert told[0].startswith(f"convsdk.toml:{line}: this is no TOML")


def test_missing_file_is_told(tmp_path):
    """A file that is not there is a configuration error."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_config(tmp_path / "none.toml", Plugins(), environ={})


def test_file_in_another_encoding_is_told(tmp_path):
    """A file that is not UTF-8 is told with the line of the first wrong character."""
    path = tmp_path / "convsdk.toml"
    path.write_bytes(b"# ok\n# caf\xe9\n")

    with pytest.raises(ConfigError, match=r"convsdk\.toml:2: a character is not in UTF-8"):
        load_config(path, Plugins(), environ={})


def test_lines_are_found_in_every_notation():
    """Strings over several lines, arrays, inline tables, dotted and quoted keys and arrays of tables are walked."""
    text = textwrap.dedent(
        """\
        a.b = '''
        [no.table] # text
        '''  # comment = 1
        "q\\u0041 ]" = [
          1, # one
          { x = "}", y = [2] },
        ]
        [ t . "u.v" ]
        when = 1979-05-27 07:32:00.5
        [[list]]
        n = 1
        [[list]]
        n = 2
        [list.sub]
        m = "\\"#"
        """
    )

    lines = lines_of(text)

    assert lines["a", "b"] == 1
    assert lines["qA ]",] == 4
    assert lines["qA ]", 0] == 5
    assert lines["qA ]", 1, "y"] == 6
    assert lines["t", "u.v"] == 8
    assert lines["t", "u.v", "when"] == 9
    assert (lines["list", 0, "n"], lines["list", 1, "n"]) == (11, 13)
    assert lines["list", 1, "sub", "m"] == 15


@given(st.lists(st.tuples(st.text("ab\n\"'[]{}#=,.\\ ", max_size=8), st.integers(0, 3)), max_size=8))
def test_line_of_a_key_is_right_after_any_text(values):
    """Whatever stands in the strings before it, a key is found on its line."""
    text = ""
    expected = {}
    for index, (value, blank_lines) in enumerate(values):
        quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        text += "\n" * blank_lines
        expected[f"k{index}",] = text.count("\n") + 1
        text += f"k{index} = {quoted} # {value!r}\n"

    assert lines_of(text) == expected


def shown(text, folder):
    """Load a file with convsdk's own channels: its configuration, or the lines of its error without the folder."""
    file = folder / "convsdk.toml"
    file.write_text(text, encoding="utf-8")
    try:
        return load_config(file, load_plugins(), environ={})
    except ConfigError as error:
        return str(error).replace(f"{folder}/", "")


def test_widget_names_a_channel_that_identifies(tmp_path):
    """A widget whose channel for identification is in no workspace, or in another, is told where it says so."""
    there = '[channels.chat]\ntype = "chat"\n[channels.chat.widget]\nidentify = "login"\n'
    login = '[channels.login]\ntype = "js_identify"\n'

    told = shown(there, tmp_path)
    apart = shown(there + login + 'workspace = "b"\n[workspaces.default]\n[workspaces.b]\n', tmp_path)
    talking = shown(there + '[channels.login]\ntype = "chat"\n', tmp_path)
    together = shown(there + login, tmp_path)

    expected = (
        "convsdk.toml:4: channel 'chat': widget: identify is 'login', which is no channel of its workspace: "
        "name one of type js_identify"
    )
    assert [told, apart] == [expected, expected]
    assert talking == expected.replace("is no channel of its workspace", "takes messages")
    assert together.channels["chat"].widget.identify == "login"


def test_widget_is_read_with_its_mistakes(tmp_path):
    """How the widget looks and where it may be shown stands in the file, and a slip is told with its line."""
    text = '[channels.chat]\ntype = "chat"\n[channels.chat.widget]\norigins = ["https://shop.example"]\n'

    told = shown(text + 'color = "blue"\n', tmp_path)
    config = shown(text, tmp_path)

    assert told == (
        "convsdk.toml:5: channel 'chat': widget: color: 'blue' is no colour in hexadecimal digits: "
        "write one such as '#0b57d0'"
    )
    assert config.channels["chat"].widget.origins == ("https://shop.example",)


POST = '[channels.post]\ntype = "post"\n[channels.post.sending]\n'


def test_table_is_read_by_the_class_that_it_names(load):
    """Of several shapes that a setting can have, `by` says which it is; without the setting there is none."""
    found = [
        load(POST + text, environ={"DRUM": "boom"}).channels["post"].config.sending
        for text in ('by = "pigeon"\nloft = "roof"\nbirds = 2\n', 'by = "drum"\nkey = { env = "DRUM" }\n')
    ]

    assert found == [PigeonWay(loft="roof", birds=2), DrumWay(key=Secret("boom"))]
    assert load('[channels.post]\ntype = "post"\n').channels["post"].config.sending is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('loft = "roof"\n', "3: channel 'post': sending says not by what: set by to one of: drum, pigeon"),
        ('by = "pidgeon"\n', "4: channel 'post': sending has a wrong value for by, 'pidgeon': did you mean 'pigeon'?"),
        ("by = 7\n", "4: channel 'post': sending has a wrong value for by, 7: set by to one of: drum, pigeon"),
        ('by = "pigeon"\n', "3: channel 'post': sending: loft is missing: add loft = ..."),
        (
            'by = "pigeon"\nloft = "roof"\nkey = "x"\n',
            "6: channel 'post': sending has no key 'key': remove it, or take one of by, loft, birds",
        ),
    ],
)
def test_mistake_in_a_table_of_several_shapes_is_told(problems, text, told):
    """Each mistake in such a table gets its line and a remedy."""
    assert problems(POST + text) == [f"convsdk.toml:{told}"]


def test_setting_of_several_shapes_is_a_table(load):
    """A plain value in its place is told."""
    with pytest.raises(ConfigError, match="sending is a text: write it as a table"):
        load('[channels.post]\ntype = "post"\nsending = "pigeon"\n')
