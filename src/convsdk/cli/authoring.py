"""The commands for who writes a channel: `new-channel` and `check-channel`."""

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from keyword import iskeyword
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from convsdk.cli.session import Session, common_options
from convsdk.core.ports import CONTRACT, Channel
from convsdk.errors import ConfigError
from convsdk.plugins import Plugins

if TYPE_CHECKING:
    from convsdk.testing.scorecard import Ruling, Scorecard

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 40
_LEVELS = {"bronze": "receives", "silver": "answers", "gold": "keeps every law of what it declares"}
_STYLES = {"failed": "red", "warning": "yellow", "passed": "green"}


@click.command
@common_options
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="The folder to write it into.",
    show_default="this one",
)
def new_channel(session: Session, name: str, into: Path) -> None:
    """Write the distribution of a channel: adapter, golden payloads, tests.

    NAME is the channel type, such as 'line' or 'rocket_chat'. The folder convsdk-NAME comes to be, whose tests pass at
    once; then make it that of your platform.
    """
    _require_name(name)
    folder = into / f"convsdk-{name.replace('_', '-')}"
    if folder.exists():
        raise ConfigError(f"{folder} is there already: choose another name, or another folder with --into")
    for path, text in written(name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8", newline="\n")
    session.screen.facts(
        {
            "written": str(folder),
            "next": "pip install -e '.[test]' there, and pytest",
            "then": f"convsdk check-channel {name}",
        }
    )


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or iskeyword(name):
        raise ConfigError(
            f"{name!r} is no name of a channel type: take up to {_LONGEST_NAME} small letters, digits and underscores "
            "between them, such as 'rocket_chat'"
        )


def written(name: str) -> dict[PurePosixPath, str]:
    """Give the text of each file of the distribution for the channel type `name`, by its path."""
    words = name.split("_")
    values = {
        "name": name,
        "NAME": name.upper(),
        "Name": " ".join(word.capitalize() for word in words),
        "Class": "".join(word.capitalize() for word in words),
        "Header": "-".join(word.capitalize() for word in words),
        "host": "-".join(words),
        "contract": str(CONTRACT),
        "distribution": f"convsdk-{'-'.join(words)}",
    }

    def fill(text: str) -> str:
        return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)

    skeleton = resources.files("convsdk") / "skeleton"
    return {
        PurePosixPath(fill(path.removesuffix(".txt"))): fill(file.read_text(encoding="utf-8"))
        for path, file in _files(skeleton)
    }


def _files(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            yield from _files(one, f"{path}{one.name}/")
        else:
            yield f"{path}{one.name}", one


@click.command
@common_options
@click.argument("name")
@click.option(
    "--require",
    type=click.Choice(list(_LEVELS)),
    default="bronze",
    show_default=True,
    help="The level that each of its channel types has to reach.",
)
def check_channel(session: Session, name: str, require: str) -> None:
    """Run the conformance kit on an installed channel, and print its scorecard.

    NAME is a distribution, such as 'convsdk-line', or a channel type, such as 'line'. The levels: bronze receives,
    silver answers, gold keeps every law of what it declares. A law about something that the channel does not declare
    is not applicable, and counts for none of them. Exits with 1 where a level is not reached.
    """
    try:
        from convsdk.testing import scorecard  # noqa: PLC0415  (the extra may be missing)
        from convsdk.testing.laws import Level  # noqa: PLC0415  (as above)
    except ImportError as error:
        raise ConfigError(
            f"'convsdk check-channel' needs the extra 'testing' ({error}): pip install 'convsdk[testing]'"
        ) from error
    distribution, channels = _asked_for(session.plugins, name)
    is_reached = True
    for channel in channels:
        card = scorecard.examine(scorecard.find_contract(distribution, channel), channel)
        is_reached &= (card.level or 0) >= Level[require.upper()]
        _tell_card(session, distribution, card)
    if not is_reached:
        raise click.exceptions.Exit(1)


def _asked_for(plugins: Plugins, name: str) -> tuple[str, list[type[Channel]]]:
    """Give the distribution, and those of its channel types that `name` stands for."""
    found = plugins.distributions.get(name)
    if found is not None:
        return found, [plugins.channel_types[name]]
    for broken in plugins.broken:
        if _key(broken.distribution) == _key(name):
            raise ConfigError(f"plugin {broken.name!r} of {name} is left out: {broken.reason}: {broken.fix}")
    own = {kind: owner for kind, owner in plugins.distributions.items() if _key(owner) == _key(name)}
    if not own:
        known = sorted({*plugins.distributions, *plugins.distributions.values()})
        raise ConfigError(
            f"{name!r} is no installed distribution with channels, and no channel type: install it ('pip install .' in "
            f"its folder), or take one of {', '.join(known)}"
        )
    return next(iter(own.values())), [plugins.channel_types[kind] for kind in own]


def _key(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _tell_card(session: Session, distribution: str, card: "Scorecard") -> None:
    screen = session.screen
    level = card.level.name.lower() if card.level else "none"
    if screen.is_json:
        laws = [_record(one) for one in card.rulings]
        screen.json({"channel": card.channel, "distribution": distribution, "level": level, "laws": laws})
        return
    screen.say(f"{card.channel} ({distribution}): {level}", style="bold")
    for each, meaning in _LEVELS.items():
        screen.say(f"  {each}: {meaning}")
        for one in card.rulings:
            if one.law.level.name.lower() == each:
                _tell_ruling(session, one)


def _tell_ruling(session: Session, ruling: "Ruling") -> None:
    state = ruling.state.value
    session.screen.say(f"    {state:<14}  {ruling.law.name}", style=_STYLES.get(state, ""))
    if not ruling.what:
        return
    for line in ruling.what.splitlines():
        session.screen.say(f"{'':20}{line}")
    session.screen.say(f"{'':20}why it matters: {ruling.why}")
    session.screen.say(f"{'':20}how to mend it: {ruling.remedy}")
    if state == "warning":
        session.screen.say(f"{'':20}this fails from convsdk {ruling.law.since} on")


def _record(ruling: "Ruling") -> dict[str, Any]:
    record = {"law": ruling.law.name, "level": ruling.law.level.name.lower(), "state": ruling.state.value}
    if not ruling.what:
        return record
    told = {"what": ruling.what, "why": ruling.why, "remedy": ruling.remedy}
    return record | told | ({"since": ruling.law.since} if ruling.law.since else {})
