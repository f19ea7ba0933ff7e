"""How an e-mail channel sends: the settings of each way (`by`), and those of its automatic answer."""

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, le, matches_re, max_len, min_len

from convsdk.core.ports import Secret

if TYPE_CHECKING:
    from attrs import Attribute

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {"starttls": 587, "tls": 465, "plain": 25}
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")
_REGION = r"[a-z]{2}(-[a-z]+)+-\d{1,2}"


def _is_host(_: object, attribute: "Attribute[str]", value: str) -> None:
    if not _HOST.fullmatch(value):
        raise ValueError(f"{attribute.name}: {value!r} is no host: write a name such as 'mail.shop.example'")


def _is_given(_: object, attribute: "Attribute[Secret]", value: Secret) -> None:
    if type(value) is not Secret or not value:
        raise ValueError(f"{attribute.name} is no Secret with something in it: give one")


@frozen(kw_only=True)
class SmtpSending:
    """Sends through a mail server (RFC 5321), the business's own or a provider's.

    `security`: `starttls` (RFC 3207) refuses a server that offers none, `tls` speaks TLS from the start (RFC 8314),
    `plain` encrypts nothing. None: `starttls`, and `plain` to this machine. `port` 0 is the usual one of the three:
    587, 465, 25. `ca_file` holds the certificates of who signs the server's, in PEM, in place of the well-known ones.
    At most `connections` are open at once, one that is not used for `idle_s` seconds is closed, and an answer is
    waited for up to `timeout_s` seconds. `greeting` is the name given in EHLO; empty: this machine's.
    """

    by: ClassVar[str] = "smtp"

    host: str = field(validator=_is_host)
    port: int = field(default=0, validator=[ge(0), le(65_535)])
    security: Literal["starttls", "tls", "plain"] | None = None
    username: str = ""
    password: Secret | None = None
    ca_file: str = ""
    greeting: str = ""
    connections: int = field(default=4, validator=[ge(1), le(100)])
    idle_s: float = field(default=20.0, validator=gt(0))
    timeout_s: float = field(default=60.0, validator=gt(0))

    def __attrs_post_init__(self) -> None:
        if bool(self.username) != bool(self.password):
            raise ValueError("password and username belong together: give both, or neither")
        if self.password and self.secured_by == "plain" and self.host not in _LOOPBACK:
            raise ValueError("security: the password would go in the clear: take 'starttls' or 'tls'")

    @property
    def secured_by(self) -> Literal["starttls", "tls", "plain"]:
        """Give how the connection is secured."""
        return self.security or ("plain" if self.host in _LOOPBACK else "starttls")

    @property
    def at_port(self) -> int:
        """Give the port that is connected to."""
        return self.port or _PORTS[self.secured_by]


@frozen(kw_only=True)
class MailgunSending:
    """Sends through Mailgun: `domain` is the sending domain there, `region` where it was made."""

    by: ClassVar[str] = "mailgun"

    domain: str = field(validator=_is_host)
    key: Secret = field(validator=_is_given)
    region: Literal["us", "eu"] = "us"


@frozen(kw_only=True)
class PostmarkSending:
    """Sends through Postmark: `token` is the server's, `stream` the message stream."""

    by: ClassVar[str] = "postmark"

    token: Secret = field(validator=_is_given)
    stream: str = field(default="outbound", validator=matches_re(r"[A-Za-z0-9-]{1,100}"))


@frozen(kw_only=True)
class SesSending:
    """Sends through Amazon SES. The key needs the right `ses:SendEmail` (and `ses:SendRawEmail`) and no other.

    `session_token` belongs to a temporary key.
    """

    by: ClassVar[str] = "ses"

    region: str = field(validator=matches_re(_REGION))
    key_id: str = field(validator=matches_re(r"[A-Z0-9]{16,128}"))
    secret_key: Secret = field(validator=_is_given)
    session_token: Secret | None = None
    configuration_set: str = field(default="", validator=matches_re(r"[A-Za-z0-9_-]{0,64}"))


Sending = SmtpSending | MailgunSending | PostmarkSending | SesSending
"""One way to send; `by` is its name."""


@frozen(kw_only=True)
class AutomaticAnswer:
    """What people are told at once when they write, until `again_after_days` have passed not a second time."""

    text: str = field(validator=min_len(1))
    subject: str = field(default="", validator=max_len(200))
    again_after_days: int = field(default=7, validator=ge(1))
