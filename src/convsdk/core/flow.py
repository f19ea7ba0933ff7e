"""What a bot automation is made of: a flow of blocks, what a block is told, and what it can do.

A flow is checked as a whole when it is made; `core/bot.py` runs it. `core/blocks.py` has the blocks that convsdk
brings, and a plugin adds others by the same class::

    @frozen(kw_only=True)
    class Voucher(Block):
        type = "voucher"
        code: str

        def enter(self, visit):
            yield Say(f"Your voucher: {self.code}")
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import and_, in_, instance_of

from convsdk.core.forms import Form, form_named
from convsdk.errors import ConfigError

MOST_BLOCKS = 100
BLOCK_ID = re.compile("[a-z0-9_-]{1,64}")

Waits = Literal["", "text", "choice", "form"]
"""What a block waits for: nothing, free text, one of its choices, or a form."""

_CONTACT_POINTS = {"email", "mail", "phone", "telephone", "mobile", "visitor"}


def _is_storable(_: object, attribute: Any, value: str) -> None:  # noqa: ANN401  (attrs gives it no narrower type)
    if "\0" in value or value != value.encode(errors="replace").decode():
        raise ValueError(f"{attribute.name} holds a NUL or half a character, which no store keeps: leave it out")


def _is_written(_: object, attribute: Any, value: str) -> None:  # noqa: ANN401  (as above)
    if not value.strip():
        raise ValueError(f"{attribute.name} is blank: write some words")


def _is_trait_name(_: object, __: object, value: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", value):
        raise ValueError("trait is no name: take small letters, digits and underscores, such as 'order_number'")
    if value == "external_id" or _CONTACT_POINTS & set(value.split("_")):
        raise ValueError(f"trait {value!r} is a way to reach somebody, and no description: ask for it with a form")


is_plain = and_(instance_of(str), _is_storable)
"""Refuses what is no text, or what no store can keep."""

is_text = and_(is_plain, _is_written)
"""Refuses what nobody can be told."""

is_trait = and_(instance_of(str), _is_trait_name)
"""Refuses a malformed name of a trait, and one that would pass an identifier off as a mere description."""


def _is_json(_: object, __: object, value: dict[str, Any]) -> None:
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@frozen
class Say:
    """The bot says `text`; `detail` is for whoever draws it, plain JSON. The engine adds the block's id to it."""

    text: str = field(validator=is_text)
    detail: dict[str, Any] = field(factory=dict, validator=[instance_of(dict), _is_json])


@frozen
class Learn:
    """The visitor said something about themselves: a claim, never proof."""

    trait: str = field(validator=is_trait)
    value: str = field(validator=is_text)


@frozen
class Enter:
    """The contact enters the automation of this name."""

    automation: str = field(validator=is_text)


@frozen
class HandOver:
    """People go on, `to` a person or team where it is named. `reason` is for the log, where the bot had to give up."""

    to: str = field(default="", validator=is_plain)
    reason: str = field(default="", validator=instance_of(str))


@frozen
class End:
    """The flow is over."""


Effect = Say | Learn | Enter | HandOver | End
"""What the host carries out, in order."""


@frozen
class Remember:
    """Keeps what the visitor answered at this block, for branches later on."""

    value: str = field(validator=is_plain)


@frozen
class Go:
    """Goes on at another block (empty: where the block itself goes on)."""

    block: str = field(default="", validator=is_plain)


@frozen
class Wait:
    """Waits here for the visitor."""


Step = Effect | Remember | Go | Wait
"""What a block yields. Without `Go`, `Wait`, `HandOver` or `End` it goes on at its `next`."""


@frozen(kw_only=True)
class Given:
    """What the visitor did. `block` is the id of the block that it answers (empty: free text)."""

    kind: Literal["opened", "message", "form"]
    text: str = ""
    choice: str = ""
    block: str = ""
    fields: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Facts:
    """What holds at the moment `at`.

    `is_known`: the conversation has a contact. `is_proven`: the visitor proved who that is; `known` is then what
    their contact has of a form's fields.
    """

    at: datetime
    has_agents: bool = False
    is_known: bool = False
    is_proven: bool = False
    known: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Visit:
    """What a block is told: the facts, the answers so far by block, and how often it already waited in vain."""

    facts: Facts
    answers: Mapping[str, str]
    flow: "Flow"
    tries: int = 0


def _is_id(_: object, __: object, value: str) -> None:
    if not BLOCK_ID.fullmatch(value):
        raise ValueError("id is unusable: take up to 64 small letters, digits, hyphens and underscores")


@frozen(kw_only=True)
class Block(ABC):
    """One step of a flow. Subclass it as an attrs class, set `type`, write `enter`; and `answer` if it waits.

    A block goes on at `next`, or else at the one after it in the flow. It is pure: what it does, it yields.
    """

    type: ClassVar[str]
    waits_for: ClassVar[Waits] = ""

    id: str = field(validator=[instance_of(str), _is_id])
    next: str = field(default="", validator=is_plain)

    @abstractmethod
    def enter(self, visit: Visit) -> Iterable[Step]:
        """Give what happens when the flow comes here."""

    def answer(self, given: Given, visit: Visit) -> Iterable[Step]:  # noqa: ARG002  (for those who override it)
        """Give what happens on an answer: `Wait` asks for another one."""
        return ()

    def exits(self) -> Iterable[str]:
        """Give the ids of all blocks where it can go on; the empty one is `next`, or else the one after it."""
        return ("",)

    def check(self, flow: "Flow") -> Iterable[str]:  # noqa: ARG002  (for those who override it)
        """Give what is wrong with the block in this flow, and what to do."""
        return ()


