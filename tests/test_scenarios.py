import json
from contextlib import closing
from pathlib import Path

import pytest
from servers import STORES, fresh_store

from convsdk.core.identifiers import Opaque
from convsdk.errors import ConfigError
from convsdk.scenarios import Verdict, load_scenarios, run_scenario
from convsdk.store import open_store

SCENARIOS = load_scenarios(Path(__file__).parent / "scenarios" / "identity_core.json")


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Open a store of each kind that ships."""
    store = open_store(fresh_store(request.param, tmp_path))
    yield store
    store.close()


def hint(name="h1", t=0, email=None, trust="proven", **rest):
    """Build a hint of a scenario."""
    claims = [{"kind": "email", "value": email, "trust": trust}] if email else []
    return {"hint": name, "t": t, "channel": "test", "identifiers": claims} | rest


def claim(kind, value, trust="proven"):
    """Build one identifier of a hint."""
    return {"kind": kind, "value": value, "trust": trust}


def scenario(*given, then=None, **rest):
    """Build a scenario."""
    return {"id": "s", "given": list(given), "then": then or {}} | rest


def differences(*given, then, **rest):
    """Run a scenario in memory, and give what is otherwise than it says."""
    return run_scenario(scenario(*given, then=then, **rest), open_store("memory:")).differences


@pytest.mark.parametrize("one", SCENARIOS, ids=[one["id"] for one in SCENARIOS])
def test_scenario_holds(one, store):
    """Whoever must be one person in the end is one person, and nobody else."""
    verdict = run_scenario(one, store)

    assert verdict.differences == ()


def test_holding_scenario_counts_its_orders():
    """A scenario that holds took one run for each order of arrival."""
    given = [hint("h1", 0, "a@x.example"), hint("h2", 1, "b@x.example"), hint("h3", 2, "c@x.example")]

    verdict = run_scenario(scenario(*given, permute="arrival"), open_store("memory:"))

    assert verdict == Verdict(name="s", differences=(), runs=6)
    assert verdict.is_passed


def test_scenario_that_fails_says_in_which_order():
    """The first order of arrival that gives something else ends the scenario and is named."""
    given = [hint("h1", 0, "ann@x.example"), hint("h2", 1, "ann@x.example")]

    verdict = run_scenario(
        scenario(*given, permute="arrival", then={"hints": {"h1": {"outcome": "created"}}}), open_store("memory:")
    )

    assert verdict.differences == ("order: h2 h1", "outcome of h1: expected created, found attached")
    assert (verdict.runs, verdict.is_passed) == (2, False)


def test_times_are_permuted():
    """`permute: time` deals the event times anew and keeps the order of delivery."""
    given = [hint("h1", 0, "ann@x.example", traits={"name": "A"}), hint("h2", 1, "ann@x.example", traits={"name": "B"})]

    verdict = run_scenario(
        scenario(*given, permute="time", then={"shown_traits": {"email:ann@x.example": {"name": "B"}}}),
        open_store("memory:"),
    )

    assert verdict.differences == (
        "order: h1 h2",
        "traits of email:ann@x.example: expected {'name': 'B'}, found {'name': 'A'}",
    )
    assert verdict.runs == 3


def test_wrong_contacts_are_a_difference():
    """A partition that the scenario does not expect is shown beside the one that it does."""
    found = differences(hint(email="ann@x.example"), then={"contacts": []})

    assert found == ("order: h1", "contacts: expected [], found [['email:ann@x.example']]")


def test_wrong_unowned_is_a_difference():
    """An identifier on nobody is told where the scenario expects none."""
    given = hint(identifiers=[claim("email", "ann@x.example"), claim("phone", "+4930123456", "asserted")])

    found = differences(given, then={"unowned": []})

    assert found == ("order: h1", "unowned: expected [], found ['phone:+4930123456']")


def test_wrong_suggestions_are_a_difference():
    """A suggestion that does not come is missed."""
    given = [hint("h1", 0, "ann@x.example"), hint("h2", 1, "bob@x.example")]

    found = differences(*given, then={"suggestions": [["email:bob@x.example", "email:ann@x.example"]]})

    assert len(found) == 2
    assert found[1].startswith("suggestions: expected [[")
    assert found[1].endswith("]], found []")


@pytest.mark.parametrize(
    ("expected", "difference"),
    [
        ({"outcome": "attached"}, "outcome of h1: expected attached, found created"),
        ({"replay_outcome": "duplicate"}, "replay of h1: expected duplicate, found created"),
        ({"unusable_kinds": ["phone"]}, "unusable in h1: expected ['phone'], found []"),
        ({"displaces": ["h0"]}, "displaced by h1: expected ['h0'], found []"),
        ({"attributed_to": "email:nobody@x.example"}, "attribution of h1: expected nobody, found 2"),
        ({"visitor_may_read": "own_thread"}, "reach of h1: expected Reach.OWN_THREAD, found Reach.CONTACT"),
    ],
)
def test_wrong_word_on_a_hint_is_a_difference(expected, difference):
    """Everything that a scenario can say about a hint is checked."""
    found = differences(hint(email="ann@x.example"), then={"hints": {"h1": expected}})

    assert found == ("order: h1", difference)


def test_right_words_on_a_hint_are_no_difference():
    """What is as the scenario says is not told."""
    expected = {
        "outcome": "created",
        "replay_outcome": "duplicate",
        "unusable_kinds": ["phone"],
        "displaces": [],
        "attributed_to": "email:ann@x.example",
        "visitor_may_read": "contact_minus_unverified",
    }
    one = hint(identifiers=[claim("email", "ann@x.example"), claim("phone", "null")])

    found = differences(one, one, then={"hints": {"h1": expected}})

    assert found == ()


def test_outcomes_are_not_compared_where_orders_differ():
    """A scenario that describes its permutations leaves the outcomes of single hints open."""
    then = {"permutations": "any", "hints": {"h1": {"outcome": "merged"}}}

    found = differences(hint(email="ann@x.example"), then=then)

    assert found == ()


def test_traits_of_nobody_are_a_difference():
    """A profile that nobody has is told as such."""
    found = differences(hint(email="ann@x.example"), then={"shown_traits": {"email:bob@x.example": {"name": "Bob"}}})

    assert found == ("order: h1", "traits of email:bob@x.example: expected {'name': 'Bob'}, found nobody")


def test_wrong_consent_is_a_difference():
    """What a purpose's consent should be is compared with what it is."""
    given = hint(email="ann@x.example", trust="asserted", consent={"marketing": "granted"})

    found = differences(given, then={"consent_marketing": {"email:ann@x.example": "granted"}})

    assert found == (
        "order: h1",
        "consent_marketing of email:ann@x.example: expected ConsentState.GRANTED, found ConsentState.PENDING",
    )


