import textwrap
from datetime import UTC, datetime
from importlib import metadata

import pytest
from structlog.testing import capture_logs

from convsdk.core.blocks import BLOCKS
from convsdk.core.events import Notice
from convsdk.core.model import IdentityHint
from convsdk.errors import TransientError
from convsdk.plugins import load_plugins

AT = datetime(2026, 1, 2, tzinfo=UTC)
CHANNEL = """
from attrs import frozen
from convsdk.core.ports import Channel
from convsdk.hookspecs import hookimpl

@frozen
class Settings:
    pass

class Fake(Channel):
    type = "{type}"
    settings = Settings

    def parse(self, request):
        return []

@hookimpl
def convsdk_channels(ctx):
    return [Fake]
"""
HOOK = "from convsdk.hookspecs import hookimpl\n"
BLOCKS_UNTIL_TOLD = """
from pathlib import Path
def block():
    while not Path(__file__).with_name("enough").exists():
        pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution on the path: a module, and the entry point that announces it."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, source, *, entry=None, value=None):
        module = f"{tmp_path.name}_{name}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        announced = f"[convsdk.plugins]\n{entry or name} = {module}{value or ''}\n"
        (info / "entry_points.txt").write_text(announced, encoding="utf-8")

    return install


@pytest.fixture
def load(tmp_path):
    """Load what was installed, and nothing else."""
    return lambda **options: load_plugins(distributions=metadata.distributions(path=[str(tmp_path)]), **options)


def hint(**fields):
    """Build a hint of one moment."""
    return IdentityHint(at=AT, **fields)


def test_working_plugin_is_loaded(install, load):
    """A loaded plugin tells its distribution, its hooks and its load time, and its channel is offered."""
    install("convsdk-fake", CHANNEL.format(type="fake"), entry="fake")

    plugins = load()

    (loaded,) = plugins.loaded
    assert (loaded.name, loaded.distribution, loaded.version) == ("fake", "convsdk-fake", "1.0")
    assert loaded.hooks == ("convsdk_channels",)
    assert loaded.brings == ("channel type fake",)
    assert loaded.load_time_ms > 0
    assert plugins.channel_types["fake"].__name__ == "Fake"
    assert plugins.broken == ()


def test_installed_distributions_are_searched_by_default(install):
    """Without a choice of distributions, all that are installed are searched."""
    install("convsdk-fake", CHANNEL.format(type="fake"), entry="fake")

    plugins = load_plugins()

    assert "fake" in {plugin.name for plugin in plugins.loaded}


def test_kinds_stores_and_commands_are_offered(install, load):
    """Identifier kinds, store factories and commands come from plugins as well."""
    source = """
        import click
        from convsdk.core.identifiers import Opaque
        from convsdk.hookspecs import hookimpl

        @hookimpl
        def convsdk_identifier_kinds(ctx):
            return [Opaque("badge")]

        @hookimpl
        def convsdk_stores():
            return {"mysql": open}

        @hookimpl
        def convsdk_commands(ctx):
            return [click.Command("hello")]
    """
    install("rich", source)

    plugins = load()

    assert [kind.name for kind in plugins.kinds] == ["badge"]
    assert plugins.store_factories == {"mysql": open}
    assert [command.name for command in plugins.commands] == ["hello"]
    assert plugins.loaded[0].brings == ("command hello", "kind of identifier badge", "store scheme mysql")


def test_channel_brings_its_own_kinds(install, load):
    """The kinds of a channel come with it, without a hook of their own; one of two channels is one kind."""
    kinds = """
from convsdk.core.identifiers import Opaque

class Reader(Fake):
    type, kinds = "reader", (Opaque("card"), Opaque("badge"))

class Gate(Fake):
    type, kinds = "gate", Reader.kinds[:1]

@hookimpl
def convsdk_channels(ctx):
    return [Reader, Gate]
"""
    install("gate", CHANNEL.format(type="fake") + kinds)

    plugins = load()

    assert plugins.broken == ()
    assert [kind.name for kind in plugins.kinds] == ["card", "badge"]


BLOCK = """
from typing import ClassVar
from attrs import frozen
from convsdk.core.flow import Block
from convsdk.hookspecs import hookimpl

