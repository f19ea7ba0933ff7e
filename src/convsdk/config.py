"""Reads `convsdk.toml`: the store, the workspaces, and the channels with their settings and secrets.

Every mistake is collected, and all are told at once, each with its line and a remedy. No message shows a secret.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import attrs
import msgspec
import phonenumbers
from attrs import define, field, frozen
from attrs.validators import deep_iterable, ge, min_len

from convsdk.core.flow import BLOCK_ID, Block, Flow, FlowError, Step, Trigger, Visit
from convsdk.core.forms import Form
from convsdk.core.ports import Channel, Secret
from convsdk.core.signing import are_signing_keys, signing_key
from convsdk.errors import ConfigError, ConvsdkError
from convsdk.plugins import Broken, Plugins
from convsdk.toml_lines import Key, lines_of

DEFAULT_WORKSPACE = "default"
DEFAULT_STORE = "sqlite:///convsdk.db"
DEFAULT_ARCHIVE = "archive"

_NAME = re.compile(r"[a-z0-9-]+")
_SOURCES = ("env", "file")


def _is_country(_: object, __: object, value: str | None) -> None:
    if value is not None and value not in phonenumbers.SUPPORTED_REGIONS:
        message = f'{value!r} is no country: give its two capital letters (ISO 3166), such as "DE"'
        raise ValueError(message)


@frozen(kw_only=True)
class WorkspaceConfig:
    """What the file says of a workspace: `country` reads national phone numbers, `own` are its own addresses."""

    country: str | None = field(default=None, validator=_is_country)
    own: tuple[str, ...] = field(default=(), validator=deep_iterable(min_len(1)))
    blocked: tuple[str, ...] = field(default=(), validator=deep_iterable(min_len(1)))
    external_id_cap: int = field(default=1, validator=ge(1))
    component_cap: int = field(default=50, validator=ge(1))
    visitor_ttl_days: int = field(default=30, validator=ge(1))


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _is_safe(_: object, __: object, value: str) -> None:
    # The text of no error repeats the URL: its path or query can be what keeps others out.
    try:
        parts, port = urlsplit(value), urlsplit(value).port
    except ValueError:
        raise ValueError("this is no web address: write https://host/path") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0 or parts.username is not None:
        raise ValueError("this is no web address without a user: write https://host/path")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("http is for this machine alone, since anybody on the way could read it: write https://")


@frozen(kw_only=True)
class WebhookConfig:
    """What the file says of a webhook: where it is, what it is told, and since when.

    `secrets` sign, each of them, so that they can be rotated. `events` are types of notices, with `*` for any end.
    `start`: whether a new one is told of what comes from "now" on, or from the "beginning".
    """

    url: str = field(repr=False, validator=_is_safe)  # its path or query can be a secret
    secrets: tuple[Secret, ...] = field(validator=are_signing_keys)
    events: tuple[str, ...] = field(default=("*",), validator=[min_len(1), deep_iterable(min_len(1))])
    start: Literal["now", "beginning"] = "now"

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Give what signs, as bytes."""
        return tuple(map(signing_key, self.secrets))


@frozen(kw_only=True)
class Config:
    """What `convsdk.toml` says. `channel_workspaces`, `webhook_workspaces` name the workspace of each.

    `archive` is the place of the archive; empty: there is none.
    """

    store: str = field(default=DEFAULT_STORE, repr=False)  # the URL can hold a password
    archive: str = field(default=DEFAULT_ARCHIVE, repr=False)  # as above
    workspaces: dict[str, WorkspaceConfig] = field(factory=dict)
    channels: dict[str, Channel] = field(factory=dict)
    channel_workspaces: dict[str, str] = field(factory=dict)
    webhooks: dict[str, WebhookConfig] = field(factory=dict)
    webhook_workspaces: dict[str, str] = field(factory=dict)


