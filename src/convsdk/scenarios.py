"""Runs identity scenarios: files that say which hints arrive, and who must be who in the end.

The notation is described in `docs/scenarios.md`. Write your own to pin the policy of a workspace: a scenario runs
against a real store, in every order of arrival where it says so, and with all its items at once where it says so.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve, frozen

from convsdk.core.consent import ConsentState
from convsdk.core.fold import Policy
from convsdk.core.identifiers import IdentifierKind, Kinds, MessagingId
from convsdk.core.model import Claim, ConsentSignal, Decision, Identifier, IdentityHint, Outcome, Trait, Trust
from convsdk.core.profile import Reach
from convsdk.core.storage import Store
from convsdk.errors import ConfigError
from convsdk.hub import Hub

_DAY_ZERO = datetime(2026, 1, 1, tzinfo=UTC)
_CONFIG_KEYS = {
    "blocked",
    "own",
    "country",
    "component_cap",
    "external_id_cap",
    "visitor_ttl_days",
    "visitor_shared_at",
    "concurrent_rounds",
}
_REACHES = {
    "own_session": Reach.OWN_SESSION,
    "own_thread": Reach.OWN_THREAD,
    "contact": Reach.CONTACT,
    "contact_minus_unverified": Reach.CONTACT,
}
_CONSENTS = {"pending_confirmation": ConsentState.PENDING} | {state.value: state for state in ConsentState}


@frozen(kw_only=True)
class Verdict:
    """What became of one scenario: the differences found (none: it holds), and how many runs it took."""

    name: str
    differences: tuple[str, ...]
    runs: int

    @property
    def is_passed(self) -> bool:
        """Say whether everything was as the scenario says."""
        return not self.differences


def load_scenarios(path: Path) -> list[dict[str, Any]]:
    """Read a scenario file; raise `ConfigError` with the place where it is not one."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        scenarios = document["scenarios"]
        for scenario in scenarios:
            scenario["id"], scenario["given"], scenario["then"]
            if unknown := set(scenario.get("config", {})) - _CONFIG_KEYS:
                raise ConfigError(
                    f"{path}: scenario {scenario['id']!r} sets {', '.join(sorted(unknown))}: "
                    f"use only {', '.join(sorted(_CONFIG_KEYS))}"
                )
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no scenario file: {error!r}; see docs/scenarios.md for the notation") from error
    return list(scenarios)


def run_scenario(
    scenario: dict[str, Any], store: Store, *, rounds: int = 20, kinds: Iterable[IdentifierKind] = ()
) -> Verdict:
    """Run one scenario on `store`, each run in a workspace of its own; `rounds` is how often a concurrent one runs."""
    policy = _policy(scenario, kinds)
    runs = 0
    plans = [*_plans(scenario), *([None] * rounds if scenario.get("concurrent") else [])]
    for runs, items in enumerate(plans, 1):
        hub = Hub(store, workspace=f"{scenario['id']}/{runs}", policy=policy)
        run = _Run(hub, scenario)
        differences = run.concurrently(scenario["given"]) if items is None else run.one_by_one(items)
        if differences:
            order = "all at once" if items is None else " ".join(_name(item) for item in items)
            return Verdict(name=scenario["id"], differences=(f"order: {order}", *differences), runs=runs)
    return Verdict(name=scenario["id"], differences=(), runs=runs)


def _plans(scenario: dict[str, Any]) -> Iterator[Sequence[dict[str, Any]]]:
    given = scenario["given"]
    yield given
    if scenario.get("permute") == "arrival":
        yield from itertools.islice(itertools.permutations(given), 1, None)
    if scenario.get("permute") == "time":
        for times in itertools.permutations(item["t"] for item in given):
            yield [item | {"t": t} for item, t in zip(given, times, strict=True)]