@frozen(kw_only=True)
class Trigger:
    """When a bot begins: the visitor opens the chat (or writes without), or writes; and whether agents are there."""

    on: Literal["open", "message"] = field(default="open", validator=in_(("open", "message")))
    agents: Literal["any", "available", "away"] = field(default="any", validator=in_(("any", "available", "away")))

    def allows(self, facts: Facts) -> bool:
        """Say whether the bot may begin with the agents as they are."""
        return self.agents == "any" or facts.has_agents == (self.agents == "available")


@frozen(kw_only=True)
class Flaw:
    """One mistake in a flow: at which block, by its place (None: in the flow as a whole) and id, and what to do."""

    text: str
    index: int | None = None
    id: str = ""

    def __str__(self) -> str:
        return self.text if self.index is None else f"block {self.index + 1} ({self.id!r}): {self.text}"


class FlowError(ConfigError):
    """A flow cannot be run: `flaws` are all its mistakes, and the message has a line for each."""

    def __init__(self, flaws: Iterable[Flaw]) -> None:
        self.flaws = tuple(flaws)
        super().__init__("\n".join(map(str, self.flaws)))


def _are_blocks(_: object, __: object, value: tuple[Block, ...]) -> None:
    if type(value) is not tuple or not all(isinstance(one, Block) for one in value):
        raise TypeError("blocks are no tuple of blocks: give one, such as (SayBlock(id='hello', text='Hello'),)")


@frozen(kw_only=True)
class Flow:
    """A whole bot automation: what starts it, and its blocks, the first of which is where it begins.

    `forms` are those that its form blocks may name; without any, each name is a form with optional fields.

    Raises:
        FlowError: all that is wrong with it.
    """

    blocks: tuple[Block, ...] = field(validator=_are_blocks)
    trigger: Trigger = field(factory=Trigger, validator=instance_of(Trigger))
    forms: Mapping[str, Form] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        flaws = tuple(_flaws(self))
        if flaws:
            raise FlowError(flaws)

    @cached_property
    def places(self) -> dict[str, int]:
        """Give the place of each block by its id."""
        return {block.id: index for index, block in reversed(tuple(enumerate(self.blocks)))}

    @cached_property
    def fingerprint(self) -> str:
        """Give a value that is another one where the flow was changed."""
        return hashlib.sha256(repr(self).encode(errors="replace")).hexdigest()[:16]

    def block(self, name: str) -> Block | None:
        """Give the block with this id, or None where there is none."""
        return self.blocks[self.places[name]] if name in self.places else None

    def form(self, name: str) -> Form | None:
        """Give the form of this name, or None where there is none."""
        return form_named(self.forms, name)

    def after(self, block: Block, target: str = "") -> Block | None:
        """Give where `block` goes on: at `target`, else its `next`, else the one after it; None is the end."""
        if target or block.next:
            return self.block(target or block.next)
        following = self.places[block.id] + 1
        return self.blocks[following] if following < len(self.blocks) else None


def _flaws(flow: Flow) -> Iterator[Flaw]:
    if not 1 <= len(flow.blocks) <= MOST_BLOCKS:
        yield Flaw(text=f"a flow has 1 to {MOST_BLOCKS} blocks, and not {len(flow.blocks)}: add or remove some")
    wrong = [(index, text) for index, block in enumerate(flow.blocks) for text in _targets(flow, index, block)]
    if not wrong:  # one wrong target would make many blocks look unreachable
        wrong = [*_unreachable(flow), *_circles(flow)]
    wrong += [(index, text) for index, block in enumerate(flow.blocks) for text in block.check(flow)]
    yield from (Flaw(index=index, id=flow.blocks[index].id, text=text) for index, text in sorted(wrong))


def _targets(flow: Flow, index: int, block: Block) -> Iterator[str]:
    first = flow.places[block.id]
    if first != index:
        yield f"its id is that of block {first + 1}: give each block its own"
    if block.next and "" not in block.exits():
        yield "it never goes on at its next: remove next"
    for target in sorted({block.next, *block.exits()} - {"", *flow.places}):
        near = get_close_matches(target, flow.places, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "name the id of a block"
        yield f"it goes on at {target!r}, which is no block: {remedy}"


def _unreachable(flow: Flow) -> Iterator[tuple[int, str]]:
    reached = _reach(flow, flow.blocks[:1], range(len(flow.blocks)))
    for index, block in enumerate(flow.blocks[1:], 1):
        if block.id not in reached:
            yield index, "no block goes on here: name it as the next of another, or remove it"


def _circles(flow: Flow) -> Iterator[tuple[int, str]]:
    # A form does not count: it is skipped where everything is known.
    moving = [index for index, block in enumerate(flow.blocks) if block.waits_for in {"", "form"}]
    for index in moving:
        # A circle is told at its first block only.
        if flow.blocks[index].id in _reach(flow, [flow.blocks[index]], [one for one in moving if one >= index]):
            yield index, "it comes back here without waiting, and would for ever: put an ask or a choose in between"


def _reach(flow: Flow, start: Iterable[Block], places: Iterable[int]) -> set[str]:
    """Give the ids of the blocks that can come after those in `start`, on ways that keep to `places`."""
    allowed, reached, left = set(places), set[str](), list(start)
    while left:
        block = left.pop()
        for after in filter(None, (flow.after(block, target) for target in block.exits())):
            if after.id not in reached and flow.places[after.id] in allowed:
                reached.add(after.id)
                left.append(after)
    return reached
