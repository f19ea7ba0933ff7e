"""How an e-mail channel sends: the settings of each way (`by`)."""

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, le, matches_re

from convsdk.core.ports import Secret, is_secret

if TYPE_CHECKING:
    from attrs import Attribute

_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
# No part of a name is empty or has more than 63 characters (RFC 1035, 2.3.4).
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9:_-]{1,63}(?:\.[A-Za-z0-9:_-]{1,63})*\.?")
# The region of SES that was there first names itself differently.
_SES_DOMAINS = {"us-east-1": "email.amazonses.com"}
_REGION = r"[a-z]{2}(-[a-z]+)+-\d{1,2}"


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine, so that nobody is on the way to it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ses_message_id(number: str, region: str) -> str:
    """Give the Message-ID of a mail that Amazon SES has sent under the id `number`; empty where that is."""
    return f"<{number}@{_SES_DOMAINS.get(region, f'{region}.amazonses.com')}>" if number else ""


def _is_host(_: object, attribute: "Attribute[str]", value: str) -> None:
    if not _HOST.fullmatch(value):
        raise ValueError(f"{attribute.name}: {value!r} is no host: write a name such as 'mail.shop.example'")


@frozen(kw_only=True)
class SmtpSending:
    """Sends through a mail server (RFC 5321), the business's own or a provider's.

    `tls`: "starttls" (RFC 3207) refuses a server that offers none, "implicit" speaks TLS from the start (RFC 8314),
    "none" encrypts nothing. None: "starttls", and "none" to this machine. `port` 0 is the usual one of the three: 587,
    465, 25. `ca_file` holds the certificates of who signs the server's, in PEM, in place of the well-known ones. At
    most `connections` are open at once, one that is not used for `idle_s` is closed, and `timeout_s` is how long the
    server may say nothing (behind a mail five times as long, and a second more for each 128 KiB of it). `greeting` is
    the name in EHLO; empty: this machine's.
    """

    by: ClassVar[str] = "smtp"

    host: str = field(validator=_is_host)
    port: int = field(default=0, validator=[ge(0), le(65_535)])
    tls: Literal["implicit", "starttls", "none"] | None = None
    user: str = ""
    password: Secret = field(default=Secret(""))
    ca_file: str = ""
    greeting: str = field(default="", validator=matches_re(r"[A-Za-z0-9.:\[\]-]{0,253}"))
    connections: int = field(default=4, validator=[ge(1), le(100)])
    idle_s: float = field(default=20.0, validator=gt(0))
    timeout_s: float = field(default=60.0, validator=gt(0))

    def __attrs_post_init__(self) -> None:
        if bool(self.user) != bool(self.password):
            raise ValueError("password and user belong together: give both, or neither")
        if self.password and self.tls_used == "none" and not is_loopback(self.host):
            raise ValueError('tls: anybody on the way would read the password: take "starttls" or "implicit"')

    @property
    def tls_used(self) -> Literal["implicit", "starttls", "none"]:
        """Give how the connection is encrypted."""
        return self.tls or ("none" if is_loopback(self.host) else "starttls")

    @property
    def port_used(self) -> int:
        """Give the port that is connected to."""
        return self.port or _PORTS[self.tls_used]


@frozen(kw_only=True)
class MailgunSending:
    """Sends through Mailgun: `domain` is the sending domain there, `region` where it was made."""

    by: ClassVar[str] = "mailgun"

    domain: str = field(validator=_is_host)
    key: Secret = field(validator=is_secret())
    region: Literal["us", "eu"] = "us"


@frozen(kw_only=True)
class PostmarkSending:
    """Sends through Postmark: `token` is the server's, `stream` the message stream."""

    by: ClassVar[str] = "postmark"

    token: Secret = field(validator=is_secret())
    stream: str = field(default="outbound", validator=matches_re(r"[A-Za-z0-9-]{1,100}"))


@frozen(kw_only=True)
class SesSending:
    """Sends through Amazon SES. The key needs the right `ses:SendEmail` (and `ses:SendRawEmail`) and no other.

    `session_token` belongs to a temporary key.
    """

    by: ClassVar[str] = "ses"

    region: str = field(validator=matches_re(_REGION))
    key_id: str = field(validator=matches_re(r"[A-Z0-9]{16,128}"))
    secret_key: Secret = field(validator=is_secret())
    session_token: Secret | None = None
    configuration_set: str = field(default="", validator=matches_re(r"[A-Za-z0-9_-]{0,64}"))


Sending = SmtpSending | MailgunSending | PostmarkSending | SesSending
"""One way to send; `by` is its name."""
