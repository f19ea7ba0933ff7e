"""The blocks that convsdk brings for a bot automation."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from attrs import field, frozen
from attrs.validators import in_, instance_of, optional

from convsdk.core.flow import (
    Block,
    End,
    Enter,
    Flow,
    Given,
    Go,
    HandOver,
    Learn,
    Remember,
    Say,
    Step,
    Visit,
    Wait,
    is_plain,
    is_text,
    is_trait,
)
from convsdk.core.forms import FIELDS
from convsdk.core.hours import OfficeHours

_LONGEST = 255


def _is_text_if_any(instance: object, attribute: Any, value: str) -> None:  # noqa: ANN401  (as for `is_text`)
    if value != "":
        is_text(instance, attribute, value)


@frozen(kw_only=True)
class SayBlock(Block):
    """Says `text`."""

    type = "say"

    text: str = field(validator=is_text)

    def enter(self, visit: Visit) -> Iterator[Step]:  # noqa: ARG002  (every block is told)
        yield Say(self.text)


@frozen(kw_only=True)
class FormBlock(Block):
    """Asks with `text` for the form `form`; skipped where the visitor proved who they are and nothing is missing."""

    type = "form"
    waits_for = "form"

    form: str = field(validator=is_text)
    text: str = field(validator=is_text)

    def enter(self, visit: Visit) -> Iterator[Step]:
        form = visit.flow.form(self.form)
        known = self._known(visit)
        if (
            form
            and visit.facts.is_proven
            and all(known.get(name) for name in FIELDS if form.presence(name) == "required")
        ):
            return
        yield self._prompt(visit)
        yield Wait()

    def answer(self, given: Given, visit: Visit) -> Iterator[Step]:
        if given.kind == "form":
            return
        if not visit.tries:
            yield self._prompt(visit)
        yield Wait()

    def check(self, flow: Flow) -> Iterator[str]:
        if flow.form(self.form) is None:
            known = " or ".join(flow.forms)
            yield f"there is no form {self.form!r}: add it to the channel's forms, or take {known}"

    def _prompt(self, visit: Visit) -> Say:
        known = self._known(visit)
        return Say(self.text, {"form": self.form} | ({"known": known} if known else {}))

    def _known(self, visit: Visit) -> dict[str, str]:
        form = visit.flow.form(self.form)
        if form is None or not visit.facts.is_proven:
            return {}
        return {
            name: visit.facts.known[name]
            for name in FIELDS
            if form.presence(name) != "removed" and visit.facts.known.get(name)
        }


@frozen(kw_only=True)
class AskBlock(Block):
    """Asks `text`; the answer becomes the trait `trait`."""

    type = "ask"
    waits_for = "text"

    text: str = field(validator=is_text)
    trait: str = field(validator=is_trait)

    def enter(self, visit: Visit) -> Iterator[Step]:  # noqa: ARG002  (every block is told)
        yield Say(self.text)
        yield Wait()

    def answer(self, given: Given, visit: Visit) -> Iterator[Step]:
        said = " ".join(given.text.split())[:_LONGEST].rstrip()
        if said:
            yield Remember(said)
            yield Learn(self.trait, said)
            return
        if not visit.tries:
            yield Say(self.text)
        yield Wait()


@frozen(kw_only=True)
class Choice:
    """One button: what it is called, the value that it stands for, and where it leads (empty: as its block)."""

    value: str = field(validator=is_text)
    label: str = field(validator=is_text)
    next: str = field(default="", validator=is_plain)


def _are_choices(_: object, __: object, value: tuple[Choice, ...]) -> None:
    if type(value) is not tuple or not value or not all(isinstance(one, Choice) for one in value):
        raise ValueError("choices are none: give one or more, each with a value and a label")
    for name, shown in (("value", [one.value for one in value]), ("label", [_folded(one.label) for one in value])):
        if len(set(shown)) < len(shown):
            raise ValueError(f"choices have a {name} twice: give each its own")


@frozen(kw_only=True)
class ChooseBlock(Block):
    """Asks `text` and offers `choices`; who twice writes something else goes to `otherwise`, where it is set."""

    type = "choose"
    waits_for = "choice"

    text: str = field(validator=is_text)
    choices: tuple[Choice, ...] = field(validator=_are_choices)
    otherwise: str = field(default="", validator=is_plain)

    def enter(self, visit: Visit) -> Iterator[Step]:  # noqa: ARG002  (every block is told)
        yield self._prompt()
        yield Wait()

    def answer(self, given: Given, visit: Visit) -> Iterator[Step]:
        chosen = self._chosen(given)
        if chosen:
            yield Remember(chosen.value)
            yield Go(chosen.next)
            return
        if visit.tries and self.otherwise:
            yield Go(self.otherwise)
            return
        if not visit.tries:
            yield self._prompt()
        yield Wait()

    def exits(self) -> list[str]:
        return [one.next for one in self.choices] + [self.otherwise] * bool(self.otherwise)

    def _prompt(self) -> Say:
        return Say(self.text, {"choices": [{"value": one.value, "label": one.label} for one in self.choices]})

    def _chosen(self, given: Given) -> Choice | None:
        for one in self.choices:
            if one.value == given.choice if given.choice else _folded(one.label) == _folded(given.text):
                return one
        return None


On = Literal["agents", "hours", "contact", "answer"]
"""What a branch looks at."""

_NEEDS: dict[str, tuple[str, ...]] = {"hours": ("hours",), "answer": ("answer_to", "equals")}


@frozen(kw_only=True)
class BranchBlock(Block):
    """Goes on at `then` where something holds, and at `otherwise` where not; each may be left out for `next`.

    `on` is what it looks at: whether `agents` are available, the office `hours` run, the conversation has a `contact`,
    or the `answer` to the block `answer_to` equals `equals` (of a choice, its value), in any case of letters.
    """

    type = "branch"

    on: On = field(validator=in_(("agents", "hours", "contact", "answer")))
    then: str = field(default="", validator=is_plain)
    otherwise: str = field(default="", validator=is_plain)
    hours: OfficeHours | None = field(default=None, validator=optional(instance_of(OfficeHours)))
    answer_to: str = field(default="", validator=is_plain)
    equals: str = field(default="", validator=is_plain)

    def enter(self, visit: Visit) -> Iterator[Step]:
        yield Go(self.then if self._holds(visit) else self.otherwise)

    def exits(self) -> tuple[str, ...]:
        return self.then, self.otherwise

    def check(self, flow: Flow) -> Iterator[str]:
        if self.then == self.otherwise:
            yield "it goes on at the same block either way: name another one as then or as otherwise"
        needed = _NEEDS.get(self.on, ())
        for name in ("hours", "answer_to", "equals"):
            if bool(getattr(self, name)) != (name in needed):
                yield f"on = {self.on!r} and {name} " + (
                    "is missing: add it" if name in needed else "do not go together: remove it"
                )
        if self.on == "answer" and self.answer_to:
            yield from self._check_answer(flow.block(self.answer_to))

    def _check_answer(self, asked: Block | None) -> Iterator[str]:
        if asked is None or asked.waits_for not in {"text", "choice"}:
            yield f"answer_to is {self.answer_to!r}, which asks nothing: name an ask or a choose block"
        elif isinstance(asked, ChooseBlock) and _folded(self.equals) not in {
            _folded(one.value) for one in asked.choices
        }:
            values = ", ".join(repr(one.value) for one in asked.choices)
            yield f"equals is {self.equals!r}, which is no choice of {asked.id!r}: take one of {values}"

    def _holds(self, visit: Visit) -> bool:
        if self.on == "agents":
            return visit.facts.has_agents
        if self.on == "contact":
            return visit.facts.is_known
        if self.hours:
            return self.hours.is_open(visit.facts.at)
        return _folded(visit.answers.get(self.answer_to, "")) == _folded(self.equals)


@frozen(kw_only=True)
class AutomationBlock(Block):
    """Lets the contact enter the automation `name`."""

    type = "automation"

    name: str = field(validator=is_text)

    def enter(self, visit: Visit) -> Iterator[Step]:  # noqa: ARG002  (every block is told)
        yield Enter(self.name)


@frozen(kw_only=True)
class HandOverBlock(Block):
    """Says `text`, where there is one, and leaves the conversation to people, `to` a person or team where named."""

    type = "hand_over"

    to: str = field(default="", validator=is_plain)
    text: str = field(default="", validator=_is_text_if_any)

    def enter(self, visit: Visit) -> Iterator[Step]:  # noqa: ARG002  (every block is told)
        yield from _said(self.text)
        yield HandOver(self.to)

    def exits(self) -> tuple[str, ...]:
        return ()


@frozen(kw_only=True)
class EndBlock(Block):
    """Says `text`, where there is one, and ends the flow."""

    type = "end"

    text: str = field(default="", validator=_is_text_if_any)

    def enter(self, visit: Visit) -> Iterator[Step]:  # noqa: ARG002  (every block is told)
        yield from _said(self.text)
        yield End()

    def exits(self) -> tuple[str, ...]:
        return ()


BLOCKS: dict[str, type[Block]] = {
    one.type: one
    for one in (SayBlock, FormBlock, AskBlock, ChooseBlock, BranchBlock, AutomationBlock, HandOverBlock, EndBlock)
}
"""The classes above, by type."""


def _said(text: str) -> Iterable[Say]:
    return [Say(text)] if text else []


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
