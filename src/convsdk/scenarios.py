"""Runs identity scenarios: files that say which hints arrive, and who must be who in the end.

The notation is described in `docs/scenarios.md`. Write your own to pin the policy of a workspace: a scenario runs
against a real store, in every order of arrival where it says so, and with all its items at once where it says so.
"""

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

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
_UNSCOPED = frozenset({"email", "phone", "visitor"})
_REACHES = {
    "own_session": Reach.OWN_SESSION,
    "own_thread": Reach.OWN_THREAD,
    "contact": Reach.CONTACT,
    "contact_minus_unverified": Reach.CONTACT,
}
_CONSENTS = {"pending_confirmation": ConsentState.PENDING} | {state.value: state for state in ConsentState}

# -- the notation


class _Claimed(TypedDict):
    kind: str
    value: str
    trust: Literal["asserted", "agent", "channel", "proven"]


class _GivenHint(TypedDict):
    hint: str
    t: float
    channel: str
    identifiers: list[_Claimed]
    visitor: NotRequired[str | None]
    traits: NotRequired[dict[str, str] | None]
    consent: NotRequired[dict[str, Literal["granted", "denied", "withdrawn"]]]
    may_create: NotRequired[bool]


class _GivenRuling(TypedDict):
    id: str
    t: float
    by: str
    a: str
    b: str
    reason: NotRequired[str]


class _GivenUnmerge(TypedDict):
    t: float
    by: str
    merge: str


class _GivenWithdrawal(TypedDict):
    t: float
    by: str
    hint: str


_OPERATIONS: dict[str, type] = {
    "merge": _GivenRuling,
    "unmerge": _GivenUnmerge,
    "cannot_link": _GivenRuling,
    "revoke_hint": _GivenWithdrawal,
}


class _Config(TypedDict, total=False):
    blocked: list[str]
    own: list[str]
    country: str | None
    component_cap: int
    external_id_cap: int
    visitor_ttl_days: int
    visitor_shared_at: int
    concurrent_rounds: int


class _ExpectedHint(TypedDict, total=False):
    outcome: Outcome
    replay_outcome: Outcome
    attributed_to: str | None
    unusable_kinds: list[str]
    displaces: list[str]
    visitor_may_read: Literal["own_session", "own_thread", "contact", "contact_minus_unverified"]


class _Expected(TypedDict, total=False):
    contacts: list[list[str]]
    unowned: list[str]
    suggestions: list[list[str]] | None
    hints: dict[str, _ExpectedHint]
    shown_traits: dict[str, dict[str, str]]
    permutations: Any
    concurrency: dict[str, Any]


class _Scenario(TypedDict):
    id: str
    given: list[dict[str, Any]]
    then: _Expected
    config: NotRequired[_Config]
    permute: NotRequired[Literal["arrival", "time"]]
    concurrent: NotRequired[bool]


class _File(TypedDict):
    scenarios: list[Any]


def load_scenarios(path: Path) -> list[dict[str, Any]]:
    """Read a scenario file; raise `ConfigError` with the place where it is not one."""
    try:
        scenarios = msgspec.json.decode(path.read_bytes(), type=_File)["scenarios"]
        for number, scenario in enumerate(scenarios):
            _check(scenario, f"scenarios[{number}]")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a file of scenarios") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no scenario file: {error}; see docs/scenarios.md for the notation") from error
    return scenarios


def _check(scenario: Any, place: str) -> None:  # noqa: ANN401  (JSON that has just come in)
    _as(_Scenario, scenario, place)
    place = f"scenario {scenario['id']!r}"
    for number, item in enumerate(scenario["given"]):
        _check_item(item, f"{place}: given[{number}]")
    expected = scenario["then"]
    _require_known(scenario.get("config", {}), _Config.__annotations__, f"{place}: config")
    _require_known(
        [key for key in expected if not key.startswith("consent_")], _Expected.__annotations__, f"{place}: then"
    )
    for hint, words in expected.get("hints", {}).items():
        _require_known([hint], [item["hint"] for item in scenario["given"] if "op" not in item], f"{place}: then.hints")
        _require_known(words, _ExpectedHint.__annotations__, f"{place}: then.hints.{hint}")
    for key in expected:
        if key.startswith("consent_"):
            _require_known(expected[key].values(), _CONSENTS, f"{place}: then.{key}")


