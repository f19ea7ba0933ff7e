"""Runs a bot automation: the pure step from what a visitor did to what the bot does.

The state of a conversation goes in, the new state and the effects come out. Nothing here says, stores or sends
anything: the host carries the effects out, in the transaction that keeps the state.
"""

import traceback
from typing import get_args

from attrs import evolve, field, frozen

from convsdk.core.flow import (
    Block,
    Effect,
    End,
    Facts,
    Flow,
    Given,
    Go,
    HandOver,
    Remember,
    Say,
    Step,
    Visit,
    Wait,
    Waits,
)


@frozen(kw_only=True)
class BotState:
    """How far the bot is in one conversation: the `block` where it waits; empty is over, for good.

    `flow` is the fingerprint of the flow, `tries` how often it asked again, `answers` what was answered so far.
    """

    flow: str
    block: str = ""
    tries: int = 0
    answers: dict[str, str] = field(factory=dict)

    @property
    def is_over(self) -> bool:
        """Say whether the bot is done with the conversation."""
        return not self.block


@frozen(kw_only=True)
class Turn:
    """What came of one thing that the visitor did: the new state (None: not begun), and what to carry out."""

    state: BotState | None
    effects: tuple[Effect, ...] = ()


@frozen(kw_only=True)
class Expects:
    """What the bot waits for: which block asks, and for what."""

    block: str
    kind: Waits


def expects(flow: Flow, state: BotState | None) -> Expects | None:
    """Give what the bot waits for now, or None where it waits for nothing."""
    block = flow.block(state.block) if state else None
    return Expects(block=block.id, kind=block.waits_for) if block and block.waits_for else None


def advance(flow: Flow, state: BotState | None, given: Given, facts: Facts) -> Turn:
    """Give what the bot does next. An answer to a block where it does not wait is none, and changes nothing.

    Args:
        flow: The flow as it is now.
        state: How far the conversation is; None where the bot did not begin, and nobody has written yet.
        given: What the visitor did.
        facts: What holds at that moment.
    """
    if state is None:
        return _begin(flow, given, facts)
    if state.is_over:
        return Turn(state=state)
    block = flow.block(state.block)
    if block is None or not block.waits_for:
        reason = f"the flow was changed: block {state.block!r} waits no more"
        return Turn(state=_over(flow, state.answers), effects=(HandOver(reason=reason),))
    if not _is_answer(given, block):
        return Turn(state=state)
    return _walk(flow, block, given, facts, state)


def _begin(flow: Flow, given: Given, facts: Facts) -> Turn:
    if given.kind == "form" or (given.kind == "opened" and flow.trigger.on == "message"):
        return Turn(state=None)
    if flow.trigger.allows(facts):
        return _walk(flow, flow.blocks[0], None, facts, BotState(flow=flow.fingerprint))
    # What was written to people stays with them, also when they leave.
    return Turn(state=None if given.kind == "opened" else _over(flow, {}))


def _over(flow: Flow, answers: dict[str, str]) -> BotState:
    return BotState(flow=flow.fingerprint, answers=answers)


def _is_answer(given: Given, block: Block) -> bool:
    if given.kind == "opened" or given.block not in {"", block.id}:
        return False
    return given.kind == "message" or block.waits_for == "form"


def _walk(flow: Flow, start: Block, given: Given | None, facts: Facts, state: BotState) -> Turn:
    """Go from block to block, until one waits or ends."""
    answers, effects, entered = dict(state.answers), list[Effect](), set[str]()
    block: Block | None = start
    while block is not None:
        visit = Visit(facts=facts, answers=answers, flow=flow, tries=state.tries if given else 0)
        target = ""
        for step in _steps(block, given, visit, entered):
            if isinstance(step, Wait):
                tries = state.tries + 1 if given else 0
                waiting = BotState(flow=flow.fingerprint, block=block.id, tries=tries, answers=answers)
                return Turn(state=waiting, effects=tuple(effects))
            if isinstance(step, Go):
                target = step.block
                break
            if isinstance(step, Remember):
                answers[block.id] = step.value
                continue
            effects.append(evolve(step, detail=step.detail | {"block": block.id}) if isinstance(step, Say) else step)
            if isinstance(step, HandOver | End):
                return Turn(state=_over(flow, answers), effects=tuple(effects))
        block, given = flow.after(block, target), None
    return Turn(state=_over(flow, answers), effects=(*effects, End()))


def _steps(block: Block, given: Given | None, visit: Visit, entered: set[str]) -> tuple[Step, ...]:
    if block.id in entered:
        return (HandOver(reason=f"block {block.id!r} came back to itself without waiting"),)
    if given is None:
        entered.add(block.id)
    try:
        steps = tuple(block.enter(visit) if given is None else block.answer(given, visit))
        for step in steps:
            _require_step(block, step, visit.flow)
    except Exception as error:  # noqa: BLE001  (boundary: a plugin's block runs any code, and must not cost a message)
        # What the error says is left out: it can quote the visitor.
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"block {block.id!r} raised {type(error).__name__} at {place.filename}:{place.lineno}"
        return (HandOver(reason=reason),)
    return steps


def _require_step(block: Block, step: object, flow: Flow) -> None:
    if not isinstance(step, get_args(Step)):
        raise TypeError(f"{block.type} gave something that is no step")
    if isinstance(step, Wait) and not block.waits_for:
        raise TypeError(f"{block.type} waits, but does not say what for: set waits_for")
    if isinstance(step, Go) and step.block and flow.block(step.block) is None:
        raise LookupError(f"{block.type} goes on at a block that is not there")
