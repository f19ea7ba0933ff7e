"""Placeholders in an answer: `Dear {{ contact.name | customer }}`. A name, and what stands there where it is unknown.

No more than that can be said, and a value that looks like a placeholder is none. Only what was attested is known:
else somebody could have their own words sent in ours.
"""

import re
from collections.abc import Callable, Mapping

from convsdk.core.model import Contact, Trust

_PLACEHOLDER = re.compile(r"\{\{([^{}]{0,200})\}\}")
_ROOT = "contact."
_REACHED_BY = ("email", "phone")


def contact_values(contact: Contact) -> dict[str, str]:
    """Give what placeholders stand for: a contact's traits, e-mail address and phone number that are no mere claims."""
    values = {f"{_ROOT}{name}": one.value for name, one in contact.traits.items() if one.trust > Trust.ASSERTED}
    for held in sorted(contact.identifiers, key=lambda one: one.trust):  # the best attested last, which stays
        if held.node.identifier.kind in _REACHED_BY and held.trust > Trust.ASSERTED:
            values[f"{_ROOT}{held.node.identifier.kind}"] = held.spelling
    return values


def render(text: str, values: Mapping[str, str], *, escape: Callable[[str], str] = str) -> str:
    """Give `text` with its placeholders filled in; `escape` makes a value fit for what surrounds it, such as HTML.

    Raises `ValueError` where one is malformed, or unknown and without a fallback; it names them all.
    """
    literals, placeholders = (_PLACEHOLDER.split(text)[start::2] for start in (0, 1))
    _check(literals, placeholders, values)
    filled = [escape(_value(one, values)) for one in placeholders]
    return "".join(piece for pair in zip(literals, [*filled, ""], strict=True) for piece in pair)


def _check(literals: list[str], placeholders: list[str], values: Mapping[str, str]) -> None:
    if any("{{" in one for one in literals):
        raise ValueError("a placeholder is not closed, or too long: write it as {{ contact.name | fallback }}")
    names = [one.partition("|")[0].strip() for one in placeholders]
    if wrong := sorted({one for one in names if not one.startswith(_ROOT)}):
        raise ValueError(f"there are no placeholders {', '.join(map(repr, wrong))}: write contact. and a trait's name")
    missing = {name for name, one in zip(names, placeholders, strict=True) if name not in values and "|" not in one}
    if missing:
        raise ValueError(
            f"not known for certain: {', '.join(sorted(missing))}: write what to say instead, as in "
            f"{{{{ {min(missing)} | customer }}}}"
        )


def _value(placeholder: str, values: Mapping[str, str]) -> str:
    name, _, fallback = placeholder.partition("|")
    return values.get(name.strip(), fallback.strip())
