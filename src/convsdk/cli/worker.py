"""The command `worker`: what is delivered and told, by itself."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import click
import httpx

from convsdk.cli.session import Session, common_options
from convsdk.delivery import Deliverer
from convsdk.errors import ConfigError
from convsdk.hub import Hub
from convsdk.outbox import Outbox, Target, hook_targets
from convsdk.profiles import profile_targets
from convsdk.webhook import Webhook

_PATIENCE_S = 30.0  # for each step of a request that a channel sends; webhooks have their own


@click.command
@common_options
def worker(session: Session) -> None:
    """Deliver answers, and tell plugins and webhooks what happened, until SIGTERM or SIGINT.

    It also looks up who the people of a channel are, where its platform tells. Those of all workspaces, or of the one
    that --workspace names. 'convsdk serve' does that as well. Of several processes with one store, all deliver and
    one tells; another takes over when it ends.
    """
    asyncio.run(_work(session))


async def _work(session: Session) -> None:
    ending, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ending.set))
    async with working(session) as told:
        if not told:
            raise ConfigError(
                "there is nobody to tell: add [webhooks.NAME], or install a plugin that observes; and no channel sends"
            )
        session.screen.facts(told)
        await ending.wait()


@asynccontextmanager
async def working(session: Session) -> AsyncIterator[dict[str, list[str]]]:
    """Deliver and tell meanwhile, in each workspace; give the names of those who are told, by workspace."""
    told: dict[str, list[str]] = {}
    async with AsyncExitStack() as running:
        client = await running.enter_async_context(httpx.AsyncClient(timeout=_PATIENCE_S))
        for hub in session.hubs(is_silent_too=True):
            names = []
            if targets := _targets(session, hub, client):
                await running.enter_async_context(Outbox(hub, targets))
                names += [one.name for one in targets]
            # It ends before the outbox, which tells of what it did.
            deliverer = Deliverer(hub, client)
            if deliverer.channels:
                await running.enter_async_context(deliverer)
                names += [f"channel/{name}" for name in deliverer.channels]
            if names:
                told[hub.workspace] = names
        yield told


def _targets(session: Session, hub: Hub, client: httpx.AsyncClient) -> list[Target]:
    config = session.config
    webhooks = [
        Target(
            name=f"webhook/{name}",
            tell=Webhook(name, webhook, client=client, workspace=hub.workspace).tell,
            events=webhook.events,
            is_told_all=webhook.start == "beginning",
        )
        for name, webhook in config.webhooks.items()
        if config.webhook_workspaces[name] == hub.workspace
    ]
    return [*hook_targets(session.plugins), *webhooks, *profile_targets(hub, client)]