{marker}
class Voucher(Block):
    type: ClassVar[str] = "{type}"
    {body}

    def enter(self, visit):
        return ()

@hookimpl
def convsdk_bot_blocks(ctx):
    return [Voucher]
"""


def block_source(*, marker="@frozen(kw_only=True)", type="voucher", body="code: str"):  # noqa: A002
    """Give a plugin with one block."""
    return BLOCK.format(marker=marker, type=type, body=body)


def test_block_of_a_plugin_is_offered_beside_the_built_in_ones(install, load):
    """A bot automation can use the blocks that plugins bring."""
    install("convsdk-voucher", block_source())

    plugins = load()

    assert plugins.loaded[0].brings == ("block type voucher",)
    assert set(plugins.block_types) == {*BLOCKS, "voucher"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (block_source().replace("return [Voucher]", "return [Voucher(id='a', code='b')]"), "no subclass of Block"),
        (block_source().replace("def enter", "def leave"), "still abstract"),
        (block_source(type=""), "has no type"),
        (block_source(type="say"), "block type 'say' is built in"),
        (block_source(marker=""), "is no attrs class"),
        (block_source(body="waits_for = 'a sign'"), "waits for something unknown"),
        (block_source(body="code: 'Unknown'"), "annotations cannot be read"),
        (
            block_source().replace("return [Voucher]", "return [Voucher, type('Other', (Voucher,), {})]"),
            "is no attrs class",
        ),
    ],
)
def test_unusable_block_breaks_its_plugin(install, load, source, reason):
    """A block that could fail in the middle of a conversation is refused when its plugin is loaded."""
    install("convsdk-voucher", source)

    plugins = load()

    assert reason in plugins.broken[0].reason
    assert plugins.block_types == BLOCKS


def test_second_plugin_with_a_block_type_is_broken(install, load):
    """Of two plugins that bring a block of one type, the first by name keeps it."""
    install("convsdk-a", block_source())
    install("convsdk-b", block_source())

    (broken,) = load().broken

    assert broken.reason == "plugin 'convsdk-a' brings the block type 'voucher' already"


def test_failed_registration_leaves_nothing_registered(install, load):
    """A plugin whose second hook is refused is unregistered, so that its first one is never called."""
    source = """
        from convsdk.hookspecs import hookimpl
        calls = []

        @hookimpl
        def convsdk_event(ctx, notice):
            raise SystemExit("called although broken")

        @hookimpl
        def convsdk_hint(ctx, hint, mood):
            return hint
    """
    install("half", source)

    plugins = load()
    with capture_logs() as logs:
        plugins.observe(Notice(type="contact.created", at=AT, payload={}))

    assert "mood" in plugins.broken[0].reason
    assert logs == []


def test_misspelt_hook_is_broken_and_the_right_name_is_told(install, load):
    """The loader is not silent about a hook that does not exist: it names it and the nearest right one."""
    install("misspelt", HOOK + "@hookimpl\ndef convsdk_chanels(ctx):\n    return []\n")
    install("right", CHANNEL.format(type="right"))

    plugins = load()

    (broken,) = plugins.broken
    assert broken.reason == "there is no hook convsdk_chanels"
    assert broken.fix == "call it convsdk_channels"
    assert [plugin.name for plugin in plugins.loaded] == ["right"]


def test_forgotten_marker_is_broken(install, load):
    """A function that is named as a hook but has no marker would never be called."""
    install("unmarked", HOOK + "@hookimpl\ndef convsdk_stores():\n    return {}\ndef convsdk_event(ctx, notice): ...\n")

    plugins = load()

    assert "convsdk_event is not marked" in plugins.broken[0].reason
    assert "@hookimpl" in plugins.broken[0].fix


@pytest.mark.parametrize("arguments", ["ctx, notice=None", "ctx, *, notice"])
def test_argument_that_never_receives_its_value_is_broken(install, load, arguments):
    """A hook argument with a default, or keyword-only, is one that pluggy never passes."""
    install("deaf", HOOK + f"@hookimpl\ndef convsdk_event({arguments}): ...\n")

    plugins = load()

    assert "convsdk_event" in plugins.broken[0].reason
    assert "'notice'" in plugins.broken[0].reason


def test_raising_observer_keeps_nobody_else_from_the_notice(install, load):
    """Observers are called one by one; what one raises is logged with plugin and hook."""
    install("a-raises", HOOK + "@hookimpl\ndef convsdk_event(ctx, notice):\n    raise OSError('no disk')\n")
    install("b-sees", HOOK + "@hookimpl\ndef convsdk_event(ctx, notice):\n    notice.payload['seen'] = ctx.contract\n")
    notice = Notice(type="contact.created", at=AT, payload={})

    plugins = load()
    with capture_logs() as logs:
        plugins.observe(notice)

    assert notice.payload == {"seen": 1}
    assert [(log["plugin"], log["hook"], log["error"]) for log in logs] == [
        ("a-raises", "convsdk_event", "OSError: no disk")
    ]


def test_listener_that_wants_to_be_told_again_says_so(install, load):
    """A TransientError of a plugin gets out to whoever told it; any other error is logged, and the plugin's own."""
    later = "    from convsdk.errors import TransientError\n    raise TransientError('busy', retry_after_s=3)\n"
    install("a-later", HOOK + "@hookimpl\ndef convsdk_event(ctx, notice):\n" + later)
    install("b-raises", HOOK + "@hookimpl\ndef convsdk_event(ctx, notice):\n    raise OSError('no disk')\n")
    install("c-automates", HOOK + "@hookimpl\ndef convsdk_automations(ctx, notice):\n    pass\n")
    notice = Notice(type="contact.created", at=AT, payload={})

    listeners = load().listeners("convsdk_event")
    with capture_logs() as logs:
        listeners["b-raises"](notice)
    with pytest.raises(TransientError) as raised:
        listeners["a-later"](notice)

    assert list(listeners) == ["a-later", "b-raises"]
    assert raised.value.retry_after_s == 3
    assert [log["plugin"] for log in logs] == ["b-raises"]


