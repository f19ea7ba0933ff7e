"""What sort of mail it is: whether a person wrote it, and else which program, told by the first sign that fits."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from attrs import field, frozen

from convsdk.channels.email.mime import Part, message_ids, one_line, parameter, plain
from convsdk.channels.email.sender import Sender, is_addressed
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.ports import Envelope

_REPORTS = {"delivery-status": "bounce", "disposition-notification": "disposition", "feedback-report": "feedback"}

REPORTED = frozenset(_REPORTS.values())
"""The sorts of mail by which programs report on one of ours."""

NAMELESS = REPORTED | {"own", "confirmation"}
"""The sorts of mail whose From is no person's."""

_FORWARDING = "forwarding-noreply@google.com"
# Only a link to Google itself: agents are asked to open it.
_LINK = re.compile(r"https://(?:mail-settings|mail|isolated\.mail)\.google\.com/[!-;=?-~]{1,500}")
_CODE = re.compile(r"#(\d{6,12})\b")
_MAIL_TO = re.compile(r"<mailto:([^<>?\s]{1,320})")
_NO_READER = re.compile(
    r"(?:.*[-_.+])?(?:no|do[-_.]?not|dont)[-_.]?reply.*|owner-.*|.*-request|mailer-daemon|postmaster|bounces?\b.*"
)
# A mail server gives up after five days (RFC 5321, 4.5.4.1), and few deliver what is older than two.
_OLD = timedelta(days=2)
_SUPPRESSED = {"all", "autoreply"}
_LIST_FIELDS = ("list-id", "list-unsubscribe", "list-post", "mailing-list", "x-mailing-list")


@frozen(kw_only=True)
class Mail:
    """What a mail is classified by. `sender` is the mailbox of its From, `author` whom that speaks for, if another.

    `answers` are the ids of the mails that it answers, `received_at` is when it came.
    """

    head: Part
    sender: Sender | None
    author: Sender | None
    settings: EmailSettings
    received_at: datetime
    envelope: Envelope | None = None
    answers: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def is_passed_on(self) -> bool:
        """Say whether a form, a group or a colleague of ours handed it on."""
        return self.author is not self.sender


@frozen
class Kind:
    """What sort of mail it is (`human`, `list`, `automatic`, ...), and by which sign."""

    name: str
    why: str


def classify(mail: Mail) -> Kind:
    """Give what sort of mail it is; the order decides where several signs fit."""
    if sign := _sign_of_own(mail):
        return Kind("own", sign)
    report = parameter(mail.head.first("content-type"), "report-type").lower()
    if mail.head.media_type == "multipart/report" and report in _REPORTS:
        return Kind(_REPORTS[report], f"it is a multipart/report of {report}")
    for name, sign_in in _SIGNS:
        if sign := sign_in(mail):
            return Kind(name, sign)
    return Kind("human", "nothing says that a program sent it")


def confirmation(mail: Mail) -> dict[str, str]:
    """Give the link and the code by which a mail provider wants the forwarding to this address confirmed."""
    link, code = _LINK.search(mail.text), _CODE.search(plain(mail.head.first("subject")))
    found = {"link": link[0] if link else "", "code": code[1] if code else ""}
    return {key: value for key, value in found.items() if value}


def sign_against_answer(mail: Mail) -> str:
    """Give the sign by which a person's mail is not to be answered automatically (RFC 3834, 2); empty: it may be."""
    head, author = mail.head, mail.author
    if mail.is_passed_on or author is None:
        return "its author is only said to be one: whoever it is may have written nothing"
    if _NO_READER.fullmatch(author.key.partition("@")[0]):
        return "nobody reads what its From gets"
    if _SUPPRESSED & set(re.split(r"[\s,;]+", plain(head.first("x-auto-response-suppress")).lower())):
        return "it asks for no automatic answer"
    if _is_old(mail):
        return "it was written days before it came"
    return "" if is_addressed(head, mail.settings) else "it names no address of ours in To or Cc"


def _is_old(mail: Mail) -> bool:
    try:
        written_at = parsedate_to_datetime(plain(mail.head.first("date"))[:100])
    except (ValueError, TypeError, IndexError, OverflowError):  # the standard library raises any of them
        return False
    aware = written_at if written_at.tzinfo else written_at.replace(tzinfo=UTC)
    return mail.received_at - aware > _OLD


def _sign_of_own(mail: Mail) -> str:
    if any(map(mail.settings.is_own_id, message_ids(mail.head.first("message-id")))):
        return "its Message-ID is one of ours"
    is_own = mail.author is not None and mail.settings.is_own(mail.author.address)
    return "its From is an address of this business" if is_own else ""


def _sign_of_bounce(mail: Mail) -> str:
    if mail.head.media_type == "multipart/report":
        return "it is a multipart/report"
    if mail.author and mail.author.key.partition("@")[0] in {"mailer-daemon", "postmaster"}:
        return "its From is the mail system"
    # A null return path is what an automatic answer should have as well (RFC 3834, 3.3), and what some forms have.
    if mail.is_passed_on or _sign_of_program(mail):
        return ""
    sender = mail.envelope.sender if mail.envelope else None
    is_null = mail.head.first("return-path").split() == ["<>"] if sender is None else not sender.strip("<> ")
    return "its return path is empty" if is_null else ""


def _sign_of_confirmation(mail: Mail) -> str:
    is_google = mail.author is not None and mail.author.key == _FORWARDING
    return "Gmail asks whether it may forward to this address" if is_google and confirmation(mail) else ""


def _sign_of_program(mail: Mail) -> str:
    """Give the sign by which an automatic answer is known (RFC 3834, 5, and what came before it)."""
    submitted = _token(mail.head, "auto-submitted")
    # A program of ours generates what a contact form sends: a person filled it in.
    if submitted not in ({"", "no", "auto-generated"} if mail.is_passed_on else {"", "no"}):
        return f"Auto-Submitted is {submitted}"
    for name in ("x-autoreply", "x-autorespond"):
        if mail.head.all(name) and _token(mail.head, name) != "no":
            return f"it has {name}"
    return "Precedence is auto_reply" if _token(mail.head, "precedence") == "auto_reply" else ""


def _sign_of_list(mail: Mail) -> str:
    # An answer to our own mail is one, whatever marks a list or a ticket system on its way put on it.
    is_answer = any(map(mail.settings.is_own_id, mail.answers))
    is_own_group = any(map(mail.settings.is_own, _MAIL_TO.findall(mail.head.first("list-post"))))
    if mail.is_passed_on or is_answer or is_own_group:
        return ""
    precedence = _token(mail.head, "precedence")
    if precedence in {"bulk", "list", "junk"}:
        return f"Precedence is {precedence}"
    name = next((name for name in _LIST_FIELDS if mail.head.all(name)), "")
    return f"it has {name}" if name else ""


_SIGNS: Iterable[tuple[str, Callable[[Mail], str]]] = (
    ("bounce", _sign_of_bounce),
    ("confirmation", _sign_of_confirmation),
    ("automatic", _sign_of_program),
    ("list", _sign_of_list),
)


def _token(head: Part, name: str) -> str:
    """Give the first word of a field in lower case, without parameters and comments."""
    if not head.all(name):
        return ""
    return one_line(plain(re.split(r"[;(]", head.first(name), maxsplit=1)[0])).lower()[:40]
