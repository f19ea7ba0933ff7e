"""Which fields a form asks a visitor for."""

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import field, frozen
from attrs.validators import in_

Presence = Literal["required", "optional", "removed"]
"""Whether a form asks for a field, and insists on it."""

FIELDS = ("email", "phone", "account", "name")
"""The fields that a form can have."""


def _asks_for_address(_: object, __: object, value: object) -> None:
    if value != "required":
        given = "optional or removed" if value in {"optional", "removed"} else "something else"
        raise ValueError(f"email is {given}, but every form asks for it: set email = 'required'")


_is_presence = in_(get_args(Presence))


@frozen(kw_only=True)
class Form:
    """Which fields a form has. The e-mail address is always one and always required; to leave it out is an error."""

    email: Presence = field(default="removed", validator=_asks_for_address)
    phone: Presence = field(default="optional", validator=_is_presence)
    account: Presence = field(default="optional", validator=_is_presence)
    name: Presence = field(default="optional", validator=_is_presence)

    def presence(self, name: str) -> Presence:
        """Give what the form says of the field `name`; one that it does not know is as one that was removed."""
        found: Presence = getattr(self, name) if name in FIELDS else "removed"
        return found


def form_named(forms: Mapping[str, Form], name: str) -> Form | None:
    """Give the form `name`; where there are no forms at all, any name stands for one with optional fields."""
    return forms.get(name) if forms else Form(email="required")
