"""Reads what the chat widget sends: that a visitor opened it, their messages, and forms that they filled in."""

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from convsdk.core.events import Event, FieldProblem, FormRejected, Identified, MessageReceived, Noted
from convsdk.core.forms import Form, form_named
from convsdk.core.identifiers import EmailAddress, PhoneNumber, trim
from convsdk.core.model import Attachment, Claim, IdentityHint, Trait, Trust
from convsdk.core.payloads import storable
from convsdk.errors import ParseError

_REJECTED = "#rejected"
"""Ends the external id of a rejected form, so that the corrected one, sent under the same id, is no duplicate."""

_LONGEST = {"email": 320, "phone": 64, "account": 255, "name": 255}
_LABELS = {"email": "e-mail address", "phone": "phone number", "account": "company", "name": "name"}
_TRAITS = {"account": "company", "name": "name"}


_Key = Annotated[str, Meta(min_length=1, max_length=255)]
_Block = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{0,64}\Z")]
_Amount = Annotated[int, Meta(ge=0, le=2**53)]


class _Attachment(Struct, frozen=True):
    name: Annotated[str, Meta(max_length=255)] = ""
    media_type: Annotated[str, Meta(pattern=r"^[\w.+-]{1,100}/[\w.+-]{1,100}\Z")] = "application/octet-stream"
    size: _Amount | None = None
    # A `javascript:` or `data:` address would run in the browser of the agent who clicks on it.
    url: Annotated[str, Meta(max_length=2048, pattern=r"^(https?://[^\s\x00]+)?\Z")] = ""


class _Identity(Struct, frozen=True):
    email: Annotated[str, Meta(max_length=320)] | None = None
    phone: Annotated[str, Meta(max_length=64)] | None = None
    account: Annotated[str, Meta(max_length=255)] | None = None
    name: Annotated[str, Meta(max_length=255)] | None = None


class _Message(Struct, frozen=True, tag_field="type", tag="message"):
    id: _Key
    visitor: _Key
    conversation: Annotated[str, Meta(max_length=255)] = ""
    text: Annotated[str, Meta(max_length=10_000)] = ""
    attachments: Annotated[tuple[_Attachment, ...], Meta(max_length=20)] = ()
    identity: _Identity | None = None
    block: _Block = ""
    choice: Annotated[str, Meta(max_length=255)] = ""


class _Submission(Struct, frozen=True, tag_field="type", tag="form"):
    id: _Key
    visitor: _Key
    fields: Annotated[dict[Annotated[str, Meta(max_length=100)], Any], Meta(max_length=50)]
    conversation: Annotated[str, Meta(max_length=255)] = ""
    form: Annotated[str, Meta(max_length=255)] = ""
    block: _Block = ""


class _Opening(Struct, frozen=True, tag_field="type", tag="open"):
    id: _Key
    visitor: _Key
    conversation: Annotated[str, Meta(max_length=255)] = ""


_Item = _Message | _Submission | _Opening
_Body = _Item | Annotated[list[_Item], Meta(max_length=100)]
_DECODER: msgspec.json.Decoder[_Body] = msgspec.json.Decoder(_Body)


def read(body: bytes, *, at: datetime, country: str, forms: Mapping[str, Form]) -> tuple[Event, ...]:
    """Give the events in `body`, one JSON object or an array of up to 100.

    Args:
        body: The raw body of the request.
        at: When it was received; the visitor's own clock is not believed.
        country: The ISO 3166 code in which national phone numbers are read, or nothing.
        forms: The forms that can be submitted, by name. Where there are none, any name stands for a form that
            requires the e-mail address and takes the other fields.

    Raises:
        ParseError: `body` is something else; none of it is taken.
    """
    try:
        decoded = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ParseError(
            f"the body is no chat message or form{_place(error)}: see the format of channel chat"
        ) from error
    items = decoded if isinstance(decoded, list) else [decoded]
    return tuple(_event(item, at, country, forms) for item in items)


def sent_id(event: Event) -> str:
    """Give the id under which the visitor sent what became of `event`."""
    return event.external_id.removesuffix(_REJECTED).rpartition("/")[0]


def _external_id(item: _Item) -> str:
    # Visitors choose the ids, so that one visitor's would hide another's. The cookie itself is in none: ids are shown.
    return f"{item.id}/{hashlib.sha256(item.visitor.encode()).hexdigest()[:32]}"


def _place(error: Exception) -> str:
    # Only the path is told: the rest of the text can quote what the visitor wrote.
    _, at, path = str(error).rpartition(" - at ")
    return f" (at {path})" if at else ""


