"""What `convsdk check-channel` makes of a channel: each law, the level, and the exit code."""

import json
import sys
from importlib import metadata

import pytest
from attrs import evolve, field, make_class
from click.testing import CliRunner

from convsdk.channels.js_identify.contract import JsIdentifyContract
from convsdk.cli import main
from convsdk.core.ports import Capabilities
from convsdk.errors import ConfigError
from convsdk.plugins import load_plugins
from convsdk.testing.channel_contract import ChannelContract
from convsdk.testing.laws import Law, LawBroken, LawWarning, Level, fail, law, laws_of
from convsdk.testing.scorecard import Ruling, Scorecard, State, examine, find_contract

pytestmark = pytest.mark.once  # as test_channel_contract.py

PLUGINS = load_plugins()
BUILT_IN = {name: PLUGINS.channel_types[name] for name, owner in PLUGINS.distributions.items() if owner == "convsdk"}
SITE = BUILT_IN["js_identify"]
RELEASE = ".".join(metadata.version("convsdk").split(".")[:2])
NEXT = f"{RELEASE.split('.')[0]}.{int(RELEASE.split('.')[1]) + 1}"


def run(*arguments):
    """Run the command."""
    return CliRunner().invoke(main, ["check-channel", *arguments])


def examined(contract, channel=SITE):
    """Give the rulings about a channel by the name of the law."""
    return {one.law.name: one for one in examine(contract, channel).rulings}


# -- the laws


def test_every_law_has_a_level():
    """No test of the kit is left out of the scorecard, and each level has laws."""
    methods = {name for name in dir(ChannelContract) if name.startswith("test_")}

    laws = list(laws_of(ChannelContract))

    assert {f"test_{one.name.replace(' ', '_')}" for one in laws} == methods
    assert {one.level for one in laws} == set(Level)


class Laws:
    """A contract with a law of each kind, all of them broken."""

    @law(Level.BRONZE)
    def test_old(self):
        """It has always bound."""
        fail("it is wrong", "it matters", "mend it")

    @law(Level.BRONZE, since=RELEASE)
    def test_due(self):
        """It binds from this release on."""
        fail("it is wrong", "it matters", "mend it")

    @law(Level.BRONZE, since=NEXT)
    def test_new(self):
        """It binds from the next minor release on."""
        fail("it is wrong", "it matters", "mend it")

    @law(Level.BRONZE, since=NEXT)
    def test_new_and_stumbled_over(self):
        """It runs the channel in a way that none did."""
        raise KeyError("s3cret")

    @law(Level.BRONZE, since=RELEASE)
    def test_due_and_stumbled_over(self):
        """It does as well, and binds."""
        raise KeyError("s3cret")

    @law(Level.BRONZE, concerns=lambda _: False)
    def test_foreign(self):
        """It is about something that is not declared."""
        fail("it is wrong", "it matters", "mend it")


@pytest.mark.parametrize("name", ["test_old", "test_due"])
def test_broken_law_says_what_and_why_and_how(name):
    """A law that binds fails with what is wrong, why it matters and how to mend it."""
    with pytest.raises(LawBroken) as caught:
        getattr(Laws(), name)()

    assert str(caught.value) == "it is wrong\n  why it matters: it matters\n  how to mend it: mend it"


@pytest.mark.filterwarnings("error")
def test_new_law_warns_until_its_release():
    """A law of a release to come warns, and does not fail where warnings are errors."""
    with pytest.warns(LawWarning, match=rf"new: this fails from convsdk {NEXT} on: it is wrong\n"):
        Laws().test_new()


@pytest.mark.filterwarnings("error")
def test_new_law_warns_of_a_channel_that_raises():
    """What a channel raises under a law of a release to come fails nobody before."""
    with pytest.warns(LawWarning, match=rf"from convsdk {NEXT} on: the channel raises KeyError$"):
        Laws().test_new_and_stumbled_over()
    with pytest.raises(KeyError):
        Laws().test_due_and_stumbled_over()


def test_new_law_fails_nobody_whose_warnings_are_errors(pytester_like):
    """In a project that makes errors of warnings, as `new-channel` writes them, the tests still pass."""
    result = pytester_like(
        f"""
        from convsdk.testing.laws import Level, fail, law

        class TestNew:
            @law(Level.BRONZE, since="{NEXT}")
            def test_new(self):
                fail("it is wrong", "it matters", "mend it")
        """
    )

    assert "1 passed, 1 warning" in result
    assert f"this fails from convsdk {NEXT} on" in result


@pytest.fixture
def pytester_like(tmp_path):
    """Run pytest on a file, in a process of its own, with warnings as errors; give what it prints."""
    import subprocess  # noqa: PLC0415  (for this alone)
    import textwrap  # noqa: PLC0415  (as above)

    def run(source):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "test_it.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    return run


