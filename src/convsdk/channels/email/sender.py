"""Who sent a mail, and how well that is attested.

Raw values are read before anything in them is decoded: an encoded word is never an address. Where two programs could
read two different senders, there is none.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

from attrs import frozen

from convsdk.channels.email.mime import Part, plain, readable
from convsdk.channels.email.settings import EmailSettings, key_of
from convsdk.core.identifiers import EmailAddress
from convsdk.core.model import Trust

_MAX_NAME = 150
_MAX_PARTICIPANTS = 100
_MOST_READ = 1_000

_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_FROM_TOKEN = re.compile(
    rf'(?P<quoted>{_QUOTED})|(?P<word>=\?[^?\s]++\?[bBqQ]\?[^?\s<>@"]*+\?=)|(?P<angle><[^<>"]*+(?:{_QUOTED}[^<>"]*+)?>)'
    r'|(?P<other>[^"<>(),;:\\=]++|=)',
    re.DOTALL,
)
_LONGEST_ADDRESS = 320  # RFC 5321, section 4.5.3.1: 64 octets, an @, and 255
_ADDRESS = re.compile(r'[^\s@<>()\[\]\\,;:"]++@[^\s@<>()\[\]\\,;:"]++')
_QUOTED_LOCAL = re.compile(r'\A"([^\s@<>()\[\]\\,;:"]++)"(?=@)')
# RFC 8601 lets a method name its version, as in `dkim/1=pass`.
_RESULT = re.compile(
    rf"\s*+([a-z0-9._-]++)(?:\s*+/\s*+\d++)?\s*+=\s*+({_QUOTED}|[^\s;\"]++)", re.IGNORECASE | re.DOTALL
)
_RESULT_END = re.compile(r"\s*+(?:;|\Z)")
_COMMENT_MARK = re.compile(rf"{_QUOTED}|\\.|[()]", re.DOTALL)

_ADDRESS_TOKEN = re.compile(rf'{_QUOTED}|<[^<>]*+>|\\.|[^"<\\,;:]++|.', re.DOTALL)


Result = tuple[str, str, dict[str, str]]
"""What one check came to: its method, the result, and its properties."""


@frozen
class Sender:
    """One mailbox: its address as it was spelt, and its display name."""

    address: str
    name: str = ""

    @cached_property
    def key(self) -> str:
        """Give the canonical address, or the spelling where there is none."""
        return key_of(self.address)


def find_sender(head: Part) -> tuple[Sender | None, str]:
    """Give the sender, or None and what is wrong with it: `missing` or `ambiguous`."""
    values = head.all("from")
    if not values:
        return None, "missing"
    sender = read_mailbox(values[0]) if len(values) == 1 else None
    return sender, "" if sender else "ambiguous"


def find_original(head: Part, settings: EmailSettings) -> Sender | None:
    """Give whom a relay's mail is from: the first of its fields that names one mailbox that is not our own."""
    for name in ("x-original-from", "x-original-sender", "reply-to"):
        values = head.all(name)
        sender = read_mailbox(values[0]) if len(values) == 1 else None
        if sender and not settings.is_own(sender.address):
            return sender
    return None


def participants(head: Part, settings: EmailSettings) -> list[str]:
    """Give who else a mail went to, without the business's own addresses; at most a hundred."""
    others = {one.key: one.address for one in _addressed(head) if not settings.is_own(one.address)}
    return list(islice(others.values(), _MAX_PARTICIPANTS))


def is_addressed(head: Part, settings: EmailSettings) -> bool:
    """Say whether a mail names an address of the business in To or Cc."""
    return any(settings.is_own(one.address) for one in _addressed(head))


def _addressed(head: Part) -> Iterator[Sender]:
    pieces = (piece for name in ("to", "cc") for value in head.all(name) for piece in _pieces(value))
    return filter(None, map(read_mailbox, islice(pieces, _MOST_READ)))


def _pieces(value: str) -> list[str]:
    """Give the members of a list of addresses; the name of a group is one more of them, and no mailbox."""
    text, pieces = _without_comments(value), [""]
    if text is None:
        return []
    start = 0
    for match in _ADDRESS_TOKEN.finditer(text):
        if match[0] in {",", ";", ":"}:
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def read_mailbox(value: str) -> Sender | None:
    """Give the mailbox of a raw From value, or None unless it is exactly one (RFC 5322, 3.4).

    The raw value is read before anything in it is decoded, so that an encoded word is never an address. A quoted
    text is only ever a display name or, unneeded, around a local part.
    """
    text = _without_comments(re.sub(r"\r?\n(?=[ \t])", "", value))
    if text is None or not text.strip() or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        return None
    phrase, angle, position = [], "", 0
    while position < len(text):
        match = _FROM_TOKEN.match(text, position)
        if not match or (angle and match[0].strip()):
            return None
        position = match.end()
        if match["angle"]:
            angle = match[0]
            continue
        phrase.append(_unquoted(match[0]) if match["quoted"] else match[0])
    address = _address(angle[1:-1] if angle else text)
    if address is None:
        return None
    return Sender(address, _display_name("".join(phrase)) if angle else "")


