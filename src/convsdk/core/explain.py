"""Why are these one person, and why are those not? In plain sentences, from what is on record."""

from collections.abc import Iterable

from convsdk.core.model import Outcome, Rule, RulingKind, Step, Trust
from convsdk.core.storage import ContactRecord, HintRecord, NamedTogether, RulingRecord

_TRUST = {
    Trust.ASSERTED: "only claimed",
    Trust.AGENT: "entered by staff",
    Trust.CHANNEL: "attested by the platform",
    Trust.PROVEN: "proven",
    None: "named",
}
_STEP = {
    Rule.UNUSABLE: "the {subject} was discarded: no usable value",
    Rule.ANCHOR: "it was about {subject}",
    Rule.LINK: "{subject} and {other} were attested together, so they are one person",
    Rule.NOTE: "{other} was only typed, so it is a note and no key",
    Rule.ROLE: "{other} is a role mailbox, which is never evidence about one person",
    Rule.EPOCH: "{subject} had changed hands, so what came before stays with its earlier holder",
    Rule.NO_CREATE: "nobody holds {subject}, and this channel makes no contact by itself",
    Rule.DISPLACED: "stronger evidence took apart {subject} and {other}",
    Rule.ONE_ACCOUNT: "{subject} and {other} stay apart: a contact has one account of a namespace",
    Rule.CANNOT_LINK: "{subject} and {other} stay apart: staff said that they are two people",
    Rule.CAP: "{subject} and {other} stay apart: the contact has reached its cap of identifiers",
    Rule.BOTH_ESTABLISHED: "{subject} and {other} stay apart: both are established, so staff must confirm a merge",
}


def sentence(step: Step) -> str:
    """Give what a rule did, as a sentence."""
    if step.other == "mixed scripts":
        return f"{step.subject} mixes letters of several scripts and may imitate another address"
    return _STEP[step.rule].format(subject=step.subject, other=step.other)


def sentences(
    record: ContactRecord,
    hints: Iterable[HintRecord],
    rulings: Iterable[RulingRecord],
    apart: Iterable[NamedTogether],
) -> list[str]:
    """Give the story of one contact: what it holds and how well, what joined it, what was refused."""
    told = [f"{held.node} is {_TRUST[held.trust]}" for held in record.holdings]
    told = told or [f"contact {record.id} holds nothing now: the evidence for it was taken back"]
    for hint in hints:
        told += _of_hint(hint)
    for one in rulings:
        verb = "merged" if one.ruling.kind is RulingKind.MERGE else "kept apart"
        taken_back = ", since taken back" if one.is_withdrawn else ""
        because = f" ({one.ruling.reason})" if one.ruling.reason else ""
        told.append(f"{one.ruling.by} {verb} {one.ruling.a} and {one.ruling.b}{because}{taken_back} [{one.ruling.id}]")
    for pair in apart:
        if None not in pair.contacts:
            told.append(
                f"{pair.a} and {pair.b} were named together ({_TRUST[pair.trust]}), but are not joined [{pair.source}]"
            )
    return told


def _of_hint(hint: HintRecord) -> list[str]:
    is_plain = hint.decision.outcome is Outcome.ATTACHED and len(hint.decision.steps) == 1
    if is_plain and not hint.decision.suggested and not hint.is_withdrawn:
        return []
    steps = [*hint.decision.steps, *hint.decision.refused]
    taken_back = ", since taken back" if hint.is_withdrawn else ""
    source = f"{hint.how or 'hint'} {hint.evidence.hint}"
    return [f"{source}{taken_back}: {hint.decision.outcome.value}; {'; '.join(map(sentence, steps))}"]
