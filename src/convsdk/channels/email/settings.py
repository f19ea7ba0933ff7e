"""Whose mail it is: the settings of an e-mail channel, and what they say about an address."""

import re
from functools import cached_property
from typing import Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import and_, gt, le, max_len, min_len

from convsdk.channels.email.body import REPLY_LINE, is_own_line
from convsdk.channels.email.incoming import Source
from convsdk.channels.email.sending import Sending, is_loopback
from convsdk.core.identifiers import EmailAddress
from convsdk.core.ports import AutomaticAnswer, Secret

# A server may log out who says nothing for half an hour.
_MOST_S = 29 * 60.0

_email = EmailAddress()
_TOKEN = "[a-z2-7]{16,64}"  # noqa: S105  (its form: base32, since some servers fold the case of an address)


def key_of(address: str) -> str:
    """Give the canonical form of an address, or its spelling in lower case where it has none."""
    return _email.canonical(address) or address.lower()


def _is_address(_: object, attribute: "Attribute[Any]", value: str | tuple[str, ...]) -> None:
    for address in (value,) if isinstance(value, str) else value:
        if _email.canonical(address) is None:
            raise ValueError(
                f"{attribute.name}: {address!r} is no e-mail address: write one such as 'help@shop.example'"
            )


def _are_domains(_: object, attribute: "Attribute[Any]", value: tuple[str, ...]) -> None:
    for domain in value:
        if _email.canonical(f"x@{domain}") is None:
            raise ValueError(f"{attribute.name}: {domain!r} is no domain: write one such as 'lists.shop.example'")


def _is_address_or_empty(_: object, attribute: "Attribute[Any]", value: str) -> None:
    if value:
        _is_address(_, attribute, value)


def _is_reply_line(_: object, __: object, value: str) -> None:
    if value and not is_own_line(value):
        raise ValueError(f"reply_line: {value!r} would not be known again: write words between ##- and -##")


def _has_no_line_end(_: object, attribute: "Attribute[Any]", value: str | Secret) -> None:
    text = value.reveal() if isinstance(value, Secret) else value
    if any(one in text for one in "\r\n\0"):
        raise ValueError(f"{attribute.name}: there is a line end or a NUL in it, which IMAP would misread: remove it")


@frozen(kw_only=True)
class ImapSettings:
    """Settings of the mailbox that an e-mail channel reads by IMAP.

    One of `password`, `token` (OAuth 2.0, as XOAUTH2) and `token_file` (the token's file, read at each login, since
    tokens are good for an hour or so) is needed. `tls` is "none" on this machine alone. `done` is what becomes of a
    mail after the commit: it is left as it is, marked as seen, moved to the folder `move_to`, or deleted. `start`:
    whether mail is read that came "now" or later, or all from the "beginning". A server without IDLE is asked every
    `poll_s`; with it, IDLE is renewed every `idle_s`, which is also how soon a dead connection is noticed. `timeout_s`
    is how long the server may say nothing to a command.
    """

    host: str = field(validator=and_(min_len(1), _has_no_line_end))
    user: str = field(validator=and_(min_len(1), _has_no_line_end))
    port: int | None = field(default=None)
    password: Secret = field(default=Secret(""), validator=_has_no_line_end)
    token: Secret = field(default=Secret(""), validator=_has_no_line_end)
    token_file: str = ""
    folder: str = field(default="INBOX", validator=and_(min_len(1), _has_no_line_end))
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    done: Literal["leave", "seen", "move", "delete"] = "leave"
    move_to: str = field(default="", validator=_has_no_line_end)
    start: Literal["now", "beginning"] = "now"
    poll_s: float = field(default=60.0, validator=[gt(0), le(_MOST_S)])
    idle_s: float = field(default=540.0, validator=[gt(0), le(_MOST_S)])
    timeout_s: float = field(default=30.0, validator=gt(0))

    @port.validator
    def _is_port(self, _: object, value: int | None) -> None:
        if value is not None and not 0 < value < 65536:  # noqa: PLR2004  (the last port)
            raise ValueError(f"port: {value} is no port: leave it out, or give 1 to 65535")

    def __attrs_post_init__(self) -> None:
        if sum(map(bool, (self.password, self.token, self.token_file))) != 1:
            raise ValueError("imap: give one of password, token and token_file")
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError('imap: without TLS, anybody on the way reads the password: tls = "none" is for 127.0.0.1')
        if (self.done == "move") != bool(self.move_to) or self.move_to == self.folder:
            raise ValueError('imap: done = "move" and move_to, another folder than folder, go together')

    @property
    def port_used(self) -> int:
        """Give the port: 993 or 143 where none is set."""
        return self.port or (993 if self.tls == "implicit" else 143)


