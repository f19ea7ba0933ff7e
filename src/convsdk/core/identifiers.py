"""Canonical forms: one small class per kind of identifier, and the registry that knows them by name.

A canonical form is total (any text gives a key or None) and idempotent. Text is stripped, zero-width characters go
from its edges, and it is brought to NFC: never to NFKC and never case-folded as a whole, because both map foreign
letters onto ASCII ones and so hand one person's account to another (Unicode TR15, UTS #39; CVE-2019-19844).
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import email_validator
import idna
import phonenumbers

FORM_VERSION = 1
"""The version of the canonical forms, stored beside the keys: a later form can find what an earlier one made."""

# A mobile number there had a 1 before it, from abroad, until 2019. WhatsApp writes it so to this day.
_MEXICO, _MEXICAN_MOBILE = 52, re.compile("1[0-9]{10}")

_EDGES = " \t\r\n\f\v\u00a0\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_LONGEST = 320

# What programs and people put where they have no value. Compared without regard to ASCII case.
_PLACEHOLDERS = frozenset(
    """null undefined none nil nan n/a na unknown anonymous guest user test true false -1 - -- . ? [object object] {} []
    test@test.com test@example.com example@example.com a@a.com none@none.com no@email.com noemail@noemail.com
    email@email.com user@domain.com asdf@asdf.com
    """.split()  # noqa: SIM905  (a list of forty words reads better as words)
) | {"[object object]"}

# RFC 2142, and what businesses use beside it: mailboxes that several people read.
ROLE_NAMES = frozenset(
    """abuse accounting accounts admin administrator all billing bookings careers contact customerservice donotreply
    enquiries feedback finance ftp hello help helpdesk hostmaster hr info inquiries invoices it jobs kontakt legal list
    mail mailer-daemon marketing media news newsletter no-reply noc noreply office orders postmaster press privacy
    purchasing recruiting registrar root sales security service shop spam staff subscribe support team usenet uucp
    webmaster welcome www
    """.split()  # noqa: SIM905  (a list of sixty words reads better as words)
)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN_EMAIL = re.compile(
    rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+[A-Za-z][A-Za-z0-9-]{{0,61}}[A-Za-z0-9])", re.ASCII
)
_LONGEST_LOCAL_PART = 64
_LONGEST_DOMAIN = 253
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def trim(text: str) -> str:
    """Give `text` in NFC without blanks and zero-width characters at its edges."""
    return unicodedata.normalize("NFC", text.strip(_EDGES)).strip(_EDGES)


def is_placeholder(text: str) -> bool:
    """Say whether `text`, already trimmed, stands for "no value": `null`, `undefined`, only zeros, and so on."""
    return text.lower() in _PLACEHOLDERS or not text.strip("0-+ ")


def _has_unprintable(text: str) -> bool:
    return not text.isprintable() or any(character.isspace() for character in text)


class IdentifierKind(ABC):
    """One kind of identifier: its name, its canonical form, and how much it says about a person.

    `anchor_rank` orders kinds of equal trust when the anchor of a hint is chosen (lower first). `is_contact_point`:
    it can be reassigned to another person, and has epochs. `is_account`: issued to one account holder, so that a
    contact point seen with another one has changed hands. `is_single`: a contact holds one for each scope.
    `establishes`: whoever holds it at CHANNEL trust or more is an established person.
    """

    name: str
    anchor_rank: ClassVar[int] = 1
    is_contact_point: ClassVar[bool] = False
    is_account: ClassVar[bool] = False
    is_single: ClassVar[bool] = False
    establishes: ClassVar[bool] = False

    @abstractmethod
    def canonical(self, value: str, *, country: str | None = None) -> str | None:
        """Give the key for `value`, or None where there is nothing usable in it; never raise.

        `country` is the ISO 3166 code that national phone numbers are read in.
        """

    def is_role(self, key: str) -> bool:  # noqa: ARG002  (only mailboxes have roles)
        """Say whether several people stand behind `key`, so that it is never evidence about one."""
        return False

    def loose(self, key: str) -> str:
        """Give a looser key under which likely duplicates look alike; for suggestions only, never for matching."""
        return key


class Opaque(IdentifierKind):
    """An id that somebody else issued: compared exactly, with its case. Up to 255 printable characters."""

    def __init__(self, name: str) -> None:
        self.name = name

    def canonical(self, value: str, *, country: str | None = None) -> str | None:  # noqa: ARG002
        key = trim(value)
        if not key or len(key) > 255 or is_placeholder(key) or not key.isprintable():  # noqa: PLR2004
            return None
        return key


class MessagingId(Opaque):
    """A messaging platform's id of a person, unique inside its scope (a page, a business)."""

    is_account = True