def test_contact_of_an_inbound_mail_enters_no_automation(install, load):
    """An automation sees a contact that a form made, and never one that an inbound e-mail made."""
    install("greets", HOOK + "@hookimpl\ndef convsdk_automations(ctx, notice):\n    notice.payload['seen'] = True\n")
    notices = [
        Notice(type="contact.created", at=AT, payload={"contact": 1, "how": how})
        for how in ("chat form", "inbound e-mail")
    ]

    plugins = load()
    for notice in notices:
        plugins.automate(notice)

    assert ["seen" in notice.payload for notice in notices] == [True, False]


def test_second_plugin_of_one_name_is_broken(install, load):
    """A second distribution with the same entry-point name, which pluggy skips, is reported with both names."""
    install("dist-a", CHANNEL.format(type="one"), entry="same")
    install("dist-b", CHANNEL.format(type="two"), entry="same")

    plugins = load()

    (broken,) = plugins.broken
    assert list(plugins.channel_types) == ["one"]
    assert broken.distribution == "dist-b"
    assert "dist-a" in broken.reason


def test_second_plugin_with_a_channel_type_is_broken(install, load):
    """Of two plugins that bring one channel type, the first stays."""
    install("dist-a", CHANNEL.format(type="same"))
    install("dist-b", CHANNEL.format(type="same"))

    plugins = load()

    (broken,) = plugins.broken
    assert (broken.name, "'dist-a'" in broken.reason) == ("dist-b", True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "implements no hook"),
        ("def __dir__():\n    return ['convsdk_absent']", "cannot be looked into"),
        (HOOK + "@hookimpl\ndef convsdk_channels(ctx):\n    return [3]", "no subclass of Channel"),
        (HOOK + "@hookimpl\ndef convsdk_channels(ctx):\n    return [str]", "no subclass of Channel"),
        (HOOK + "@hookimpl\ndef convsdk_channels(ctx):\n    return None", "fails in convsdk_channels"),
        (HOOK + "@hookimpl\ndef convsdk_channels(ctx):\n    return 1 / 0", "ZeroDivisionError"),
        (HOOK + "@hookimpl\nasync def convsdk_event(ctx, notice): ...", "not a plain function"),
        (HOOK + "@hookimpl\ndef convsdk_hint(ctx, hint):\n    yield hint", "not a plain function"),
        (HOOK + "@hookimpl(wrapper=True)\ndef convsdk_hint(ctx, hint):\n    return (yield)", "wrapper"),
        (HOOK + "@hookimpl\ndef convsdk_stores(ctx):\n    return {'mysql': 3}", "factories"),
        (HOOK + "@hookimpl\ndef convsdk_identifier_kinds(ctx):\n    return ['x']", "no IdentifierKind"),
        (
            HOOK + "from convsdk.core.identifiers import Opaque\n"
            "@hookimpl\ndef convsdk_identifier_kinds(ctx):\n    return [Opaque('email')]",
            "built in",
        ),
        (HOOK + "@hookimpl\ndef convsdk_commands(ctx):\n    return ['x']", "no click command"),
        (
            CHANNEL.format(type="x").replace("[Fake]", "[Fake, type('Fake', (Fake,), {})]"),
            "brings the channel type 'x' twice",
        ),
        (CHANNEL.format(type=""), "has no type"),
        (CHANNEL.format(type="x").replace("settings = Settings", "settings = dict"), "has no settings"),
        (CHANNEL.format(type="x").replace("settings = Settings", "can = None; settings = Settings"), "what it can do"),
        (CHANNEL.format(type="x").replace("settings = Settings", "kinds = 3; settings = Settings"), "as its kinds"),
        (CHANNEL.format(type="x").replace("settings = Settings", "kinds = 3,; settings = Settings"), "as its kinds"),
        (CHANNEL.format(type="x").replace("def parse", "def pass_"), "still abstract"),
        (CHANNEL.format(type="x").replace("    pass", "    a: 'Missing'"), "cannot be read"),
    ],
)
def test_unusable_plugin_is_broken_with_reason_and_fix(install, load, source, reason):
    """Whatever a plugin does wrong, loading ends, and the report says what it was and what to do."""
    install("bad", source)
    install("good", CHANNEL.format(type="good"))

    plugins = load()

    (broken,) = plugins.broken
    assert reason in broken.reason
    assert broken.fix
    assert list(plugins.channel_types) == ["good"]


