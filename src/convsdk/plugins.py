"""Finds plugins by their entry points, admits each as `Loaded` or names it `Broken`, and calls their hooks.

One bad plugin never stops the host. pluggy keeps quiet about several mistakes (a misspelt hook, a forgotten marker,
a default argument that never receives a value, a second plugin of one name): all of them are looked for here.
"""

import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import metadata
from time import perf_counter
from typing import Any, get_args, get_type_hints

import attrs
import pluggy
import structlog
from attrs import field, frozen

from convsdk import hookspecs
from convsdk.core.blocks import BLOCKS
from convsdk.core.events import Notice
from convsdk.core.flow import Block, Waits
from convsdk.core.identifiers import IdentifierKind, Kinds
from convsdk.core.model import IdentityHint
from convsdk.core.ports import CONTRACT, Capabilities, Channel
from convsdk.errors import TransientError
from convsdk.patience import StuckError, call_within, place_in

GROUP = "convsdk.plugins"
"""The group of entry points that a distribution announces its plugins in."""

_HOST = "convsdk"
_PREFIX = "convsdk_"
_HINT_S = 5.0
_BROUGHT = {
    "convsdk_channels": "channel type",
    "convsdk_identifier_kinds": "kind of identifier",
    "convsdk_bot_blocks": "block type",
    "convsdk_stores": "store scheme",
    "convsdk_commands": "command",
}
_Brought = dict[str, dict[str, Any]]  # by hook, then by name: so that a second thing of one name is seen
_log = structlog.get_logger(__name__)


def _context(contract: int = CONTRACT) -> hookspecs.Context:
    return hookspecs.Context(version=metadata.version(_HOST), contract=contract)


@frozen(kw_only=True)
class Loaded:
    """A plugin that works: its entry point and distribution, the hooks that it implements, how long loading took.

    `brings` names what it registered, such as "channel type desk".
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    brings: tuple[str, ...]
    load_time_ms: float


@frozen(kw_only=True)
class Broken:
    """A plugin that was left out: why (`reason`), and what its user or author can do about it (`fix`)."""

    name: str
    distribution: str
    version: str
    reason: str
    fix: str
    load_time_ms: float


@frozen
class _Implementation:
    """One plugin's function for one hook, and which of the hook's arguments it takes."""

    plugin: str
    hook: str
    function: Callable[..., Any]
    takes: tuple[str, ...]

    def __call__(self, **arguments: object) -> Any:  # noqa: ANN401  (each hook gives something else)
        return self.function(*(arguments[name] for name in self.takes))


@frozen(kw_only=True, eq=False)
class Plugins:
    """The plugins of one host: what they bring, and the hooks that they want to be called by."""

    loaded: tuple[Loaded, ...] = ()
    broken: tuple[Broken, ...] = ()
    channel_types: dict[str, type[Channel]] = field(factory=dict)
    distributions: Mapping[str, str] = field(factory=dict)  # those that bring the channel types
    kinds: tuple[IdentifierKind, ...] = ()
    block_types: Mapping[str, type[Block]] = BLOCKS
    store_factories: dict[str, Callable[..., Any]] = field(factory=dict)
    commands: tuple[Any, ...] = ()
    _implementations: tuple[_Implementation, ...] = field(default=(), repr=False)
    _context: hookspecs.Context = field(factory=_context, repr=False)
    _stuck: set[str] = field(factory=set, init=False, repr=False)

    def hints(self, hint: IdentityHint) -> IdentityHint:
        """Give `hint` as the plugins change it, each one seeing what the one before it made.

        One that does not come back within 5 s is asked no more.
        """
        for implementation in self._of("convsdk_hint"):
            if implementation.plugin in self._stuck:
                continue
            changed = self._call(implementation, most_s=_HINT_S, hint=hint)
            if isinstance(changed, IdentityHint):
                hint = changed
            elif changed is not None:
                _log.error(
                    "a plugin's hint was left out: the hook must give an IdentityHint or None",
                    plugin=implementation.plugin,
                    gave=type(changed).__name__,
                )
        return hint

    def observe(self, notice: Notice) -> None:
        """Tell every observer about `notice`; one that raises is logged and keeps nobody else from it."""
        for implementation in self._of("convsdk_event"):
            self._call(implementation, notice=notice)

    def automate(self, notice: Notice) -> None:
        """Tell every automation about a contact that may enter, which none that came by inbound e-mail may."""
        if notice.may_automate:
            for implementation in self._of("convsdk_automations"):
                self._call(implementation, notice=notice)

    def listeners(self, hook: str) -> dict[str, Callable[[Notice], None]]:
        """Give what tells each plugin with `hook` about a notice, by the plugin's name.

        A plugin that raises `TransientError` wants to be told again, so that gets out; anything else is logged.
        """
        return {one.plugin: partial(self._tell, one) for one in self._of(hook)}

    def _tell(self, implementation: _Implementation, notice: Notice) -> None:
        self._call(implementation, passes=TransientError, notice=notice)

    def _of(self, hook: str) -> Iterator[_Implementation]:
        return (implementation for implementation in self._implementations if implementation.hook == hook)

    def _call(
        self,
        implementation: _Implementation,
        *,
        passes: type[BaseException] | tuple[()] = (),
        most_s: float | None = None,
        **arguments: object,
    ) -> object:
        # One by one and not through pluggy: there, one implementation that raises aborts all that follow.
        call = partial(implementation, ctx=self._context, **arguments)
        try:
            return call() if most_s is None else call_within(call, most_s)
        except passes:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  (boundary: a plugin's failure stays the plugin's own)
            if isinstance(error, StuckError):
                self._stuck.add(implementation.plugin)
            # No exc_info: a renderer that prints local variables would put the customer's values into the log.
            _log.error(
                "a plugin's hook failed and was skipped",
                plugin=implementation.plugin,
                hook=implementation.hook,
                error=_shown(error),
                at=_origin(error),
            )
            return None


def load_plugins(
    *,
    distributions: Iterable[metadata.Distribution] | None = None,
    contract: int = CONTRACT,
    patience_s: float = 10.0,
) -> Plugins:
    """Load every plugin that `distributions` (None: all installed ones) announce; never raise for a bad one.

    convsdk's own plugins come first and the others in the order of their names, so that the same plugin wins
    wherever two bring a thing of the same name. An adapter for another `contract` than this and the one before is
    broken, and so is a plugin whose import, or a hook that is asked what it brings, takes more than `patience_s`.
    """
    loader = _Loader(_context(contract), patience_s)
    for entry in sorted(_announced(distributions), key=_rank):
        loader.load(entry)
    return loader.plugins()


@frozen
class _Entry:
    """An entry point and the distribution that announces it. `point` is None where the file cannot be read."""

    name: str
    distribution: str
    version: str
    point: metadata.EntryPoint | None


class _RefusedError(Exception):
    """The plugin cannot be used: the reason, and the fix."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