def _policy(scenario: dict[str, Any], kinds: Iterable[IdentifierKind]) -> Policy:
    known = Kinds(kinds)
    claimed = {claim["kind"] for item in scenario["given"] for claim in item.get("identifiers", ())}
    # A kind that no installed plugin brings is taken for a messaging platform's id.
    unknown = [MessagingId(kind) for kind in sorted(claimed) if kind not in known]
    config = scenario.get("config", {})
    policy = Policy(kinds=Kinds((*kinds, *unknown)))
    settings: dict[str, Any] = {
        key: config[key] for key in ("country", "component_cap", "external_id_cap") if key in config
    }
    settings |= {key: frozenset(config[key]) for key in ("blocked", "own") if key in config}
    if "visitor_ttl_days" in config:
        settings["visitor_ttl"] = timedelta(days=config["visitor_ttl_days"])
    if "visitor_shared_at" in config:
        settings["visitor_shared_at"] = config["visitor_shared_at"]
    return evolve(policy, **settings)


def _name(item: dict[str, Any]) -> str:
    return str(item.get("id") or item["hint"])


def _at(item: dict[str, Any]) -> datetime:
    return _DAY_ZERO + timedelta(days=item["t"])


def _scoped(kind: str, value: str) -> tuple[str, str]:
    """Split `page1/p-9` into scope and value, for kinds that are unique inside a scope only."""
    scope, slash, rest = value.partition("/")
    return (scope, rest) if slash and kind not in {"email", "phone", "visitor"} else ("", value)


def _claim(kind: str, value: str, trust: str) -> Claim:
    scope, value = _scoped(kind, value)
    return Claim(kind, value, Trust[trust.upper()], scope)


def _hint(item: dict[str, Any]) -> IdentityHint:
    claims = tuple(_claim(one["kind"], one["value"], one["trust"]) for one in item["identifiers"])
    trusts = [claim.trust for claim in claims] or [Trust.ASSERTED]
    trait_trust = Trust.AGENT if Trust.AGENT in trusts else max(trusts)
    return IdentityHint(
        id=item["hint"],
        at=_at(item),
        identifiers=claims,
        visitor=item.get("visitor"),
        traits=tuple(Trait(name, value, trait_trust) for name, value in (item.get("traits") or {}).items()),
        consents=tuple(
            ConsentSignal(claim=claim, purpose=purpose, granted=state == "granted", withdrawn=state == "withdrawn")
            for purpose, state in item.get("consent", {}).items()
            for claim in claims
            if claim.kind == "email"
        ),
        may_create=item.get("may_create", True),
        how=item["channel"].replace("_", " "),
    )


