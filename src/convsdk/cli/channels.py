"""The commands about channels: which there are, and whether their platforms are set up for them."""

from collections.abc import Iterator

import attrs
import click
import httpx

from convsdk.cli.session import Session, common_options
from convsdk.core.ports import Capabilities, Channel, Check
from convsdk.errors import ConfigError, ConvsdkError, TransientError, UnsupportedError

_ANSWER_S = 20.0


@click.group(invoke_without_command=True)
@common_options
def channels(session: Session) -> None:
    """List the configured channels, and with 'connect' check them at their platforms."""
    context = click.get_current_context()
    if context.invoked_subcommand and any(context.params.values()):
        raise click.UsageError(f"options go behind '{context.invoked_subcommand}': put them there")
    if context.invoked_subcommand:
        return
    config = session.config
    records = [
        {
            "name": one.name,
            "type": one.type,
            "workspace": config.channel_workspaces[one.name],
            "can": _abilities(one.can),
        }
        for one in config.channels.values()
    ]
    session.screen.table(records, ("name", "type", "workspace", "can"), empty="no channels: add [channels.NAME]")


@channels.command
@click.argument("name")
@click.option("--subscribe", is_flag=True, help="First let the platform send its webhooks.")
@click.option("--callback", metavar="URL", default="", help="With --subscribe: at this address, from now on.")
@common_options
def connect(session: Session, name: str, subscribe: bool, callback: str) -> None:
    """Check whether the platform is set up for the channel NAME, or for all channels of the type NAME.

    Tells what is missing and how to mend it, and ends with 1 then: also with --subscribe where that has to be done by
    hand. It sends no message.
    """
    if callback and not subscribe:
        raise click.UsageError("--callback is for --subscribe: add that, or leave this out")
    found = [one for one in session.config.channels.values() if name in {one.name, one.type}]
    if not found:
        known = ", ".join(sorted(session.config.channels)) or "none"
        raise ConfigError(f"no channel {name!r} is configured (there are: {known}): add [channels.{name}]")
    with httpx.Client(timeout=_ANSWER_S, follow_redirects=False) as client:
        checks = [(one, each) for one in found for each in _checked(one, client, callback, is_subscribed=subscribe)]
    records = [
        {
            "channel": channel.name,
            "right": check.is_right,
            "what": check.what,
            "remedy": "" if check.is_right else check.remedy,
        }
        for channel, check in checks
    ]
    session.screen.table(records, ("channel", "right", "what", "remedy"))
    if not all(check.is_right for _, check in checks):
        raise click.exceptions.Exit(1)


def _checked(channel: Channel, client: httpx.Client, callback: str, *, is_subscribed: bool) -> Iterator[Check]:
    if is_subscribed and type(channel).subscribe is Channel.subscribe:
        yield _by_hand(channel, callback)
    elif type(channel).checks is Channel.checks:
        raise UnsupportedError(
            f"channel {channel.name!r} of type {channel.type!r} has nothing to check at a platform: "
            "'convsdk check' checks the configuration"
        )
    for request in channel.subscribe(callback) if is_subscribed else ():
        try:
            channel.interpret(_answer(channel, client, request))
        except ConvsdkError as error:
            yield Check(what="what --subscribe asks for", is_right=False, remedy=str(error))
    yield from channel.judge([_answer(channel, client, request) for request in channel.checks()])


def _by_hand(channel: Channel, callback: str) -> Check:
    where = callback or f"the path /channels/{channel.name} at the host of 'convsdk serve'"
    is_sent = channel.is_webhook and not channel.listens
    remedy = (
        f"set the webhook at the platform, to {where}" if is_sent else "it takes no webhooks: leave --subscribe out"
    )
    return Check(
        what="what --subscribe asks for",
        is_right=False,
        remedy=f"type {channel.type!r} has nothing to subscribe: {remedy}",
    )


def _answer(channel: Channel, client: httpx.Client, request: httpx.Request) -> httpx.Response:
    request.extensions = {"timeout": client.timeout.as_dict()}  # what the client did not make has none
    try:
        return client.send(request)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Without its cause, which has the request and its token.
        raise TransientError(
            f"channel {channel.name!r}: {request.url.host} gave no answer ({type(error).__name__}): try again"
        ) from None


def _abilities(can: Capabilities) -> list[str]:
    return [one.name for one in attrs.fields(Capabilities) if getattr(can, one.name) is True]