class _Loader:
    """Loads plugins one after the other into a pluggy manager of its own."""

    def __init__(self, context: hookspecs.Context, patience_s: float) -> None:
        self._patience_s = patience_s
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._specs = {
            name: frozenset(inspect.signature(spec).parameters)
            for name, spec in vars(hookspecs).items()
            if name.startswith(_PREFIX)
        }
        self._context = context
        self._loaded: list[Loaded] = []
        self._broken: list[Broken] = []
        self._implementations: list[_Implementation] = []
        self._gifts: dict[str, dict[str, Any]] = {hook: {} for hook in _BROUGHT}
        self._origins: dict[tuple[str, str], str] = {}
        self._names: dict[str, str] = {}
        self._distributions: dict[str, str] = {}

    def plugins(self) -> Plugins:
        """Give everything that was loaded."""
        return Plugins(
            loaded=tuple(self._loaded),
            broken=tuple(self._broken),
            channel_types=self._gifts["convsdk_channels"],
            distributions=self._distributions,
            kinds=tuple(self._gifts["convsdk_identifier_kinds"].values()),
            block_types=BLOCKS | self._gifts["convsdk_bot_blocks"],
            store_factories=self._gifts["convsdk_stores"],
            commands=tuple(self._gifts["convsdk_commands"].values()),
            implementations=tuple(self._implementations),
            context=self._context,
        )

    def load(self, entry: _Entry) -> None:
        """Load one plugin, or say why not."""
        started = perf_counter()
        origin = {"name": entry.name, "distribution": entry.distribution, "version": entry.version}
        try:
            implementations, brought = self._admit(entry)
        except _RefusedError as refused:
            spent_ms = (perf_counter() - started) * 1000
            self._broken.append(Broken(**origin, reason=refused.reason, fix=refused.fix, load_time_ms=spent_ms))
            return
        spent_ms = (perf_counter() - started) * 1000
        hooks = tuple(sorted({implementation.hook for implementation in implementations}))
        brings = tuple(f"{_BROUGHT[hook]} {name}" for hook, given in brought.items() for name in given)
        for hook, given in brought.items():
            self._gifts[hook].update(given)
            if hook == "convsdk_channels":
                self._distributions |= dict.fromkeys(given, entry.distribution)
            self._origins.update({(hook, name): entry.name for name in given})
        self._implementations += implementations
        self._loaded.append(Loaded(**origin, hooks=hooks, brings=brings, load_time_ms=spent_ms))

    def _admit(self, entry: _Entry) -> tuple[list[_Implementation], _Brought]:
        if entry.point is None:
            raise _RefusedError("its entry_points.txt cannot be read", f"reinstall {entry.distribution}")
        if entry.name in self._names:
            raise _RefusedError(
                f"{self._names[entry.name]} already has a plugin called {entry.name!r}",
                f"uninstall one of the two, or rename the entry point of {entry.distribution}",
            )
        # A name is taken even by a broken plugin: which of two is used must not depend on whether the first works.
        self._names[entry.name] = entry.distribution
        fix = f"reinstall or update {entry.distribution}"
        plugin = _guarded(partial(call_within, entry.point.load, self._patience_s), "cannot be imported", fix)
        if inspect.isclass(plugin):
            raise _RefusedError(
                f"its entry point {entry.point.value!r} names a class",
                "let it name the module that holds the hooks, or an instance of the class",
            )
        _guarded(lambda: self._require_markers(plugin), "cannot be looked into", f"update {entry.distribution}")
        try:
            implementations = self._register(plugin, entry.name)
            return implementations, self._ask(implementations, entry)
        except _RefusedError:
            # pluggy leaves the hooks registered that came before the failure.
            if self._manager.get_plugin(entry.name) is not None:
                self._manager.unregister(name=entry.name)
            raise

    def _require_markers(self, plugin: object) -> None:
        for name in dir(plugin):
            function = inspect.getattr_static(plugin, name)
            function = getattr(function, "__func__", function)
            is_hook = name.startswith(_PREFIX) and inspect.isfunction(function)
            if not is_hook or hasattr(function, "convsdk_impl") or hasattr(function, "convsdk_spec"):
                continue
            raise _RefusedError(
                f"{name} is not marked as a hook implementation and would never be called",
                f"put @hookimpl (from convsdk.hookspecs) above it{self._or_nearest(name)}",
            )

    def _or_nearest(self, name: str) -> str:
        if name in self._specs:
            return ""
        near = get_close_matches(name, self._specs, n=1)
        return f" and call it {near[0]}" if near else f", or give it a name that does not begin with {_PREFIX}"

    def _register(self, plugin: object, name: str) -> list[_Implementation]:
        fix = "compare its hooks with convsdk.hookspecs"
        _guarded(lambda: self._manager.register(plugin, name), "cannot be registered", fix)
        callers = self._manager.get_hookcallers(plugin) or []
        for caller in callers:
            if not caller.has_spec():
                self._require_spec(caller.name)
        # The last word is pluggy's: it knows of pending hooks in ways that its later releases may add.
        _guarded(self._manager.check_pending, "has a hook that convsdk does not know", fix)
        implementations = [
            self._checked(caller.name, implementation, name)
            for caller in callers
            if caller.has_spec()
            for implementation in caller.get_hookimpls()
            if implementation.plugin is plugin
        ]
        if not implementations:
            raise _RefusedError("it implements no hook", "implement one of " + ", ".join(sorted(self._specs)))
        return implementations

    def _require_spec(self, hook: str) -> None:
        near = get_close_matches(hook, self._specs, n=1)
        raise _RefusedError(
            f"there is no hook {hook}",
            f"call it {near[0]}" if near else "take one of " + ", ".join(sorted(self._specs)),
        )

    def _checked(self, hook: str, found: pluggy.HookImpl, plugin: str) -> _Implementation:
        function = found.function
        for name, parameter in inspect.signature(function).parameters.items():
            is_deaf = parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY
            if name in self._specs[hook] and is_deaf:
                raise _RefusedError(
                    f"{hook} has a default or a keyword-only argument {name!r}, which would never receive its value",
                    f"make {name!r} a plain argument without a default",
                )
        if found.wrapper or found.hookwrapper:
            raise _RefusedError(f"{hook} is a wrapper, and hooks do not depend on order", "write it as a plain hook")
        is_generator = hook not in _BROUGHT and inspect.isgeneratorfunction(function)
        if is_generator or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise _RefusedError(f"{hook} is not a plain function, so its body would never run", "use def and return")
        return _Implementation(plugin, hook, function, tuple(found.argnames))

    def _ask(self, implementations: list[_Implementation], entry: _Entry) -> _Brought:
        brought: _Brought = {}
        for implementation in implementations:
            hook = implementation.hook
            if hook in _BROUGHT:
                for given in self._given(implementation, entry.distribution):
                    self._take(hook, given, brought, entry)
        # A channel's own kinds come with it, as if the hook had given them.
        for kind in [kind for channel in brought.get("convsdk_channels", {}).values() for kind in channel.kinds]:
            self._take("convsdk_identifier_kinds", kind, brought, entry)
        return brought

    def _given(self, implementation: _Implementation, distribution: str) -> list[Any]:
        def ask() -> list[Any]:
            given = implementation(ctx=self._context)
            if implementation.hook == "convsdk_stores":
                return list(dict(given).items())
            return list(given)

        what = f"fails in {implementation.hook}"
        return list(_guarded(partial(call_within, ask, self._patience_s), what, f"update {distribution}"))

    def _take(self, hook: str, given: object, brought: _Brought, entry: _Entry) -> None:
        name, value = _named(hook, given)
        if hook == "convsdk_channels":
            _require_contract(value, self._context.contract, entry.distribution)
        target = brought.setdefault(hook, {})
        self._require_new(hook, name, value, target, entry)
        target[name] = value

    def _require_new(self, hook: str, name: str, value: object, target: dict[str, Any], entry: _Entry) -> None:
        if target.get(name, value) is not value:
            raise _RefusedError(f"it brings the {_BROUGHT[hook]} {name!r} twice", "rename one of the two")
        if (hook, name) in self._origins:
            raise _RefusedError(
                f"plugin {self._origins[hook, name]!r} brings the {_BROUGHT[hook]} {name!r} already",
                f"uninstall one of the two, or rename it in {entry.distribution}",
            )