def test_law_about_something_else_is_kept():
    """What a channel does not declare, it cannot break."""
    Laws().test_foreign()


# -- the level


def ruling(level, state):
    """Give a ruling about some law of that level."""
    some = Law(name="some", text="", level=level, concerns=bool, since="", check=bool)
    return Ruling(law=some, state=state)


@pytest.mark.parametrize(
    ("bronze", "silver", "gold", "level"),
    [
        (State.PASSED, State.PASSED, State.PASSED, Level.GOLD),
        (State.PASSED, State.PASSED, State.FAILED, Level.SILVER),
        (State.PASSED, State.FAILED, State.PASSED, Level.BRONZE),
        (State.FAILED, State.PASSED, State.PASSED, None),
        (State.PASSED, State.NOT_APPLICABLE, State.FAILED, Level.BRONZE),
        (State.PASSED, State.NOT_APPLICABLE, State.PASSED, Level.GOLD),
        (State.PASSED, State.WARNING, State.PASSED, Level.GOLD),
    ],
)
def test_level_is_the_last_one_without_a_broken_law(bronze, silver, gold, level):
    """A level counts where none up to it is broken, and where some law of it concerns the channel."""
    states = zip(Level, (bronze, silver, gold), strict=True)

    assert Scorecard(channel="x", rulings=tuple(ruling(*one) for one in states)).level is level


def test_channel_that_does_not_answer_can_be_gold():
    """A channel that keeps all laws of what it declares is gold; those about sending are not applicable."""
    card = examine(JsIdentifyContract, SITE)

    states = {one.law.level: set() for one in card.rulings}
    for one in card.rulings:
        states[one.law.level].add(one.state)
    assert card.level is Level.GOLD
    assert states[Level.SILVER] == {State.NOT_APPLICABLE}
    assert states[Level.BRONZE] == {State.PASSED}


def test_broken_law_is_ruled_with_its_remedy():
    """A channel that claims what it does not show fails the law about it, with what to do."""

    class Claims(JsIdentifyContract):
        def channel(self):
            channel = super().channel()
            channel.can = evolve(channel.can, reactions=True)
            return channel

    found = examined(Claims)["capabilities are true"]

    assert found.state is State.FAILED
    assert "'reactions'" in found.what
    assert "reactions=False" in found.remedy


def test_law_cannot_be_overridden():
    """Whoever puts another test in the place of a law is not spared the law."""

    class Spared(JsIdentifyContract):
        golden = ()

        def test_golden_requests_give_their_events(self):
            pass

    assert examined(Spared)["golden requests give their events"].state is State.FAILED


@pytest.mark.parametrize("error", [OSError("token-of-the-tests"), SystemExit("token-of-the-tests")])
def test_channel_that_raises_fails_the_law(error):
    """Whatever a channel raises, the other laws run; the ruling names the class and the place, not the text."""

    class Raises(SITE):
        can = Capabilities(messages=False)

        def __repr__(self):
            raise error

    class RaisesContract(JsIdentifyContract):
        def channel(self):
            given = super().channel()
            return Raises(given.name, given.config)

    found = examined(RaisesContract)["secrets are never shown"]

    assert found.state is State.FAILED
    assert type(error).__name__ in found.what
    assert "test_scorecard.py" in found.what
    assert "token-of-the-tests" not in found.what


def test_channel_that_raises_under_a_law_to_come_is_warned():
    """What a channel raises under a law that does not bind yet takes no level from it."""

    class Untyped(SITE):
        settings = make_class("Untyped", {"key": field(type="NameOfNothing")}, frozen=True)

    class UntypedContract(JsIdentifyContract):
        def channel(self):
            given = super().channel()
            return Untyped(given.name, given.config)

    found = examined(UntypedContract)["each setting has its type"]

    assert (found.law.is_binding, found.state) == (False, State.WARNING)
    assert "raises NameError" in found.what


def test_contract_about_another_channel_shows_nothing():
    """A contract counts only for the channel type that it is announced for."""
    found = examined(JsIdentifyContract, BUILT_IN["chat"])

    assert {one.state for one in found.values()} == {State.FAILED}
    assert "not about a ChatChannel" in found["type is a name"].what


@pytest.mark.parametrize("channel", sorted(BUILT_IN))
def test_built_in_channel_keeps_the_laws_to_come(channel):
    """No built-in channel is warned: it keeps today what fails from the next release on."""
    contract = find_contract("convsdk", BUILT_IN[channel])()

    for one in laws_of(ChannelContract):
        if not one.is_binding and one.concerns(contract):
            one.check(contract)


# -- the command