class ExternalId(Opaque):
    """The site's own user id; its scope is the namespace, for a site with several."""

    anchor_rank = 0
    is_account = True
    is_single = True
    establishes = True


class Visitor(Opaque):
    """The server's cookie. It says which browser, never which person."""

    anchor_rank = 9


class EmailAddress(IdentifierKind):
    """An e-mail address: lower-case A-label domain (UTS 46), local part with ASCII letters in lower case."""

    name = "email"
    anchor_rank = 2
    is_contact_point = True
    establishes = True

    def canonical(self, value: str, *, country: str | None = None) -> str | None:  # noqa: ARG002
        text = trim(value)
        if len(text) > _LONGEST or is_placeholder(text):
            return None
        plain = _PLAIN_EMAIL.fullmatch(text)
        if plain and "xn--" not in plain[2].lower():
            local, domain = plain[1], plain[2].lower()
            return (
                f"{local.lower()}@{domain}"
                if len(local) <= _LONGEST_LOCAL_PART and len(domain) <= _LONGEST_DOMAIN
                else None
            )
        return self._international(text)

    def _international(self, text: str) -> str | None:
        local, at, domain = text.rpartition("@")
        if not at or "@" in local or _has_unprintable(text):
            return None
        try:
            domain = idna.encode(domain, uts46=True, transitional=False).decode("ascii").lower()
            email_validator.validate_email(
                f"{local}@{domain}", check_deliverability=False, globally_deliverable=False, allow_quoted_local=False
            )
        except (UnicodeError, email_validator.EmailNotValidError):
            return None
        if "." not in domain:
            return None
        # The validator only says yes or no: its own spelling of the local part is not taken over.
        key = f"{local.translate(_ASCII_LOWER)}@{domain}"
        return None if is_placeholder(key) else key

    def is_role(self, key: str) -> bool:
        return key.partition("@")[0].partition("+")[0] in ROLE_NAMES

    def loose(self, key: str) -> str:
        local, _, domain = key.rpartition("@")
        local = local.partition("+")[0] or local
        if domain in {"gmail.com", "googlemail.com"}:
            return f"{local.replace('.', '') or local}@gmail.com"
        return f"{local}@{domain}"


class PhoneNumber(IdentifierKind):
    """A phone number as E.164. National spellings need a country; a number with an extension is nobody's own."""

    name = "phone"
    anchor_rank = 3
    is_contact_point = True
    establishes = True

    def canonical(self, value: str, *, country: str | None = None) -> str | None:
        text = trim(value)
        if not text or len(text) > 64 or is_placeholder(text):  # noqa: PLR2004
            return None
        try:
            number = phonenumbers.parse(text, country)
        except phonenumbers.NumberParseException:
            return None
        if number.country_code == _MEXICO and _MEXICAN_MOBILE.fullmatch(str(number.national_number)):
            number.national_number = int(str(number.national_number)[1:])
        # "Possible" and not "valid": numbering plans change faster than installed copies of them. A number without
        # its area code is possible too, but many people's.
        reason = phonenumbers.is_possible_number_with_reason(number)
        if number.extension or reason != phonenumbers.ValidationResult.IS_POSSIBLE:
            return None
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


class Kinds:
    """The kinds of identifier that a resolver knows, by name: the built-in ones and what plugins bring."""

    def __init__(self, extra: Iterable[IdentifierKind] = ()) -> None:
        built_in: tuple[IdentifierKind, ...] = (
            EmailAddress(),
            PhoneNumber(),
            ExternalId("external_id"),
            Visitor("visitor"),
        )
        self._by_name = {kind.name: kind for kind in (*built_in, *extra)}

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> IdentifierKind:
        return self._by_name[name]

    def get(self, name: str) -> IdentifierKind | None:
        """Give the kind called `name`, or None where no plugin brought it."""
        return self._by_name.get(name)


def has_mixed_scripts(key: str) -> bool:
    """Say whether the letters of `key` come from several scripts, as in a look-alike address (UTS #39).

    A domain is judged by its Unicode form. The answer is a flag for people, never part of a match.
    """
    if key.isascii() and "xn--" not in key:
        return False
    local, at, domain = key.rpartition("@")
    try:
        shown = f"{local}{at}{idna.decode(domain)}" if at else key
    except UnicodeError:
        shown = key
    parts = re.split(r"[@.]", shown)
    return any(len({unicodedata.name(c, "?").split()[0] for c in part if c.isalpha()}) > 1 for part in parts)