def test_withdrawn_consent_is_told_from_a_refused_one():
    """`withdrawn` and `denied` arrive as what they are, and only e-mail addresses carry them."""
    given = [
        hint("h1", 0, "ann@x.example", consent={"marketing": "granted"}),
        hint("h2", 1, "ann@x.example", consent={"marketing": "withdrawn"}),
        hint("h3", 2, "bob@x.example", consent={"marketing": "denied"}),
    ]
    then = {"consent_marketing": {"email:ann@x.example": "withdrawn", "email:bob@x.example": "denied"}}

    found = differences(*given, then=then)

    assert found == ()


def test_agent_trait_goes_before_a_proven_one():
    """Traits of a hint that staff took part in count as entered by staff."""
    both = [claim("email", "ann@x.example"), claim("phone", "+4930123456", "agent")]
    given = [
        hint("h1", 0, identifiers=both, traits={"name": "A"}),
        hint("h2", 1, "ann@x.example", traits={"name": "B"}),
    ]

    found = differences(*given, then={"shown_traits": {"email:ann@x.example": {"name": "A"}}})

    assert found == ()


def test_staff_operations_are_run():
    """Merges, their undoing, cannot-links and withdrawn hints all take place."""
    ann, bob = "email:ann@x.example", "email:bob@x.example"
    given = [
        hint("h1", 0, "ann@x.example"),
        hint("h2", 0, "bob@x.example"),
        hint("h3", 1, "eve@x.example"),
        {"op": "merge", "id": "m1", "t": 2, "a": ann, "b": bob, "by": "kim", "reason": "same"},
        {"op": "unmerge", "t": 3, "merge": "m1", "by": "kim", "id": "u1"},
        {"op": "cannot_link", "id": "c1", "t": 4, "a": ann, "b": bob, "by": "kim"},
        {"op": "merge", "id": "m2", "t": 5, "a": ann, "b": bob, "by": "kim"},
        {"op": "revoke_hint", "t": 6, "hint": "h3", "by": "kim"},
    ]

    found = differences(*given, then={"contacts": [[ann], [bob]], "unowned": ["email:eve@x.example"]})

    assert found == ()


def test_merge_of_a_scenario_joins():
    """After a merge the two identifiers are one contact."""
    ann, bob = "email:ann@x.example", "email:bob@x.example"
    given = [
        hint("h1", 0, "ann@x.example"),
        hint("h2", 0, "bob@x.example"),
        {"op": "merge", "id": "m1", "t": 2, "a": ann, "b": bob, "by": "kim"},
    ]

    found = differences(*given, then={"contacts": [[bob, ann]], "suggestions": []})

    assert found == ()


