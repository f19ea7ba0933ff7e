"""What every command starts from: the common options, and the hub that they and `convsdk.toml` describe."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import structlog

from convsdk.archive import Archive
from convsdk.cli.screen import Screen
from convsdk.config import DEFAULT_WORKSPACE, Config, WorkspaceConfig, load_config
from convsdk.core.fold import Policy
from convsdk.core.identifiers import IdentifierKind, Kinds, trim
from convsdk.core.model import Contact, Identifier
from convsdk.core.ports import Clock
from convsdk.core.storage import Store
from convsdk.errors import ConfigError, NotFound
from convsdk.hub import Hub
from convsdk.plugins import Plugins, load_plugins
from convsdk.redaction import Redaction
from convsdk.scenarios import read_identifier
from convsdk.store import open_store

DEFAULT_CONFIG = Path("convsdk.toml")

_CONTACT_ID = re.compile(r"[0-9]{1,18}")


def policy_of(workspace: WorkspaceConfig, kinds: Iterable[IdentifierKind]) -> Policy:
    """Give the rules of a configured workspace; its `own` and `blocked` values count in any spelling."""
    brought = tuple(kinds)
    known = Kinds(brought)
    readers = [known[name] for name in ("email", "phone", *(one.name for one in brought))]

    def keys(values: Iterable[str]) -> frozenset[str]:
        forms = (reader.canonical(value, country=workspace.country) for value in values for reader in readers)
        return frozenset({*map(trim, values), *(form for form in forms if form)})

    return Policy(
        kinds=known,
        country=workspace.country,
        blocked=keys(workspace.blocked),
        own=keys(workspace.own),
        external_id_cap=workspace.external_id_cap,
        component_cap=workspace.component_cap,
        visitor_ttl=timedelta(days=workspace.visitor_ttl_days),
    )


class Session:
    """One run of the program: its options, what they lead to, and where its output goes."""

    def __init__(
        self,
        *,
        screen: Screen,
        config_file: Path | None = None,
        store_url: str | None = None,
        workspace: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.screen = screen
        self.config_file = config_file
        self.asked_store = store_url
        self._workspace = workspace
        self._environ = environ
        self._stores: dict[str, Store] = {}
        self._hubs: dict[str, Hub] = {}
        self._redaction = Redaction()
        self._opened = ExitStack()

    @cached_property
    def plugins(self) -> Plugins:
        """Give the plugins that are installed."""
        log_to_stderr(self._redaction)
        self._opened.enter_context(self._redaction.in_log_records())
        return load_plugins()

    @cached_property
    def config(self) -> Config:
        """Give what the configuration says; without a file, what counts where nothing is said."""
        if self.config_file is None and not DEFAULT_CONFIG.exists():
            return Config(workspaces={DEFAULT_WORKSPACE: WorkspaceConfig()})
        file = self.config_file or DEFAULT_CONFIG
        config = load_config(file, self.plugins, environ=self._environ, on_secret=self._redaction.add)
        for url in (config.store, self.asked_store or ""):
            self._redaction.add(unquote(urlsplit(url).password or ""))
        return config

    @property
    def store_url(self) -> str:
        """Give the URL of the store, which may hold a password."""
        return self.config.store if self.asked_store is None else self.asked_store

    @cached_property
    def archive(self) -> Archive | None:
        """Give the archive; None where the configuration wants none."""
        return Archive(self.config.archive) if self.config.archive else None

    def open(self, url: str) -> Store:
        """Open a store, once for all who ask; it is closed with the session."""
        if url not in self._stores:
            self._stores[url] = open_store(url, factories=self.plugins.store_factories)
        return self._stores[url]

    def hub(self, *, channel: str | None = None, clock: Clock | None = None) -> Hub:
        """Give the hub of the workspace that was asked for, or of `channel`."""
        return self._hub(self.workspace(channel), clock=clock)

    def hubs(self, *, is_silent_too: bool = False) -> list[Hub]:
        """Give the hubs of all workspaces that have channels (or of all), or of the one that was asked for."""
        config = self.config
        homes = config.workspaces if is_silent_too else config.channel_workspaces.values()
        names = set(homes) if self._workspace is None else {self.workspace()}
        return [self._hub(name) for name in sorted(names)]

    def _hub(self, name: str, *, clock: Clock | None = None) -> Hub:
        """Give the hub of a workspace: the same to all who ask, so that who queues something wakes who delivers it."""
        if clock:
            return self._new_hub(name, clock=clock)
        if name not in self._hubs:
            self._hubs[name] = self._new_hub(name)
        return self._hubs[name]

    def _new_hub(self, name: str, *, clock: Clock | None = None) -> Hub:
        homes = self.config.channel_workspaces
        options: dict[str, Any] = {"clock": clock} if clock else {}
        return Hub(
            self.open(self.store_url),
            workspace=name,
            channels=[one for one in self.config.channels.values() if homes[one.name] == name],
            policy=policy_of(self.config.workspaces.get(name, WorkspaceConfig()), self.plugins.kinds),
            amend_hint=self.plugins.hints,
            archive=self.archive,
            **options,
        )

    def workspace(self, channel: str | None = None) -> str:
        """Give the name of the workspace to work in: as asked for, else the channel's, else the only one."""
        known = self.config.workspaces
        home = self.config.channel_workspaces.get(channel or "")
        if self._workspace is None:
            return home or self._only(known)
        if self._workspace not in known:
            raise ConfigError(
                f"there is no workspace {self._workspace!r}: "
                f"add [workspaces.{self._workspace}], or take one of {', '.join(sorted(known))}"
            )
        if home and home != self._workspace:
            raise ConfigError(f"channel {channel!r} belongs to workspace {home!r}: leave --workspace out")
        return self._workspace

    @staticmethod
    def _only(known: Mapping[str, WorkspaceConfig]) -> str:
        if len(known) == 1:
            return next(iter(known))
        if DEFAULT_WORKSPACE in known:
            return DEFAULT_WORKSPACE
        raise ConfigError(f"there are several workspaces: name one with --workspace, of {', '.join(sorted(known))}")

    def close(self) -> None:
        """Close what was opened."""
        while self._stores:
            self._stores.popitem()[1].close()
        self._opened.close()


