"""The commands about the installation: its plugins, configuration, policy and store."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from convsdk.cli.screen import Screen, plain
from convsdk.cli.session import DEFAULT_CONFIG, Session, common_options
from convsdk.core.storage import Store
from convsdk.errors import ConfigError
from convsdk.plugins import Broken, Loaded
from convsdk.scenarios import Verdict, load_scenarios, run_scenario
from convsdk.store import open_store


@click.command
@common_options
def plugins(session: Session) -> None:
    """List plugins with their load times, and what is wrong with broken ones."""
    installed = session.plugins
    records = [*map(_plugin_record, installed.loaded), *map(_plugin_record, installed.broken)]
    session.screen.table(records, ("name", "distribution", "state", "load_time_ms", "brings"), empty="no plugins")
    for one in installed.broken:
        session.screen.say(f"{one.name} ({one.distribution}): {one.reason}: {one.fix}", style="red")


@click.command
@common_options
def check(session: Session) -> None:
    """Check the configuration, and tell all its mistakes at once."""
    file = session.config_file or DEFAULT_CONFIG
    session.config_file = file
    try:
        config = session.config
    except ConfigError as error:
        problems = str(error).splitlines()
        for problem in problems:
            session.screen.say(problem, style="red")
        if session.screen.is_json:
            session.screen.json({"file": str(file), "problems": problems})
        raise click.exceptions.Exit(1) from None
    session.screen.facts(
        {
            "file": str(file),
            "problems": [],
            "workspaces": sorted(config.workspaces),
            "channels": sorted(config.channels),
        }
    )


@click.command
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rounds", type=click.IntRange(min=0), default=10, show_default=True, help="How often items race.")
@common_options
def scenarios(session: Session, file: Path, rounds: int) -> None:
    """Run the identity scenarios in FILE.

    Prints a line for each, and a diff where one fails. Each runs on a fresh store: in memory, or with
    '--store sqlite:' in a file of its own. Another store is used as it is, and should be empty.
    """
    failed = 0
    found = load_scenarios(file)
    for scenario in found:
        with _scenario_store(session) as (store, connect):
            verdict = run_scenario(scenario, store, rounds=rounds, kinds=session.plugins.kinds, connect=connect)
        _tell_verdict(session.screen, verdict)
        failed += not verdict.is_passed
    session.screen.say(f"{len(found)} scenarios, {failed} failed", style="red" if failed else "green")
    if failed:
        raise click.exceptions.Exit(1)


@contextmanager
def _scenario_store(session: Session) -> Iterator[tuple[Store, Callable[[], Store] | None]]:
    with tempfile.TemporaryDirectory() as folder:
        url = session.asked_store or "memory:"
        url = f"sqlite:///{Path(folder, 'scenario.db')}" if url == "sqlite:" else url
        connect = partial(open_store, url, factories=session.plugins.store_factories)
        with closing(connect()) as store:
            yield store, None if url.startswith("memory:") else connect


def _tell_verdict(screen: Screen, verdict: Verdict) -> None:
    if screen.is_json:
        screen.json(plain(verdict) | {"passed": verdict.is_passed})
        return
    state = "ok  " if verdict.is_passed else "FAIL"
    screen.say(f"{state}  {verdict.name}  ({verdict.runs} runs)", style="" if verdict.is_passed else "red")
    for difference in verdict.differences:
        screen.say(f"      {difference}")


@click.command
@click.option("--finish", is_flag=True, help="Also take away what only the release before still needs.")
@common_options
def migrate(session: Session, finish: bool) -> None:
    """Bring the store's schema up to date.

    An upgrade without a break is this, then the new release everywhere, then '--finish'.
    """
    store = session.open(session.store_url)
    facts: dict[str, Any] = {"store": shown_url(session.store_url), "schema": "up to date"}
    if finish:
        facts["finished"] = store.finish_upgrade()
    session.screen.facts(facts)


def shown_url(url: str) -> str:
    """Give a store's URL without the user and password in it, which may also stand behind a question mark."""
    scheme, slashes, rest = url.partition("//")
    return f"{scheme}{slashes}{rest.rpartition('@')[2].partition('?')[0]}" if slashes else url


def _plugin_record(plugin: Loaded | Broken) -> dict[str, Any]:
    told = {"name": plugin.name, "distribution": f"{plugin.distribution} {plugin.version}".strip()}
    load_time_ms = round(plugin.load_time_ms, 1)
    if isinstance(plugin, Broken):
        return told | {"state": "broken", "load_time_ms": load_time_ms, "reason": plugin.reason, "fix": plugin.fix}
    return told | {"state": "loaded", "load_time_ms": load_time_ms, "hooks": plugin.hooks, "brings": plugin.brings}