def test_unusable_identifier_in_an_operation_is_refused():
    """An operation on what identifies nobody is a mistake of the scenario."""
    given = {"op": "merge", "id": "m", "t": 0, "a": "email:null", "b": "email:b@x.example", "by": "kim"}

    with pytest.raises(ConfigError, match=r"'email:null' is no usable identifier: write kind:value"):
        differences(given, then={})


def test_scopes_are_split_off_ids_only():
    """`page1/p-9` is a scoped id, but a slash in an address is its own."""
    given = hint(identifiers=[claim("messenger_psid", "page1/p-9"), claim("email", "a/b@x.example")])

    found = differences(given, then={"contacts": [["email:a/b@x.example", "messenger_psid:page1/p-9"]]})

    assert found == ()


def test_given_kind_is_used():
    """A plugin's kind decides about its values; one that nobody brings is an opaque id."""

    class Badge(Opaque):
        def canonical(self, value, *, country=None):
            return value.upper()

    given = scenario(
        hint(identifiers=[claim("badge", "b-9"), claim("tag", "t-9")]), then={"contacts": [["badge:B-9", "tag:t-9"]]}
    )

    verdict = run_scenario(given, open_store("memory:"), kinds=[Badge("badge")])

    assert verdict.differences == ()


@pytest.mark.parametrize(
    ("config", "contacts"),
    [
        ({}, [["email:ann@x.example", "external_id:u1", "phone:+4930123456"], ["external_id:u2"]]),
        ({"external_id_cap": 2}, [["email:ann@x.example", "external_id:u1", "external_id:u2", "phone:+4930123456"]]),
        (
            {"component_cap": 1},
            [["email:ann@x.example"], ["external_id:u1"], ["external_id:u2"], ["phone:+4930123456"]],
        ),
        ({"blocked": ["u2"]}, [["email:ann@x.example", "external_id:u1", "phone:+4930123456"]]),
        ({"own": ["ann@x.example"]}, [["external_id:u1"], ["external_id:u2"], ["phone:+4930123456"]]),
    ],
)
def test_config_sets_the_policy(config, contacts):
    """The caps and the discarded values of a scenario are those of its workspace."""
    given = [
        hint("h1", 0, identifiers=[claim("external_id", "u1"), claim("email", "ann@x.example")]),
        hint("h2", 1, identifiers=[claim("phone", "+4930123456"), claim("email", "ann@x.example")]),
        hint("h3", 2, identifiers=[claim("external_id", "u2")]),
        {"op": "merge", "id": "m", "t": 3, "a": "external_id:u1", "b": "external_id:u2", "by": "kim"},
    ]
    usable = [one for one in given if "u2" not in json.dumps(one)] if "blocked" in config else given

    found = differences(*usable, then={"contacts": contacts}, config=config)

    assert found == ()


def test_config_sets_the_country():
    """A national number is read in the country of the scenario."""
    given = hint(identifiers=[claim("phone", "030 123456")])

    found = differences(given, then={"contacts": [["phone:+4930123456"]]}, config={"country": "DE"})

    assert found == ()


@pytest.mark.parametrize(
    ("config", "attributed_to"),
    [
        ({}, "email:ann@x.example"),
        ({"visitor_ttl_days": 4}, None),
        ({"visitor_ttl_days": 5}, "email:ann@x.example"),
        ({"visitor_shared_at": 1}, None),
    ],
)
def test_config_sets_the_life_of_a_cookie(config, attributed_to):
    """How long a silent cookie lives, and with how many contacts it is shared, comes from the scenario."""
    given = [hint("h1", 0, "ann@x.example", visitor="v1"), hint("h2", 5, visitor="v1")]

    found = differences(*given, then={"hints": {"h2": {"attributed_to": attributed_to}}}, config=config)

    assert found == ()


def test_concurrent_scenario_runs_as_often_as_asked(store):
    """All items arrive at once, in as many rounds as the caller wants, after one run in order."""
    given = [hint(f"h{number}", number, "ann@x.example") for number in range(3)]
    then = {"contacts": [["email:ann@x.example"]], "concurrency": {"exactly_one_hint_reports_created": True}}

    verdict = run_scenario(scenario(*given, then=then, concurrent=True), store, rounds=2)

    assert verdict == Verdict(name="s", differences=(), runs=3)