def who(hub: Hub, text: str) -> int | Identifier:
    """Give the contact id or the identifier that `text` names."""
    if _CONTACT_ID.fullmatch(text):
        return int(text)
    found = read_identifier(text, hub.policy)
    if found is None:
        raise NotFound(
            f"{text!r} is no usable identifier: write a contact's id, or kind:value such as email:a@b.example"
        )
    return found


def contact_of(hub: Hub, text: str) -> Contact:
    """Give the contact that `text` names, by its id or by an identifier that it holds."""
    named = who(hub, text)
    if isinstance(named, int):
        return hub.contact(named)
    contact = hub.find(named.kind, named.value, scope=named.scope)
    if contact is None:
        raise NotFound(f"nobody holds {named}: see 'convsdk contacts'")
    return contact


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give `function`, which takes a `Session`, the options that every command has."""

    @click.option("--config", "config_file", type=click.Path(path_type=Path), help="Default: ./convsdk.toml, if there.")
    @click.option("--store", "store_url", metavar="URL", help="Default: as configured, else sqlite:///convsdk.db.")
    @click.option("--workspace", metavar="NAME", help="Which workspace, where there are several.")
    @click.option("--json", "is_json", is_flag=True, help="Write JSON lines.")
    @functools.wraps(function)
    def with_session(
        config_file: Path | None, store_url: str | None, workspace: str | None, is_json: bool, **given: object
    ) -> None:
        session = Session(
            screen=Screen(is_json=is_json), config_file=config_file, store_url=store_url, workspace=workspace
        )
        try:
            function(session, **given)
        finally:
            session.close()

    return with_session


memory_option = click.option(
    "--memory",
    "memory_mib",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="MiB for all that is being received at once; at work on it, the program takes up to four times that.",
)
rejects_option = click.option(
    "--rejects", type=click.Path(path_type=Path), default=Path("rejects"), show_default=True, help="Folder for rejects."
)


def log_to_stderr(redaction: Redaction) -> None:
    """Write the program's log to standard error: structlog's own way would put it between a command's JSON lines."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            redaction,
            structlog.processors.LogfmtRenderer(bool_as_flag=False),
            redaction,
        ],
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