def _announced(distributions: Iterable[metadata.Distribution] | None) -> Iterator[_Entry]:
    seen: set[str] = set()
    for distribution in metadata.distributions() if distributions is None else distributions:
        try:
            points: Iterable[metadata.EntryPoint] | None = distribution.entry_points.select(group=GROUP)
        except Exception:  # noqa: BLE001  (boundary: whatever lies in somebody's site-packages must not stop the host)
            points = None if GROUP in (distribution.read_text("entry_points.txt") or "") else ()
        if points is not None and not points:
            continue
        name, version = _identity(distribution)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue  # shadowed by the one earlier on the path, as its modules are
        seen.add(key)
        if points is None:
            yield _Entry(name, name, version, None)
            continue
        yield from (_Entry(point.name, name, version, point) for point in points)


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    try:
        found = distribution.metadata
    except Exception:  # noqa: BLE001  (boundary: as above, a METADATA file can be missing or be anything)
        return "unknown distribution", ""
    values = dict(found.items())  # type: ignore[attr-defined]  # a Message, whose stub for 3.11 names only some methods
    name, version = values.get("Name", ""), values.get("Version", "")
    return name or "unknown distribution", version


def _rank(entry: _Entry) -> tuple[bool, str, str]:
    return entry.distribution != _HOST, entry.distribution, entry.name