@frozen(kw_only=True)
class EmailSettings:
    """Settings of an e-mail channel.

    `address` is the inbound address; `own` are the business's other addresses, mail from which makes no contact;
    `relays` are those of its own addresses that send for others (a contact form, a group that forwards): their mail
    is from whom its Reply-To or X-Original-From names. `authserv_id` is the name by which the business's own mail
    server signs Authentication-Results (RFC 8601), the only one that is believed. Empty: none is, and each sender is
    only asserted. `trusted_sealers` are the domains of forwarders that are believed in what they saw of a mail before
    they changed it (ARC, RFC 8617). `source` is who posts mail over HTTP; None: it comes by SMTP, LMTP, IMAP or from
    a file.

    `sending` is how it answers; None: it does not. Mail goes out from `sender` (empty: `address`) under `name`, and
    begins with `reply_line`, below which an answer is known to be quoted. `automatic_answer` is what people are told
    at once. `imap` is a mailbox to read: all mail in it is the channel's, whatever address it was sent to.
    """

    address: str = field(validator=_is_address, metadata={"example": "inbound@channel.example"})
    own: tuple[str, ...] = field(default=(), validator=_is_address)
    relays: tuple[str, ...] = field(default=(), validator=_is_address)
    authserv_id: str = ""
    trusted_sealers: tuple[str, ...] = field(default=(), validator=_are_domains)
    source: Source | None = None
    name: str = field(default="", validator=max_len(100))
    sender: str = field(default="", validator=_is_address_or_empty)
    reply_line: str = field(default=REPLY_LINE, validator=_is_reply_line)
    sending: Sending | None = None
    automatic_answer: AutomaticAnswer | None = None
    imap: ImapSettings | None = None

    @cached_property
    def _own_keys(self) -> frozenset[str]:
        return frozenset(map(key_of, (self.address, *filter(None, (self.sender,)), *self.own, *self.relays)))

    @cached_property
    def _relay_keys(self) -> frozenset[str]:
        return frozenset(map(key_of, self.relays))

    @cached_property
    def _parts(self) -> tuple[str, str]:
        local, _, domain = key_of(self.address).rpartition("@")
        return local, domain

    @cached_property
    def _reply_address(self) -> re.Pattern[str]:
        local, domain = map(re.escape, self._parts)
        return re.compile(rf"(?<![a-z0-9.+_-]){local}\+({_TOKEN})@{domain}(?![a-z0-9.-])")

    @cached_property
    def _message_id(self) -> re.Pattern[str]:
        return re.compile(rf"<{_TOKEN}@{re.escape(self._parts[1])}>")

    def is_own(self, address: str) -> bool:
        """Say whether `address` is the business's: the inbound one, with a reply token or without, or another."""
        key = key_of(address)
        return key in self._own_keys or self._reply_address.fullmatch(key) is not None

    def trusts_sealer(self, domain: str) -> bool:
        """Say whether what the ARC sealer `domain` saw of a mail is believed."""
        return f"x@{domain}" in {_email.canonical(f"x@{one}") for one in self.trusted_sealers}

    def is_relay(self, address: str) -> bool:
        """Say whether mail from `address` speaks for somebody else."""
        return key_of(address) in self._relay_keys

    @property
    def public_address(self) -> str:
        """Give the address that its mail is from."""
        return self.sender or self.address

    def has_token(self, token: str) -> bool:
        """Say whether `token` is one that an answer can be known by."""
        return re.fullmatch(_TOKEN, token) is not None

    def reply_address(self, token: str) -> str:
        """Give the address at which an answer to the message with `token` arrives."""
        local, domain = self._parts
        return f"{local}+{token}@{domain}"

    def message_id(self, token: str) -> str:
        """Give the Message-ID of the message with `token`: whoever answers, by either, names the same message."""
        return f"<{token}@{self._parts[1]}>"

    def is_own_id(self, message_id: str) -> bool:
        """Say whether `message_id` is of a message that this channel sent."""
        return self._message_id.fullmatch(message_id) is not None

    def reply_tokens(self, text: str) -> list[str]:
        """Give the reply tokens in the inbound addresses that stand in `text`, in whatever case."""
        return self._reply_address.findall(text.lower())