def _check_item(item: dict[str, Any], place: str) -> None:
    if "op" not in item:
        _as(_GivenHint, item, place)
        return
    _require_known([item["op"]], _OPERATIONS, f"{place}: op")
    _as(_OPERATIONS[item["op"]], item, place)


def _as(notation: type, value: Any, place: str) -> None:  # noqa: ANN401  (as `_check`)
    try:
        msgspec.convert(value, notation)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{place}: {error}") from error


def _require_known(names: Iterable[Any], known: Collection[str], place: str) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(sorted(known))}"
            raise msgspec.ValidationError(f"{place} has {name!r}: {remedy}")


# -- the runner


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


def run_scenario(
    scenario: dict[str, Any],
    store: Store,
    *,
    rounds: int = 20,
    kinds: Iterable[IdentifierKind] = (),
    connect: Callable[[], Store] | None = None,
) -> Verdict:
    """Run one scenario, as `load_scenarios` gives it, on `store`, each run in a workspace of its own.

    `rounds` is how often a concurrent one, unless it says so itself, runs with all its items at once. `connect` opens
    the same store once more: each of these items then has a connection of its own, and otherwise they share `store`.
    """
    policy = _policy(scenario, kinds)
    rounds = scenario.get("config", {}).get("concurrent_rounds", rounds)
    runs = 0
    plans = [*_plans(scenario), *([None] * rounds if scenario.get("concurrent") else [])]
    for runs, items in enumerate(plans, 1):
        run = _Run(scenario, store, workspace=f"{scenario['id']}/{runs}", policy=policy)
        differences = run.all_at_once(connect) if items is None else run.one_by_one(items)
        if differences:
            order = "all at once" if items is None else " ".join(_name(item) for item in items)
            return Verdict(name=scenario["id"], differences=(f"order: {order}", *differences), runs=runs)
    return Verdict(name=scenario["id"], differences=(), runs=runs)


