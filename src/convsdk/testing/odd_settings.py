"""Settings of the wrong type, and which fields of a channel's settings take them."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from convsdk.config import load_config
from convsdk.core.ports import Channel, Secret
from convsdk.errors import ConfigError
from convsdk.plugins import Plugins

_PLAIN = "plain-text-in-the-place-of-a-secret"
# A field may well hold the one or the other, but no field with a type holds both.
_WRONG = ("07:32:00", "[[07:32:00]]")


def unnamed_fields(channel: type[Channel]) -> list[str]:
    """Give the fields of the settings of which a configuration file that fills them with anything is told nothing."""
    names = [one.alias or one.name for one in attrs.fields(channel.settings) if one.init]
    # A setting of this name is the file's own, and never reaches the channel.
    left = [name for name in names if name not in {"type", "workspace"}]
    for wrong in _WRONG:
        told = _told(channel, dict.fromkeys(left, wrong))
        left = [name for name in left if not any(_is_about(name, line) for line in told)]
    return left


def open_secrets(config: Any) -> Iterator[str]:  # noqa: ANN401  (an instance of any settings class)
    """Give the fields with secrets that keep a plain text as well, or refuse it without their name."""
    for one in attrs.fields(type(config)):
        held = getattr(config, one.name)
        is_many = isinstance(held, tuple) and any(type(each) is Secret for each in held)
        if (type(held) is Secret or is_many) and _is_open(config, one, (_PLAIN,) if is_many else _PLAIN):
            yield one.alias or one.name


def _told(channel: type[Channel], values: dict[str, str]) -> list[str]:
    lines = ["[channels.kit]", 'type = "kit"', *(f'"{name}" = {value}' for name, value in values.items())]
    with TemporaryDirectory() as folder:
        file = Path(folder, "convsdk.toml")
        file.write_text("\n".join(lines), encoding="utf-8")
        try:
            load_config(file, Plugins(channel_types={"kit": channel}), environ={})
        except ConfigError as error:
            return str(error).splitlines()
    return []


def _is_about(name: str, line: str) -> bool:
    _, found, what = line.partition(f"channel 'kit': {name}")
    return bool(found) and what[:1] in {" ", ":", "["}


def _is_open(config: Any, one: "attrs.Attribute[Any]", plain: object) -> bool:  # noqa: ANN401  (as above)
    name = one.alias or one.name
    try:
        made = attrs.evolve(config, **{name: plain})
    except Exception as error:  # noqa: BLE001  (code that counts on a Secret raises anything)
        return name not in str(error)
    kept = getattr(made, one.name)  # a converter may have made a secret of it
    return any(isinstance(each, str) for each in (kept if isinstance(kept, tuple) else (kept,)))