def load_config(
    path: Path, plugins: Plugins, *, environ: Mapping[str, str], on_secret: Callable[[str], None] = lambda _: None
) -> Config:
    """Read the file at `path`, with secrets from `environ` and from files beside it.

    `on_secret` is told each secret before a channel is: what a channel does with it can be seen by then.

    Raises:
        ConfigError: one line for each mistake, `convsdk.toml:LINE: what is wrong: what to do`.
    """
    document, lines = _parsed(path)
    reader = _Reader(path, {key: (path, line) for key, line in lines.items()}, plugins, environ, on_secret)
    config = reader.read(document)
    if reader.problems:
        told = sorted(reader.problems, key=lambda one: (one[0] != path, one))
        raise ConfigError("\n".join(f"{file}:{line}: {problem}" for file, line, problem in told))
    return config


def _parsed(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    text = _read(path)
    try:
        return tomllib.loads(text), lines_of(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(path, text, str(error))) from None


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): create it or name another file") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: a character is not in UTF-8: save the file as UTF-8") from None


def _syntax_error(path: Path, text: str, message: str) -> str:
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = int(at[1]) if at else len(text.splitlines()) or 1
    what = re.sub(r" \(at [^()]*\)$", "", message)
    where = f"at column {at[2]}" if at else "at the end"
    return f"{path}:{line}: this is no TOML, {where} ({what}): correct the line (https://toml.io)"


