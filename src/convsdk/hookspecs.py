"""The hooks that a plugin can implement. A hook registers or observes; traffic never runs through hooks.

A hook is a plain function marked with `hookimpl`. It takes `ctx`, does not depend on order, and only ever gains
arguments. The smallest plugin::

    from convsdk.hookspecs import hookimpl


    @hookimpl
    def convsdk_channels(ctx):
        return [MyChannel]
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy
from attrs import frozen

from convsdk.core.ports import CONTRACT

if TYPE_CHECKING:
    from convsdk.core.events import Notice
    from convsdk.core.flow import Block
    from convsdk.core.identifiers import IdentifierKind
    from convsdk.core.model import IdentityHint
    from convsdk.core.ports import Channel

PROJECT = "convsdk"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@frozen(kw_only=True)
class Context:
    """What a hook is told about its host: the version of convsdk, and of the contract between host and plugin."""

    version: str
    contract: int = CONTRACT


@hookspec
def convsdk_channels(ctx: Context) -> "Iterable[type[Channel]]":  # type: ignore[empty-body]  # a hook has no body
    """Give the channel classes that this plugin brings."""


@hookspec
def convsdk_identifier_kinds(ctx: Context) -> "Iterable[IdentifierKind]":  # type: ignore[empty-body]  # a hook has no body
    """Give the kinds of identifier that this plugin brings, with their canonical forms."""


@hookspec
def convsdk_hint(ctx: Context, hint: "IdentityHint") -> "IdentityHint | None":
    """Give the hint with evidence added or a value left out, or None to leave it. Never decides; must be pure."""


@hookspec
def convsdk_event(ctx: Context, notice: "Notice") -> None:
    """See what happened, after the commit, at least once."""


@hookspec
def convsdk_automations(ctx: Context, notice: "Notice") -> None:
    """See a contact that may enter automations; never called for one that an inbound e-mail created."""


@hookspec
def convsdk_bot_blocks(ctx: Context) -> "Iterable[type[Block]]":  # type: ignore[empty-body]  # a hook has no body
    """Give the classes of blocks for bot automations that this plugin brings."""


@hookspec
def convsdk_stores(ctx: Context) -> "dict[str, Any]":  # type: ignore[empty-body]  # a hook has no body
    """Give factories of stores by URL scheme: `{"mysql": open_mysql}`, each taking the URL."""


@hookspec
def convsdk_commands(ctx: Context) -> "Iterable[Any]":  # type: ignore[empty-body]  # a hook has no body
    """Give click commands to add to the `convsdk` command line."""