def _event(item: _Item, at: datetime, country: str, forms: Mapping[str, Form]) -> Event:
    _require_key(item.id, "id")
    _require_key(item.visitor, "visitor")
    if item.conversation:
        _require_key(item.conversation, "conversation")
    if isinstance(item, _Message):
        return _message(item, at, country)
    if isinstance(item, _Opening):
        return _opening(item, at)
    return _submission(item, at, country, forms)


def _require_key(value: str, name: str) -> None:
    if not value.isprintable() or not trim(value):
        raise ParseError(f"the {name} of a chat message or form is blank or unprintable: send up to 255 characters")


def _message(item: _Message, at: datetime, country: str) -> MessageReceived:
    if not item.text.strip() and not item.attachments:
        raise ParseError("a chat message holds neither text nor attachments: send one of them")
    values = _identity(item.identity) if item.identity else {}
    return MessageReceived(
        external_id=_external_id(item),
        hint=_hint(item, at, values, country, how="chat message" if values else ""),
        at=at,
        text=storable(item.text),
        thread=item.conversation,
        attachments=tuple(
            Attachment(name=storable(one.name), media_type=one.media_type, size=one.size, url=one.url)
            for one in item.attachments
        ),
        block=item.block,
        choice=storable(item.choice),
    )


def _opening(item: _Opening, at: datetime) -> Noted:
    return Noted(
        external_id=_external_id(item),
        kind="chat_opened",
        at=at,
        hint=IdentityHint(at=at, visitor=item.visitor, may_create=False),
        thread=item.conversation,
        text="opened the chat",
    )


def _identity(given: _Identity) -> dict[str, str]:
    # What a page says beside a message must not cost the message: an unusable value is left out.
    values = {name: trim(getattr(given, name) or "") for name in _LABELS}
    return {name: value for name, value in values.items() if value and _is_one_line(value)}


def _submission(item: _Submission, at: datetime, country: str, forms: Mapping[str, Form]) -> Identified | FormRejected:
    form = form_named(forms, item.form)
    values = {name: trim(one) if isinstance(one, str) else one for name, one in item.fields.items()}
    values = {name: value for name, value in values.items() if value not in (None, "")}
    problems = tuple(_problems(form, values, country)) if form else (_NO_SUCH_FORM,)
    if problems:
        return FormRejected(
            external_id=_external_id(item) + _REJECTED,
            hint=_hint(item, at, {}, country),
            problems=problems,
            thread=item.conversation,
            block=item.block,
        )
    hint = _hint(item, at, values, country, how="chat form")
    return Identified(external_id=_external_id(item), hint=hint, thread=item.conversation, block=item.block)


_NO_SUCH_FORM = FieldProblem(field="form", code="invalid", message="There is no such form.")


def _problems(form: Form, values: Mapping[str, Any], country: str) -> Iterator[FieldProblem]:
    for name, label in _LABELS.items():
        presence = form.presence(name)
        if presence == "required" and name not in values:
            yield FieldProblem(field=name, code="required", message=f"Please enter your {label}.")
        elif presence != "removed" and name in values:
            yield from _value_problems(name, values[name], country)
    for name in sorted(values):
        if form.presence(name) == "removed":
            yield FieldProblem(field=storable(name), code="unknown_field", message="This form has no such field.")


def _value_problems(name: str, value: object, country: str) -> Iterator[FieldProblem]:
    if isinstance(value, str) and len(value) > _LONGEST[name]:
        message = f"Please enter at most {_LONGEST[name]} characters."
        yield FieldProblem(field=name, code="too_long", message=message)
    elif not isinstance(value, str) or not _is_usable(name, value, country):
        yield FieldProblem(field=name, code="invalid", message=f"Please enter a valid {_LABELS[name]}.")


def _is_usable(name: str, value: str, country: str) -> bool:
    if name == "email":
        return EmailAddress().canonical(value) is not None
    if name == "phone":
        return PhoneNumber().canonical(value, country=country or None) is not None
    return _is_one_line(value)


def _is_one_line(value: str) -> bool:
    # Names hold joiners and no-break spaces, which `isprintable` refuses.
    return all(unicodedata.category(character) not in {"Cc", "Cs"} for character in value)


def _hint(
    item: _Message | _Submission, at: datetime, values: Mapping[str, str], country: str, *, how: str = ""
) -> IdentityHint:
    return IdentityHint(
        at=at,
        visitor=item.visitor,
        identifiers=tuple(_claims(values, country)),
        traits=tuple(Trait(trait, values[name], Trust.ASSERTED) for name, trait in _TRAITS.items() if name in values),
        how=how,
    )


def _claims(values: Mapping[str, str], country: str) -> Iterator[Claim]:
    if "email" in values:
        yield Claim("email", values["email"], Trust.ASSERTED)
    if "phone" in values:
        number = PhoneNumber().canonical(values["phone"], country=country or None)
        yield Claim("phone", number or values["phone"], Trust.ASSERTED)