@pytest.mark.parametrize("channel", sorted(BUILT_IN))
def test_built_in_channel_has_a_contract(channel):
    """Each built-in channel is announced with a contract, as everybody's are."""
    assert isinstance(find_contract("convsdk", BUILT_IN[channel])().channel(), BUILT_IN[channel])


def test_scorecard_is_printed():
    """The command prints the level, and each law with its state under its level."""
    answer = run("js_identify", "--require", "gold")

    lines = answer.output.splitlines()
    assert answer.exit_code == 0
    assert lines[0] == "js_identify (convsdk): gold"
    assert "    passed          parse is deterministic" in lines
    assert "    not applicable  answers are sorted" in lines


def test_scorecard_is_a_json_line():
    """With --json there is a line for each channel type, with the level and the laws."""
    answer = run("js_identify", "--json")

    told = json.loads(answer.output)
    assert (told["channel"], told["distribution"], told["level"]) == ("js_identify", "convsdk", "gold")
    assert {"law": "times are aware", "level": "bronze", "state": "passed"} in told["laws"]


def test_unknown_name_is_an_error():
    """A name that nothing installed has is told, with those that there are."""
    answer = run("pigeon")

    assert answer.exit_code == 2
    assert "'pigeon' is no installed distribution with channels" in answer.output
    assert "js_identify" in answer.output


def test_missing_extra_is_told(monkeypatch):
    """Without pytest and Hypothesis, the command says what to install."""
    monkeypatch.setitem(sys.modules, "convsdk.testing", None)

    answer = run("js_identify")

    assert answer.exit_code == 2
    assert "pip install 'convsdk[testing]'" in answer.output


@pytest.fixture
def announce(tmp_path, monkeypatch):
    """Put a distribution on the path that announces a contract."""

    def announce(value, source=""):
        monkeypatch.syspath_prepend(tmp_path)
        module = f"{tmp_path.name}_contract".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / "convsdk_site-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: convsdk-site\nVersion: 1.0\n", encoding="utf-8")
        announced = f"[convsdk.contracts]\njs_identify = {value.format(module)}\n" if value else ""
        (info / "entry_points.txt").write_text(announced, encoding="utf-8")

    return announce


@pytest.mark.parametrize(
    ("value", "source", "told"),
    [
        ("", "", "announces no contract for its channel type 'js_identify'"),
        ("{}:Kit", "import a_thing_that_nobody_installed", "ModuleNotFoundError a_thing_that_nobody_installed"),
        ("{}:Kit", "raise SystemExit('token')", r"cannot be imported: SystemExit at .*\.py:1: token: correct"),
        ("{}:Kit", "class Kit: pass", "is no subclass of convsdk.testing.ChannelContract"),
        ("{}:Kit", "", "cannot be imported: AttributeError at"),
    ],
)
def test_contract_that_cannot_be_used_is_told(announce, value, source, told):
    """A distribution whose contract is missing or broken is told what to mend."""
    announce(value, source)

    with pytest.raises(ConfigError, match=told):
        find_contract("convsdk-site", SITE)


SITE_PLUGIN = """
from convsdk.channels.js_identify import JsIdentifyChannel
from convsdk.channels.js_identify.contract import SECRET, JsIdentifyContract
from convsdk.hookspecs import hookimpl

class Leaky(JsIdentifyChannel):
    type = "leaky"

    def __repr__(self):
        return SECRET

class Kit(JsIdentifyContract):
    def channel(self):
        given = super().channel()
        return Leaky(given.name, given.config)

@hookimpl
def convsdk_channels(ctx):
    return [Leaky]
"""


def test_level_that_is_not_reached_is_the_exit_code(announce):
    """The command exits with 1 where a channel type does not reach the level that is required."""
    announce("{0}:Kit\nleaky = {0}:Kit\n[convsdk.plugins]\nleaky = {0}", SITE_PLUGIN)

    by_type, by_distribution = run("leaky"), run("convsdk_site", "--require", "gold")

    assert by_type.exit_code == 0
    assert by_distribution.exit_code == 1
    assert by_type.output == by_distribution.output
    assert by_type.output.startswith("leaky (convsdk-site): bronze\n")
    told = by_type.output.partition("    failed          secrets are never shown\n")[2].splitlines()
    assert [line.strip().partition(":")[0] for line in told] == [
        "repr of the channel holds a secret",
        "why it matters",
        "how to mend it",
    ]


def test_broken_plugin_is_told_in_the_place_of_a_scorecard(announce):
    """A distribution whose plugin is left out is told why, and what to do."""
    announce("{0}:Kit\n[convsdk.plugins]\nleaky = {0}", "raise OSError('no disk')")

    answer = run("convsdk-site")

    assert answer.exit_code == 2
    assert "plugin 'leaky' of convsdk-site is left out: it cannot be imported: OSError: no disk" in answer.output