def _without_comments(text: str) -> str | None:
    """Give `text` with each comment as a blank; None where the brackets do not pair."""
    kept, depth, position = [], 0, 0
    scanner = re.compile(r"\\.|[()]", re.DOTALL)
    while match := (scanner if depth else _COMMENT_MARK).search(text, position):
        if not depth:
            kept.append(text[position : match.end() - (match[0] in "()")])
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth < 0:
            return None
        if match[0] == ")":
            kept.append("" if depth else " ")
        position = match.end()
    return None if depth else "".join((*kept, text[position:]))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _address(text: str) -> str | None:
    spelling = _QUOTED_LOCAL.sub(r"\1", text.strip(), count=1)
    if len(spelling) > _LONGEST_ADDRESS or "=?" in spelling or not _ADDRESS.fullmatch(spelling):
        return None
    try:
        address = spelling.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return None
    return address if address.isprintable() else None


def _display_name(phrase: str) -> str:
    name = readable(phrase)[:_MAX_NAME].strip()
    if name[:1] in {"'", '"'} and name[-1] == name[0]:
        name = name[1:-1].strip()
    # A name that reads as an address, be its @ a wide or a small one, would be shown as if it were the sender's.
    return "" if "@" in unicodedata.normalize("NFKC", name) else name


@frozen(kw_only=True)
class Verdict:
    """How well the From address is attested, and by what; `is_failed`: its own domain disowns it."""

    trust: Trust = Trust.ASSERTED
    by: str = ""
    is_failed: bool = False


def attest(head: Part, sender: Sender | None, settings: EmailSettings) -> Verdict:
    """Give how well the From address is attested.

    Only the topmost Authentication-Results of `authserv_id` counts: whoever sends a mail can put others below it. What
    a trusted sealer saw goes before what the mail is now, which a forwarder may have changed (RFC 8617).
    """
    if sender is None or not settings.authserv_id:
        return Verdict()
    name, domain = settings.authserv_id.lower(), sender.key.rpartition("@")[2]
    _, results = next(
        (one for one in map(read_results, head.all("authentication-results")) if one[0] == name), ("", [])
    )
    if sealer := _sealer(results, domain, settings):
        return Verdict(trust=Trust.CHANNEL, by=f"arc of {sealer}")
    if any(method == "dmarc" and result == "fail" for method, result, _ in results):
        return Verdict(is_failed=True)
    for method, result, properties in results:
        if result != "pass":
            continue
        if method == "dmarc" and _domain(properties.get("header.from", "")) == domain:
            return Verdict(trust=Trust.CHANNEL, by="dmarc")
        # Some servers, Google's among them, name the signing identity (`i=`), which is inside the signing domain.
        signer = _domain(properties.get("header.d") or properties.get("header.i", "").rpartition("@")[2])
        if method == "dkim" and signer and (domain == signer or domain.endswith("." + signer)):
            return Verdict(trust=Trust.CHANNEL, by=f"dkim of {signer}")
    return Verdict()


def _sealer(results: Sequence[Result], domain: str, settings: EmailSettings) -> str:
    """Give the trusted sealer that saw DMARC pass for `domain`, or nothing."""
    for method, result, properties in results:
        sealer, seen = (_domain(properties.get(f"header.{name}", "")) for name in ("d", "from"))
        if (method, result, seen) == ("arc", "pass", domain) and settings.trusts_sealer(sealer):
            return sealer
    return ""


def _domain(text: str) -> str:
    return (EmailAddress().canonical(f"x@{text}") or "").rpartition("@")[2]


def read_results(value: str) -> tuple[str, list[Result]]:
    """Give the authserv-id and (method, result, properties) of each result (RFC 8601, 2.2); none where malformed.

    What is malformed keeps its name: skipped, it would make room for the results that a sender put below it.
    """
    value = plain(value)
    text = _without_comments(value)
    authority, _, rest = (text or value).partition(";")
    name = (authority.split() or [""])[0].strip('"').lower()
    if text is None:
        return name, []
    found: list[Result] = []
    position, is_new = 0, True
    while position < len(rest):
        match = _RESULT.match(rest, position)
        end = _RESULT_END.match(rest, match.end() if match else position)
        if not match and not end:
            return name, []
        if match:
            key, result = match[1].lower(), match[2].strip('"').lower()
            if is_new:
                found.append((key, result, {}))
            found[-1][2].setdefault(key, result)
        is_new = end is not None
        position = end.end() if end else match.end() if match else len(rest)
    return name, found