def read_identifier(text: str, policy: Policy) -> Identifier | None:
    """Give the identifier that is written as `kind:value` or `kind:scope/value`; None for an unusable value."""
    kind, _, value = text.partition(":")
    return policy.canonical(_claim(kind, value, "agent"))


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
    return (scope, rest) if slash and kind not in _UNSCOPED else ("", value)


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

    def __init__(self, scenario: dict[str, Any], store: Store, *, workspace: str, policy: Policy) -> None:
        self._given = scenario["given"]
        self._then = scenario["then"]
        self._hub = Hub(store, workspace=workspace, policy=policy)
        self._decisions: dict[str, list[Decision]] = {}

    def one_by_one(self, items: Sequence[dict[str, Any]]) -> list[str]:
        for item in items:
            self._deliver(self._hub, item)
        return list(self._differences(with_outcomes="permutations" not in self._then))

    def all_at_once(self, connect: Callable[[], Store] | None) -> list[str]:
        start = threading.Barrier(len(self._given))

        def deliver(hub: Hub, item: dict[str, Any]) -> str | None:
            start.wait()
            try:
                self._deliver(hub, item)
            except Exception as error:  # noqa: BLE001  (any error that reaches a caller is the finding)
                return f"{_name(item)}: {error!r} reached the caller"
            return None

        with ExitStack() as stack, ThreadPoolExecutor(len(self._given)) as pool:
            stores = [stack.enter_context(closing(connect())) if connect else self._hub.store for _ in self._given]
            hubs = [Hub(one, workspace=self._hub.workspace, policy=self._hub.policy) for one in stores]
            errors = [error for error in pool.map(deliver, hubs, self._given) if error]
        expected = self._then.get("concurrency", {})
        created = [one for each in self._decisions.values() for one in each if one.outcome is Outcome.CREATED]
        if expected.get("exactly_one_hint_reports_created") and len(created) != 1:
            errors.append(f"created: expected exactly one hint, got {[one.hint for one in created]}")
        return [*errors, *self._differences(with_outcomes=False)]

    def _deliver(self, hub: Hub, item: dict[str, Any]) -> None:
        operation = item.get("op")
        if operation is None:
            self._decisions.setdefault(item["hint"], []).append(hub.resolve(_hint(item)))
        elif operation == "unmerge":
            hub.unmerge(item["merge"], by=item["by"])
        elif operation == "revoke_hint":
            hub.withdraw(item["hint"], by=item["by"])
        else:
            a, b = self._identifier(item["a"]), self._identifier(item["b"])
            reason = item.get("reason", "")
            if operation == "merge":
                hub.merge(a, b, by=item["by"], reason=reason, merge_id=item["id"], at=_at(item))
            else:
                hub.cannot_link(a, b, by=item["by"], reason=reason, ruling_id=item["id"], at=_at(item))

    def _identifier(self, text: str) -> Identifier:
        identifier = read_identifier(text, self._hub.policy)
        if identifier is None:
            raise ConfigError(f"{text!r} is no usable identifier: write kind:value")
        return identifier

    # -- what came out

    def _differences(self, *, with_outcomes: bool) -> Iterator[str]:
        shown = {
            contact.id: sorted(
                [*(str(one.node) for one in contact.identifiers), *(f"visitor:{one}" for one in contact.visitors)]
            )
            for contact in self._hub.contacts(limit=1000)
        }
        owners = {name: contact for contact, names in shown.items() for name in names}
        if "contacts" in self._then:
            yield from _difference("contacts", sorted(map(sorted, self._then["contacts"])), sorted(shown.values()))
        if "unowned" in self._then:
            yield from _difference("unowned", sorted(self._then["unowned"]), self._unowned(owners))
        if self._then.get("suggestions") is not None:
            wanted = sorted(sorted(owners.get(one, one) for one in pair) for pair in self._then["suggestions"])
            found = sorted(sorted(one.contacts) for one in self._hub.suggestions())
            yield from _difference("suggestions", wanted, found)
        for hint, expected in self._then.get("hints", {}).items():
            yield from self._hint_differences(hint, expected, owners, with_outcomes=with_outcomes)
        for name, traits in self._then.get("shown_traits", {}).items():
            contact = self._hub.contact(owners[name]) if name in owners else None
            told = {key: str(value) for key, value in contact.traits.items()} if contact else "nobody"
            yield from _difference(f"traits of {name}", traits, told)
        for key, states in self._then.items():
            if key.startswith("consent_"):
                for name, state in states.items():
                    found_state = self._hub.consent(self._identifier(name), key.removeprefix("consent_"))
                    yield from _difference(f"{key} of {name}", _CONSENTS[state], found_state)

    def _unowned(self, owners: Collection[str]) -> list[str]:
        named: set[str] = set()
        for hint in self._decisions:
            record = self._hub.store.hint(self._hub.workspace, hint)
            if record is not None:
                named.update(str(one) for one in record.evidence.identifiers)
        return sorted(named - {name.partition("#")[0] for name in owners})

    def _hint_differences(
        self, hint: str, expected: dict[str, Any], owners: dict[str, int], *, with_outcomes: bool
    ) -> Iterator[str]:
        decisions = self._decisions.get(hint)
        if not decisions:
            yield f"decision on {hint}: expected, but there is none"
            return
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
            wanted = expected["attributed_to"] and owners.get(expected["attributed_to"], "nobody")
            yield from _difference(f"attribution of {hint}", wanted, self._hub.attribution(hint))
        if "visitor_may_read" in expected:
            access = self._hub.access(hint)
            yield from _difference(f"reach of {hint}", _REACHES[expected["visitor_may_read"]], access.reach)


def _difference(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected}, found {found}"