class _Run:
    """One run of a scenario in one workspace."""

    def __init__(self, hub: Hub, scenario: dict[str, Any]) -> None:
        self._hub = hub
        self._then = scenario["then"]
        self._decisions: dict[str, list[Decision]] = {}

    def one_by_one(self, items: Sequence[dict[str, Any]]) -> list[str]:
        for item in items:
            self._deliver(item)
        return list(self._differences(with_outcomes="permutations" not in self._then))

    def concurrently(self, items: Sequence[dict[str, Any]]) -> list[str]:
        start = threading.Barrier(len(items))

        def deliver(item: dict[str, Any]) -> str | None:
            start.wait()
            try:
                self._deliver(item)
            except Exception as error:  # noqa: BLE001  (any error that reaches a caller is the finding)
                return f"{_name(item)}: {error!r} reached the caller"
            return None

        with ThreadPoolExecutor(len(items)) as pool:
            errors = [error for error in pool.map(deliver, items) if error]
        expected = self._then.get("concurrency", {})
        created = [one for each in self._decisions.values() for one in each if one.outcome is Outcome.CREATED]
        if expected.get("exactly_one_hint_reports_created") and len(created) != 1:
            errors.append(f"created: expected exactly one hint, got {[one.hint for one in created]}")
        return [*errors, *self._differences(with_outcomes=False)]

    def _deliver(self, item: dict[str, Any]) -> None:
        operation = item.get("op")
        if operation is None:
            decision = self._hub.resolve(_hint(item))
            self._decisions.setdefault(item["hint"], []).append(decision)
        elif operation == "merge":
            self._hub.merge(
                self._identifier(item["a"]),
                self._identifier(item["b"]),
                by=item["by"],
                reason=item.get("reason", ""),
                merge_id=item["id"],
                at=_at(item),
            )
        elif operation == "cannot_link":
            a, b = self._identifier(item["a"]), self._identifier(item["b"])
            self._hub.cannot_link(a, b, by=item["by"], ruling_id=item["id"], at=_at(item))
        elif operation == "unmerge":
            self._hub.unmerge(item["merge"], by=item["by"])
        elif operation == "revoke_hint":
            self._hub.withdraw(item["hint"], by=item["by"])
        else:
            raise ConfigError(f"unknown operation {operation!r}: use merge, unmerge, cannot_link or revoke_hint")

    def _identifier(self, text: str) -> Identifier:
        kind, _, value = text.partition(":")
        identifier = self._hub.policy.canonical(_claim(kind, value, "agent"))
        if identifier is None:
            raise ConfigError(f"{text!r} is no usable identifier: write kind:value")
        return identifier

    # -- what came out

    def _differences(self, *, with_outcomes: bool) -> Iterator[str]:
        contacts = list(self._hub.contacts(limit=1000))
        shown = {
            contact.id: sorted(
                [*(str(one.node) for one in contact.identifiers), *(f"visitor:{one}" for one in contact.visitors)]
            )
            for contact in contacts
        }
        self._owners = {name: contact for contact, names in shown.items() for name in names}
        if "contacts" in self._then:
            yield from _difference("contacts", sorted(map(sorted, self._then["contacts"])), sorted(shown.values()))
        if "unowned" in self._then:
            yield from _difference("unowned", sorted(self._then["unowned"]), self._unowned())
        if self._then.get("suggestions") is not None:
            wanted = sorted(sorted(self._owners.get(one, one) for one in pair) for pair in self._then["suggestions"])
            found = sorted(sorted(one.contacts) for one in self._hub.suggestions())
            yield from _difference("suggestions", wanted, found)
        for hint, expected in self._then.get("hints", {}).items():
            yield from self._hint_differences(hint, expected, with_outcomes=with_outcomes)
        for name, traits in self._then.get("shown_traits", {}).items():
            contact = self._hub.contact(self._owners[name])
            yield from _difference(
                f"traits of {name}", traits, {key: str(value) for key, value in contact.traits.items()}
            )
        for key, states in self._then.items():
            if key.startswith("consent_"):
                for name, state in states.items():
                    found_state = self._hub.consent(self._identifier(name), key.removeprefix("consent_"))
                    yield from _difference(f"{key} of {name}", _CONSENTS[state], found_state)

    def _unowned(self) -> list[str]:
        named: set[str] = set()
        for hint in self._decisions:
            record = self._hub.store.hint(self._hub.workspace, hint)
            if record is not None:
                named.update(str(one) for one in record.evidence.identifiers)
        return sorted(named - {name.partition("#")[0] for name in self._owners})

    def _hint_differences(self, hint: str, expected: dict[str, Any], *, with_outcomes: bool) -> Iterator[str]:
        decisions = self._decisions[hint]
        if with_outcomes and "outcome" in expected:
            yield from _difference(f"outcome of {hint}", expected["outcome"], decisions[0].outcome.value)
        if "replay_outcome" in expected:
            yield from _difference(f"replay of {hint}", expected["replay_outcome"], decisions[-1].outcome.value)
        if "unusable_kinds" in expected:
            yield from _difference(
                f"unusable in {hint}", sorted(expected["unusable_kinds"]), sorted(decisions[0].unusable)
            )
        if "displaces" in expected:
            yield from _difference(f"displaced by {hint}", expected["displaces"], list(decisions[0].displaced))
        if "attributed_to" in expected:
            wanted = expected["attributed_to"] and self._owners.get(expected["attributed_to"], "nobody")
            yield from _difference(f"attribution of {hint}", wanted, self._hub.attribution(hint))
        if "visitor_may_read" in expected:
            access = self._hub.access(hint)
            yield from _difference(f"reach of {hint}", _REACHES[expected["visitor_may_read"]], access.reach)


def _difference(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected}, found {found}"