@define
class _Reader:
    """Turns the parsed document into a `Config` and collects what is wrong with it."""

    path: Path
    lines: dict[Key, tuple[Path, int]]
    plugins: Plugins
    environ: Mapping[str, str]
    on_secret: Callable[[str], None]
    problems: list[tuple[Path, int, str]] = field(factory=list)
    _revealed: set[str] = field(factory=set)

    def read(self, document: dict[str, Any]) -> Config:
        """Give the configuration; it is of use only where `problems` stays empty."""
        self._require_known(document, ("store", "archive", "workspaces", "channels", "webhooks"), (), "the file")
        store = self._store(document.get("store", DEFAULT_STORE))
        archive = self._archive(document.get("archive", DEFAULT_ARCHIVE))
        workspaces = {
            name: self._structure(WorkspaceConfig, table, ("workspaces", name), f"workspace {name!r}")
            for name, table in self._tables(document, "workspaces")
        } or {DEFAULT_WORKSPACE: WorkspaceConfig()}
        channels: dict[str, Channel] = {}
        homes: dict[str, str] = {}
        for name, table in self._tables(document, "channels"):
            homes[name] = self._home("channel", name, table, workspaces)
            channel = self._channel(name, table, workspaces.get(homes[name]))
            if channel is not None:
                channels[name] = channel
        self._require_readers(channels, homes)
        webhooks: dict[str, WebhookConfig] = {}
        webhook_homes: dict[str, str] = {}
        for name, table in self._tables(document, "webhooks"):
            webhook_homes[name] = self._home("webhook", name, table, workspaces)
            webhooks[name] = self._webhook(name, table)
        return Config(
            store=store,
            archive=archive,
            workspaces={name: workspace for name, workspace in workspaces.items() if workspace is not None},
            channels=channels,
            channel_workspaces=homes,
            webhooks=webhooks,
            webhook_workspaces=webhook_homes,
        )

    def _require_readers(self, channels: Mapping[str, Channel], homes: Mapping[str, str]) -> None:
        """Tell of widgets whose channel for identification is not there."""
        for name, channel in channels.items():
            reader = channel.widget.identify if channel.widget else ""
            is_there = homes.get(reader) == homes[name]
            is_talking = reader in channels and channels[reader].can.messages
            if reader and (is_talking or not is_there):
                what = "takes messages" if is_talking and is_there else "is no channel of its workspace"
                self._add(
                    ("channels", name, "widget", "identify"),
                    f"channel {name!r}: widget: identify is {reader!r}, which {what}: name one of type js_identify",
                )

    def _add(self, key: Key, problem: str) -> None:
        while key and key not in self.lines:
            key = key[:-1]
        self.problems.append((*self.lines.get(key, (self.path, 1)), problem))

    def _require_known(self, table: dict[str, Any], names: Sequence[str], key: Key, owner: str) -> None:
        for name in table:
            if name in names:
                continue
            near = get_close_matches(name, names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "remove it, or take one of " + ", ".join(names)
            self._add((*key, name), f"{owner} has no key {name!r}: {remedy}")

    def _tables(self, document: dict[str, Any], group: str) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = document.get(group, {})
        if not isinstance(tables, dict):
            self._add((group,), f"{group} is {_called(tables)}: write one table [{group}.NAME] for each")
            return
        for name, table in tables.items():
            if isinstance(table, dict):
                yield name, table
            else:
                self._add((group, name), f"{group}.{name} is {_called(table)}: write it as a table [{group}.{name}]")

    def _store(self, given: object) -> str:
        if isinstance(given, dict):
            return self._secret(given, ("store",), "store").reveal()
        if not isinstance(given, str) or not given:
            self._add(("store",), f'store is {_called(given)}: give a URL, such as "{DEFAULT_STORE}"')
            return DEFAULT_STORE
        return given

    def _archive(self, given: object) -> str:
        if isinstance(given, dict):
            return self._secret(given, ("archive",), "archive").reveal()
        if not isinstance(given, str):
            self._add(
                ("archive",),
                f'archive is {_called(given)}: give a folder or a URL, such as "{DEFAULT_ARCHIVE}", or "" for none',
            )
            return DEFAULT_ARCHIVE
        return given

    def _home(self, what: str, name: str, table: dict[str, Any], workspaces: Mapping[str, object]) -> str:
        """Give the workspace of a channel or webhook, once its name is usable."""
        if not _NAME.fullmatch(name):
            self._add(
                (f"{what}s", name), f"{what} {name!r} has an unusable name: take small letters, digits and hyphens"
            )
        home = table.get("workspace", DEFAULT_WORKSPACE)
        key = (f"{what}s", name, "workspace")
        if not isinstance(home, str):
            self._add(key, f"{what} {name!r}: workspace is {_called(home)}: give the name of a workspace")
            return DEFAULT_WORKSPACE
        if home not in workspaces:
            known = ", ".join(sorted(workspaces))
            self._add(
                key, f"{what} {name!r}: there is no workspace {home!r}: add [workspaces.{home}], or take one of {known}"
            )
        return home

    def _webhook(self, name: str, table: dict[str, Any]) -> WebhookConfig:
        given = {key: value for key, value in table.items() if key != "workspace"}
        key, owner = ("webhooks", name), f"webhook {name!r}"
        settings: WebhookConfig = self._structure(WebhookConfig, given, key, owner, reserved=("workspace",))
        return settings

    def _channel(self, name: str, table: dict[str, Any], workspace: WorkspaceConfig | None) -> Channel | None:
        key = ("channels", name)
        channel_type = self._channel_type(name, table)
        if channel_type is None:
            return None
        given = {field_: value for field_, value in table.items() if field_ not in {"type", "workspace"}}
        inherited = {"country": workspace.country} if workspace and workspace.country else {}
        owner = f"channel {name!r}"
        settings = self._structure(
            channel_type.settings, given, key, owner, inherited=inherited, reserved=("type", "workspace")
        )
        if settings is None:
            return None
        try:
            return channel_type(name, settings)
        except (ValueError, TypeError, ConvsdkError) as error:
            self._add(key, f"{owner}: {self._masked(error)}")
            return None

    def _channel_type(self, name: str, table: dict[str, Any]) -> type[Channel] | None:
        wanted = table.get("type")
        known = self.plugins.channel_types
        if isinstance(wanted, str) and wanted in known:
            return known[wanted]
        key = ("channels", name, "type")
        listed = ", ".join(sorted(known)) or "none are installed"
        if not isinstance(wanted, str):
            what = "has no type" if wanted is None else f"has a type that is {_called(wanted)}"
            self._add(key, f"channel {name!r} {what}: set type to one of: {listed}")
            return None
        broken = _likely(self.plugins.broken, wanted)
        for plugin in broken:
            self._add(
                key,
                f"channel {name!r}: plugin {plugin.name!r} ({plugin.distribution}) for type {wanted!r} is broken, "
                f"{plugin.reason}: {plugin.fix}",
            )
        if not broken:
            self._add(key, f"channel {name!r}: {self._unknown_type(wanted, known)}")
        return None

    def _unknown_type(self, wanted: str, known: Collection[str]) -> str:
        near = get_close_matches(wanted, known, n=1)
        if near:
            return f"no plugin brings type {wanted!r}: did you mean {near[0]!r}?"
        listed = ", ".join(sorted(known)) or "none are installed"
        others = "".join(f"; plugin {plugin.name!r} is broken, {plugin.reason}" for plugin in self.plugins.broken)
        return f"no plugin brings type {wanted!r}{others}: install its plugin, or take one of: {listed}"

    def _structure(
        self,
        cls: type[Any],
        table: dict[str, Any],
        key: Key,
        owner: str,
        *,
        inherited: Mapping[str, Any] | None = None,
        reserved: tuple[str, ...] = (),
    ) -> Any:  # noqa: ANN401  (an instance of `cls`, or None where a problem was found)
        before = len(self.problems)
        hints = get_type_hints(cls, include_extras=True)
        fields = {one.alias or one.name: one for one in attrs.fields(cls) if one.init}
        self._require_known(table, (*reserved, *fields), key, owner)
        values: dict[str, Any] = {}
        for name, one in fields.items():
            if name in reserved:
                continue
            if name in table:
                told = len(self.problems)
                kind, place = hints.get(one.name, Any), f"{owner}: {name}"
                if _plain(kind) is Flow:
                    value: Any = self._flow(table[name], values.get("forms", {}), (*key, name), place)
                else:
                    value = self._value(kind, table[name], (*key, name), place)
                if len(self.problems) == told:
                    values[name] = value
            elif inherited and name in inherited:
                values[name] = inherited[name]
            elif one.default is attrs.NOTHING:
                self._add(key, f"{owner}: {name} is missing: add {_example(name, hints.get(one.name, Any))}")
        for name, error in _refused(cls, values):
            self._add((*key, name), f"{owner}: {name}: {self._masked(error).removeprefix(f'{name}: ')}")
        return None if len(self.problems) > before else self._made(cls, values, key, owner)

    def _made(self, cls: type[Any], values: dict[str, Any], key: Key, owner: str) -> Any:  # noqa: ANN401  (as above)
        try:
            return cls(**values)
        except (ValueError, TypeError, ConvsdkError) as error:
            self._add(key, f"{owner}: {self._masked(error)}")
            return None

    def _value(self, kind: Any, value: Any, key: Key, place: str) -> Any:  # noqa: ANN401  (any setting's type)
        plain = _plain(kind)
        if plain is Secret:
            return self._secret(value, key, place)
        if shapes := _shapes(plain):
            return self._chosen(shapes, value, key, place)
        if isinstance(plain, type) and attrs.has(plain):
            if isinstance(value, dict):
                return self._structure(plain, value, key, place)
            self._add(key, f"{place} is {_called(value)}: write it as a table")
            return None
        origin, arguments = get_origin(plain), get_args(plain)
        if isinstance(value, list) and (origin is list or (origin is tuple and arguments[1:] == (...,))):
            items = (
                self._value(arguments[0], item, (*key, index), f"{place}[{index}]") for index, item in enumerate(value)
            )
            return origin(items)
        if isinstance(value, dict) and origin in {dict, Mapping} and arguments[0] is str:
            return {
                name: self._value(arguments[1], item, (*key, name), f"{place}.{name}") for name, item in value.items()
            }
        return self._converted(kind, value, key, place)

    def _chosen(self, shapes: Mapping[str, type[Any]], value: object, key: Key, place: str) -> Any:  # noqa: ANN401  (as `_structure`)
        if not isinstance(value, dict):
            self._add(key, f"{place} is {_called(value)}: write it as a table")
            return None
        wanted = value.get("by")
        if isinstance(wanted, str) and wanted in shapes:
            return self._structure(shapes[wanted], value, key, place, reserved=("by",))
        near = get_close_matches(wanted, shapes, n=1) if isinstance(wanted, str) else []
        remedy = f"did you mean {near[0]!r}?" if near else f"set by to one of: {', '.join(sorted(shapes))}"
        what = "says not by what" if wanted is None else f"has a wrong value for by, {wanted!r}"
        self._add((*key, "by"), f"{place} {what}: {remedy}")
        return None

    def _flow(self, value: object, forms: Mapping[str, Form], key: Key, place: str) -> Flow | None:
        told = len(self.problems)
        table = self._included(value, key, place)
        if len(self.problems) > told:
            return None
        if not isinstance(table, dict) or not isinstance(table.get("blocks"), list):
            name = ".".join(map(str, key))
            self._add(key, f"{place} has no list of blocks: add a table [[{name}.blocks]] for each, or name a file")
            return None
        self._require_known(table, ("trigger", "blocks"), key, place)
        trigger = self._value(Trigger, table.get("trigger", {}), (*key, "trigger"), f"{place}: trigger")
        ids = tuple(_block_id(index, block) for index, block in enumerate(table["blocks"]))
        blocks = tuple(
            self._block(block, (*key, "blocks", index), f"{place}: block {index + 1} ({ids[index]!r})")
            or _Unread(id=ids[index], others=ids)
            for index, block in enumerate(table["blocks"])
        )
        try:
            return Flow(blocks=blocks, trigger=trigger or Trigger(), forms=forms)
        except FlowError as error:
            for flaw in error.flaws:
                at = () if flaw.index is None else ("blocks", flaw.index)
                self._add((*key, *at), f"{place}: {self._masked(ConfigError(str(flaw)))}")
            return None

    def _included(self, value: object, key: Key, place: str) -> object:
        if not isinstance(value, dict) or "file" not in value:
            return value
        if len(value) > 1 or not isinstance(value["file"], str) or "\0" in value["file"]:
            self._add(key, f'{place} names no file alone: write {{ file = "PATH" }}, and all else into that file')
            return None
        file = self.path.parent / value["file"]
        try:
            table, lines = _parsed(file)
        except ConfigError as error:
            self._add(key, f"{place}: {error}")
            return None
        self.lines |= {key: (file, 1)} | {(*key, *inner): (file, line) for inner, line in lines.items()}
        return table

    def _block(self, value: object, key: Key, owner: str) -> Block | None:
        known = self.plugins.block_types
        wanted = value.get("type") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(wanted, str):
            self._add(key, f"{owner} has no type: set type to one of: {', '.join(sorted(known))}")
            return None
        if wanted not in known:
            self._add((*key, "type"), f"{owner}: {self._unknown_type(wanted, known)}")
            return None
        made: Block | None = self._structure(known[wanted], value, key, owner, reserved=("type",))
        return made

    def _converted(self, kind: Any, value: Any, key: Key, place: str) -> Any:  # noqa: ANN401  (as `_value`)
        choices = _choices(_plain(kind))
        if choices and value not in choices:
            self._add(key, f"{place} is {value!r}: take one of {', '.join(map(repr, choices))}")
            return None
        try:
            return msgspec.convert(value, kind, strict=True)
        except (msgspec.ValidationError, TypeError) as error:
            said = re.sub(r"`(\w+)`", lambda found: _NAMES.get(found[1], found[1]), self._masked(error))
            self._add(key, f"{place} has a wrong value: {said[:1].lower()}{said[1:]}")
            return None

    def _secret(self, given: object, key: Key, place: str) -> Secret:
        if not isinstance(given, dict) or len(given) != 1 or not set(given) <= set(_SOURCES):
            what = "must not stand in the file itself" if isinstance(given, str) else "says not where it is kept"
            self._add(key, f'{place} {what}: use {{ env = "NAME" }} or {{ file = "PATH" }}')
            return Secret("")
        ((source, name),) = given.items()
        if not isinstance(name, str) or not name:
            self._add(key, f"{place}: {source} is {_called(name)}: give a name in quotes")
            return Secret("")
        value = self._variable(name, key, place) if source == "env" else self._file(name, key, place)
        self._revealed.add(value)
        self.on_secret(value)
        return Secret(value)

    def _variable(self, name: str, key: Key, place: str) -> str:
        value = self.environ.get(name, "")
        if not value:
            what = "is empty" if name in self.environ else "is not set"
            self._add(key, f"{place}: environment variable {name} {what}: set it")
        return value

    def _file(self, name: str, key: Key, place: str) -> str:
        file = self.path.parent / name
        try:
            value = file.read_bytes().decode()
        except OSError as error:
            self._add(key, f"{place}: file {file} cannot be read ({error.strerror}): create it or name another")
            return ""
        except ValueError:  # not UTF-8, or a NUL in the name
            self._add(key, f"{place}: file {file} holds no text in UTF-8: write the secret into it as text")
            return ""
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            self._add(key, f"{place}: file {file} is empty: write the secret into it")
        return value

    def _masked(self, error: Exception) -> str:
        # A validator of a plugin can put into its message what it was given, secrets included.
        said = " ".join(str(error.args[0] if error.args else error).split())
        for secret in sorted(filter(None, self._revealed), key=len, reverse=True):
            said = said.replace(secret, "***")
        return said


@frozen(kw_only=True)
class _Unread(Block):
    """Stands for a block whose mistakes were told, so that the rest of the flow is checked all the same."""

    type = "unread"
    waits_for = "text"

    others: tuple[str, ...]

    def enter(self, visit: Visit) -> tuple[Step, ...]:  # noqa: ARG002  (every block is told)
        return ()

    def exits(self) -> tuple[str, ...]:
        return self.others


def _block_id(index: int, block: object) -> str:
    given = block.get("id") if isinstance(block, dict) else None
    return given if isinstance(given, str) and BLOCK_ID.fullmatch(given) else f"block-{index + 1}"


_NAMES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "object": "a table",
    "str": "text",
}