def _guarded(act: Callable[[], Any], what: str, fix: str) -> Any:  # noqa: ANN401  (gives whatever a plugin gives)
    try:
        return act()
    except _RefusedError:
        raise
    except (Exception, SystemExit) as error:  # boundary: importing and asking a plugin runs any code
        place = f" at {_origin(error)}" if _origin(error) else ""
        fix = f"{fix}, or uninstall it" if isinstance(error, StuckError) else fix
        raise _RefusedError(f"it {what}: {_shown(error)}{place}", fix) from error


def _shown(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _origin(error: BaseException) -> str:
    if isinstance(error, StuckError):
        return error.place
    return place_in(traceback.extract_tb(error.__traceback__), beside=(__file__, pluggy.__path__[0]))


def _named(hook: str, given: Any) -> tuple[str, Any]:  # noqa: ANN401  (whatever a plugin gives)
    if hook == "convsdk_stores":
        return _store(*given)
    if hook == "convsdk_channels":
        return _channel_type(given), given
    if hook == "convsdk_bot_blocks":
        return _block_type(given), given
    if hook == "convsdk_commands":
        return _command_name(given), given
    return _kind_name(given), given


def _channel_type(channel: object) -> str:
    if not isinstance(channel, type) or not issubclass(channel, Channel):
        raise _RefusedError(
            f"convsdk_channels gave {_describe(channel)}, which is no subclass of Channel",
            "give a list of classes that derive from convsdk.core.ports.Channel",
        )
    missing = ", ".join(sorted(getattr(channel, "__abstractmethods__", ())))
    if missing:
        raise _RefusedError(f"channel class {channel.__name__} is still abstract", f"write its {missing}")
    named = getattr(channel, "type", None)
    if not isinstance(named, str) or not named:
        raise _RefusedError(f"channel class {channel.__name__} has no type", 'set it: type = "my_channel"')
    settings = getattr(channel, "settings", None)
    if not isinstance(settings, type) or not attrs.has(settings):
        raise _RefusedError(
            f"channel class {channel.__name__} has no settings", "set them to an attrs class: settings = MySettings"
        )
    if not isinstance(getattr(channel, "can", None), Capabilities):
        raise _RefusedError(
            f"channel class {channel.__name__} does not say what it can do", "set it: can = Capabilities(...)"
        )
    kinds = getattr(channel, "kinds", ())
    if not isinstance(kinds, tuple) or not all(isinstance(kind, IdentifierKind) for kind in kinds):
        raise _RefusedError(
            f"channel class {channel.__name__} has something else than kinds of identifier as its kinds",
            'write a tuple of them: kinds = (MessagingId("my_person"),)',
        )
    _require_readable(settings, f"settings {settings.__name__}")
    return named


def _require_contract(channel: type[Channel], current: int, distribution: str) -> None:
    asked: object = channel.contract
    if not isinstance(asked, int) or asked < 1:
        raise _RefusedError(
            f"channel class {channel.__name__} has the contract {asked!r}",
            f"set it to the number that it was written for: contract = {current}",
        )
    if asked > current:
        raise _RefusedError(
            f"channel class {channel.__name__} is for contract {asked}, and this convsdk knows up to {current}",
            f"update convsdk, or install an older release of {distribution}",
        )
    if asked < current - 1:
        raise _RefusedError(
            f"channel class {channel.__name__} is for contract {asked}, and this convsdk takes {current - 1} and "
            f"{current}",
            f"update {distribution}; its author finds in convsdk's changelog what each contract changed",
        )


def _block_type(block: object) -> str:
    if not isinstance(block, type) or not issubclass(block, Block):
        raise _RefusedError(
            f"convsdk_bot_blocks gave {_describe(block)}, which is no subclass of Block",
            "give a list of classes that derive from convsdk.core.flow.Block",
        )
    if getattr(block, "__abstractmethods__", ()):
        raise _RefusedError(f"block class {block.__name__} is still abstract", "write its enter")
    named = getattr(block, "type", None)
    if not isinstance(named, str) or not named:
        raise _RefusedError(f"block class {block.__name__} has no type", 'set it: type = "my_block"')
    if named in BLOCKS:
        raise _RefusedError(f"block type {named!r} is built in", "give it another name")
    if "__attrs_attrs__" not in vars(block):
        raise _RefusedError(f"block class {block.__name__} is no attrs class", "put @frozen(kw_only=True) above it")
    if block.waits_for not in get_args(Waits):
        raise _RefusedError(
            f"block class {block.__name__} waits for something unknown",
            "set waits_for to one of " + ", ".join(map(repr, get_args(Waits))),
        )
    _require_readable(block, f"block class {block.__name__}")
    return named


def _require_readable(cls: type[Any], what: str) -> None:
    _guarded(
        lambda: get_type_hints(cls, include_extras=True),
        f"has {what} whose annotations cannot be read",
        "import their types at run time, not under TYPE_CHECKING",
    )


def _kind_name(kind: object) -> str:
    if not isinstance(kind, IdentifierKind) or not isinstance(getattr(kind, "name", None), str) or not kind.name:
        raise _RefusedError(
            f"convsdk_identifier_kinds gave {_describe(kind)}, which is no IdentifierKind with a name",
            "give instances of a subclass of convsdk.core.identifiers.IdentifierKind",
        )
    if kind.name in Kinds():
        raise _RefusedError(f"kind of identifier {kind.name!r} is built in", "give it another name")
    return kind.name


def _store(scheme: object, factory: object) -> tuple[str, Callable[..., Any]]:
    if not isinstance(scheme, str) or not scheme or not callable(factory):
        raise _RefusedError("convsdk_stores gave something else than factories by scheme", 'give {"mysql": open_mysql}')
    return scheme, factory


def _command_name(command: object) -> str:
    name = getattr(command, "name", None)
    if not isinstance(name, str) or not callable(command):
        raise _RefusedError(
            f"convsdk_commands gave {_describe(command)}, which is no click command",
            "give functions under @click.command",
        )
    return name


def _describe(value: object) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"