@pytest.mark.parametrize("kind", STORES[1:])
def test_concurrent_scenario_has_a_connection_for_each_item(kind, tmp_path):
    """Where the store can be opened again, each item of a concurrent run comes over a connection of its own."""
    url = fresh_store(kind, tmp_path)
    opened = []

    def connect():
        opened.append(open_store(url))
        return opened[-1]

    given = [hint(f"h{number}", number, "ann@x.example") for number in range(3)]
    one = scenario(*given, then={"contacts": [["email:ann@x.example"]]}, concurrent=True)
    with closing(open_store(url)) as store:
        verdict = run_scenario(one | {"config": {"concurrent_rounds": 4}}, store, connect=connect)

    assert verdict == Verdict(name="s", differences=(), runs=5)
    assert len(set(map(id, opened))) == 4 * 3


def test_second_contact_in_a_concurrent_run_is_a_difference():
    """Where exactly one hint may create, two that do are told by name."""
    given = [hint("h1", 0, "ann@x.example"), hint("h2", 0, "bob@x.example")]
    then = {"concurrency": {"exactly_one_hint_reports_created": True}}

    verdict = run_scenario(scenario(*given, then=then, concurrent=True), open_store("memory:"), rounds=5)

    assert verdict.runs == 2
    assert verdict.differences[0] == "order: all at once"
    assert verdict.differences[1].startswith("created: expected exactly one hint, got ['h")


def test_error_in_a_concurrent_run_is_a_difference():
    """An error that reaches a caller of a concurrent run is a finding and not a crash."""

    class Failing(Opaque):
        calls = 0

        def canonical(self, value, *, country=None):
            type(self).calls += 1
            if self.calls > 2:
                raise OSError("full")
            return value

    given = [hint("h1", 0, identifiers=[claim("x", "1")]), hint("h2", 0, identifiers=[claim("x", "2")])]

    one = scenario(*given, then={"hints": {"h1": {"outcome": "created"}}}, concurrent=True)

    verdict = run_scenario(one, open_store("memory:"), rounds=1, kinds=[Failing("x")])

    assert verdict.differences == (
        "order: all at once",
        "h1: OSError('full') reached the caller",
        "h2: OSError('full') reached the caller",
        "decision on h1: expected, but there is none",
    )


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (scenario(hint(), config={"contry": "DE"}), "scenario 's': config has 'contry': did you mean 'country'?"),
        (scenario(hint(), then={"contcts": []}), "scenario 's': then has 'contcts': did you mean 'contacts'?"),
        (scenario(hint(), then={"hints": {"h1": {"outcom": "created"}}}), "then.hints.h1 has 'outcom': did you mean"),
        (scenario(hint(), then={"hints": {"h9": {}}}), "then.hints has 'h9': use one of h1"),
        (scenario(hint(), then={"hints": {"h1": {"outcome": "made"}}}), "Invalid enum value 'made'"),
        (scenario(hint(), then={"consent_news": {"email:a@x.example": "yes"}}), "then.consent_news has 'yes': use one"),
        (scenario({"hint": "h1", "t": 0}), "scenario 's': given[0]: Object missing required field `channel`"),
        (scenario(hint(identifiers=[claim("email", "a@x.example", "sure")])), "given[0]: Invalid enum value 'sure'"),
        (scenario({"op": "split", "id": "x", "t": 0}), "given[0]: op has 'split': use one of cannot_link, merge"),
        (scenario({"op": "merge", "id": "x", "t": 0, "by": "kim"}), "given[0]: Object missing required field `a`"),
        (scenario(hint(), permute="all"), "scenarios[0]: Invalid enum value 'all' - at `$.permute`"),
    ],
)
def test_mistake_in_a_scenario_is_told_with_its_place(wrong, problem, tmp_path):
    """What the notation does not know is refused, since a misspelt check would hold whatever happens."""
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"scenarios": [wrong]}), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load_scenarios(path)

    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "\x00garbage",
        "[]",
        "null",
        "{}",
        '{"scenarios": 1}',
        '{"scenarios": [1]}',
        '{"scenarios": [{"id": "a"}]}',
        '{"scenarios": [{"id": "a", "given": []}]}',
        '{"scenarios": [{"id": "a", "given": [], "then": {}, "config": 1}]}',
    ],
)
def test_garbage_is_no_scenario_file(text, tmp_path):
    """What is not made of scenarios is refused with its path."""
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load_scenarios(path)

    assert str(caught.value).startswith(f"{path} is no scenario file: ")
    assert str(caught.value).endswith("; see docs/scenarios.md for the notation")


def test_missing_file_is_no_scenario_file(tmp_path):
    """A file that is not there is an error of the caller's configuration."""
    with pytest.raises(ConfigError, match=r"missing\.json cannot be read \(No such file or directory\)"):
        load_scenarios(tmp_path / "missing.json")