def _refused(settings: type[Any], values: dict[str, Any]) -> Iterator[tuple[str, Exception]]:
    """Ask each field's validator on its own, since a constructor stops at the first that refuses."""
    blank = object.__new__(settings)
    present = [(one.alias or one.name, one) for one in attrs.fields(settings) if (one.alias or one.name) in values]
    for name, one in present:
        object.__setattr__(blank, one.name, values[name])
    for name, one in present:
        if one.validator is None or one.converter is not None:
            continue
        try:
            one.validator(blank, one, values[name])
        except (ValueError, TypeError, ConvsdkError) as error:
            yield name, error
        except AttributeError:
            continue  # it looks at a field that is not there; the constructor's own error is told then


def _choices(kind: Any) -> list[Any]:  # noqa: ANN401  (as `_plain`)
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [one.value for one in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _called(value: object) -> str:
    if value == "":
        return "empty"
    names = {dict: "a table", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "a date or time")


def _plain(kind: Any) -> Any:  # noqa: ANN401  (an annotation can be any object)
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        others = [one for one in get_args(kind) if one is not NoneType]
        return _plain(others[0]) if len(others) == 1 else kind
    return kind


def _shapes(kind: Any) -> dict[str, type[Any]]:  # noqa: ANN401  (as `_plain`)
    """Give the classes of a union by what tells them apart, their `by`; none where it is no such union."""
    given = [one for one in get_args(kind) if one is not NoneType] if isinstance(kind, UnionType) else []
    is_tagged = given and all(attrs.has(one) and isinstance(getattr(one, "by", None), str) for one in given)
    return {one.by: one for one in given} if is_tagged else {}


def _example(name: str, kind: Any) -> str:  # noqa: ANN401  (as `_plain`)
    return f'{name} = {{ env = "NAME" }}' if _plain(kind) is Secret else f"{name} = ..."


def _likely(plugins: Collection[Broken], channel_type: str) -> list[Broken]:
    """Give those that are likely to bring `channel_type`, by their names: a broken one can no longer be asked."""
    wanted = channel_type.replace("_", "-")
    named = [one for one in plugins if one.name.replace("_", "-") == wanted]
    return named or [one for one in plugins if one.distribution.replace("_", "-") == f"convsdk-{wanted}"]