def test_entry_point_that_names_a_class_is_broken(install, load):
    """The methods of a class have no instance to be called on."""
    install("class", "class Plugin: ...", value=":Plugin")

    plugins = load()

    assert "names a class" in plugins.broken[0].reason


def test_unreadable_entry_points_are_broken(install, load, tmp_path):
    """A damaged entry_points.txt in one distribution does not stop the others."""
    install("good", CHANNEL.format(type="good"))
    info = tmp_path / "bad-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[convsdk.plugins]\nno equals sign\n", encoding="utf-8")

    plugins = load()

    assert list(plugins.channel_types) == ["good"]
    assert [plugin.reason for plugin in plugins.broken] == ["its entry_points.txt cannot be read"]


def test_hint_hook_that_never_comes_back_is_asked_no_more(install, load, monkeypatch, tmp_path):
    """It keeps one hint waiting, and what the others change is kept."""
    monkeypatch.setattr("convsdk.plugins._HINT_S", 0.2)
    change = "import attrs\n@hookimpl\ndef convsdk_hint(hint):\n    return attrs.evolve(hint, how=hint.how + 'b')\n"
    install("convsdk-a", f"{HOOK}{BLOCKS_UNTIL_TOLD}@hookimpl\ndef convsdk_hint(hint):\n    block()\n")
    install("convsdk-b", HOOK + change)
    plugins = load()

    with capture_logs() as logs:
        changed = [plugins.hints(hint(how=how)).how for how in "xyz"]
    (tmp_path / "enough").touch()

    assert changed == ["xb", "yb", "zb"]
    (told,) = logs
    assert (told["plugin"], told["error"]) == ("convsdk-a", "StuckError: nothing came back within 0.2 s")
    assert "convsdk_a.py:" in told["at"]


