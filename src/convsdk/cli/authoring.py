"""The command for who writes a channel: `new-channel`."""

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from keyword import iskeyword
from pathlib import Path, PurePosixPath

import click

from convsdk.cli.session import Session, common_options
from convsdk.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 40


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
    session.screen.facts({"written": str(folder), "next": "pip install -e '.[test]' there, and pytest"})


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
