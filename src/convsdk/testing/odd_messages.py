"""Messages like a golden one: to somebody else, and with other choices. What is sent has to differ."""

import re
from collections.abc import Iterator

from attrs import evolve

from convsdk.core.ports import Choice, Outbound

_CHOICES = ({"value": "order", "label": "My order"}, {"value": "other", "label": "Something else"})


def to_others(message: Outbound) -> Iterator[Outbound]:
    """Give the message as it goes to other people, in conversations of their own.

    They differ in a digit or in a letter: what a platform knows somebody by can be a part of the address alone.
    """
    for another in (_with_another_digit, _with_another_letter):
        yield evolve(
            message,
            to=evolve(message.to, value=another(message.to.value)),
            address=another(message.address),
            thread=another(message.thread),
            references=tuple(map(another, message.references)),
        )


def with_choices(message: Outbound) -> Outbound:
    """Give the message with choices such as a bot automation offers."""
    return evolve(message, detail={**message.detail, "block": "topic", "choices": _CHOICES})


def with_other_labels(message: Outbound) -> Iterator[tuple[Choice, Outbound]]:
    """Give each choice of the message, and the message with another label for it."""
    given = message.detail.get("choices", ())
    for place, choice in enumerate(message.choices):
        label = f"{_other_letter(choice.label[:1])}{choice.label[1:]}"
        changed = [{**one, "label": label} if at == place else one for at, one in enumerate(given)]
        yield choice, evolve(message, detail={**message.detail, "choices": changed})


def _with_another_digit(text: str) -> str:
    """Give an address like `text` with another last digit, so that a number stays one."""
    found = [*re.finditer("[0-9]", text)]
    if not found:
        return _with_another_letter(text)
    at = found[-1].start()
    return f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"


def _with_another_letter(text: str) -> str:
    """Give an address like `text` with another first letter, in whatever script; a number gets another digit."""
    at = next((at for at, sign in enumerate(text) if sign.isalpha()), None)
    if at is not None:
        return f"{text[:at]}{_other_letter(text[at])}{text[at + 1 :]}"
    return _with_another_digit(text) if re.search("[0-9]", text) else text and f"{text}q"


def _other_letter(letter: str) -> str:
    # Another one also for a platform that takes no notice of upper and lower case.
    return "x" if letter in {"q", "Q"} else "q"