def test_hints_are_changed_one_after_the_other(install, load):
    """Each implementation sees what the one before made; None leaves it, and one that raises is skipped."""
    change = (
        HOOK + "import attrs\n@hookimpl\ndef convsdk_hint(hint):\n    return attrs.evolve(hint, how=hint.how + '{}')\n"
    )
    install("a", change.format("a"))
    install("b", HOOK + "@hookimpl\ndef convsdk_hint(hint):\n    raise ValueError\n")
    install("c", HOOK + "@hookimpl\ndef convsdk_hint(hint):\n    return 'nonsense'\n")
    install("d", HOOK + "@hookimpl\ndef convsdk_hint(hint): ...\n")
    install("e", change.format("e"))

    plugins = load()
    with capture_logs() as logs:
        changed = plugins.hints(hint(how="x"))

    assert changed == hint(how="xae")
    assert [log["plugin"] for log in logs] == ["b", "c"]


def test_two_loads_share_nothing(install, load):
    """Plugins can be loaded as often as one likes: there is no state outside the object."""
    install("fake", CHANNEL.format(type="fake"))

    first, second = load(), load()

    assert list(first.channel_types) == list(second.channel_types) == ["fake"]
    assert first.channel_types is not second.channel_types


def channel_of(contract):
    """Give a plugin with a channel for that contract; None names none."""
    line = "" if contract is None else f"    contract = {contract!r}\n"
    return CHANNEL.format(type="old").replace("class Fake(Channel):\n", f"class Fake(Channel):\n{line}")


@pytest.mark.parametrize(("host", "contract"), [(1, 1), (1, None), (2, None), (2, 1), (2, 2), (7, 6), (7, 7)])
def test_adapter_for_this_contract_or_the_one_before_is_loaded(install, load, host, contract):
    """An adapter that was written for the host's contract or the one before is used; one that names none is for 1."""
    install("convsdk-old", channel_of(contract))

    plugins = load(contract=host)

    assert list(plugins.channel_types) == ["old"]
    assert plugins.distributions == {"old": "convsdk-old"}


@pytest.mark.parametrize(
    ("host", "contract", "told"),
    [
        (3, 1, "is for contract 1, and this convsdk takes 2 and 3: update convsdk-old; its author finds"),
        (3, None, "is for contract 1, and this convsdk takes 2 and 3: update convsdk-old; its author finds"),
        (3, 4, "is for contract 4, and this convsdk knows up to 3: update convsdk, or install an older release of"),
        (1, 0, "has the contract 0: set it to the number that it was written for: contract = 1"),
        (1, "one", "has the contract 'one': set it to the number that it was written for: contract = 1"),
    ],
)
def test_adapter_for_another_contract_is_broken(install, load, host, contract, told):
    """An adapter for a contract that the host does not know any more, or not yet, is left out, with what to update."""
    install("convsdk-old", channel_of(contract))

    plugins = load(contract=host)

    (broken,) = plugins.broken
    assert told in f"{broken.reason}: {broken.fix}"
    assert plugins.channel_types == {}


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (f"{BLOCKS_UNTIL_TOLD}\nblock()\n", "it cannot be imported"),
        (
            BLOCKS_UNTIL_TOLD + CHANNEL.format(type="slow").replace("return [Fake]", "block()"),
            "it fails in convsdk_channels",
        ),
    ],
    ids=["import", "registration"],
)
def test_plugin_that_never_comes_back_is_broken(install, load, tmp_path, source, what):
    """It is left out, with where it is and what to do; the next one is loaded."""
    install("convsdk-a", source)
    install("convsdk-b", CHANNEL.format(type="right"))

    plugins = load(patience_s=0.3)
    (tmp_path / "enough").touch()

    (broken,) = plugins.broken
    assert broken.reason.startswith(f"{what}: StuckError: nothing came back within 0.3 s at ")
    assert "convsdk_a.py:" in broken.reason
    assert broken.fix.endswith("update convsdk-a, or uninstall it")
    assert list(plugins.channel_types) == ["right"]
