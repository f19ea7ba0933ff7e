"""Facebook Messenger and Instagram: signed webhooks in, answers by the Send API.

Contacts come by an agent's entry or, where set so, at the first message.
"""

import builtins
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar

import httpx
from attrs import evolve

from convsdk.channels.messenger.graph import Graph
from convsdk.channels.messenger.parse import read_events
from convsdk.channels.messenger.platform import INSTAGRAM, MESSENGER, Platform
from convsdk.channels.messenger.profile import read_profile
from convsdk.channels.messenger.sending import Sending, parts_of
from convsdk.channels.messenger.settings import AppSettings, InstagramSettings, MessengerSettings, Sender
from convsdk.channels.messenger.setup import Setup
from convsdk.core.events import Event, Identified
from convsdk.core.identifiers import EmailAddress, MessagingId
from convsdk.core.model import Claim, Identifier, IdentityHint, Trust, traits_of
from convsdk.core.ports import Capabilities, Channel, Check, Outbound, Receipt, Request, Response
from convsdk.core.signing import hmac_of, is_same, require_header
from convsdk.errors import Forbidden, TransientError, UncertainError
from convsdk.hookspecs import Context, hookimpl

__all__ = [
    "InstagramChannel",
    "InstagramSettings",
    "MessengerChannel",
    "MessengerSettings",
    "Sender",
    "convsdk_channels",
]


class MessengerChannel(Channel):
    """One Meta app's webhook and Send API, for any number of its pages."""

    contract = 1
    type = "messenger"
    settings: ClassVar[builtins.type[AppSettings]] = MessengerSettings
    kinds = (MessagingId(MESSENGER.kind),)
    can = Capabilities(
        verifies=True,
        challenges=True,
        messages=True,
        sends=True,
        attachments=True,
        reactions=True,
        statuses=True,
        echoes=True,
        max_text=MESSENGER.most_text,
        text_size=MESSENGER.size,
        sends_files_apart=True,
        max_per_s=40,
    )
    config: AppSettings
    platform: ClassVar[Platform] = MESSENGER

    # -- in

    def challenge(self, request: Request) -> Response | None:
        if request.method.upper() != "GET" or request.query.get("hub.mode") != "subscribe":
            return None
        if not is_same(request.query.get("hub.verify_token", ""), self.config.verify_token.reveal()):
            raise Forbidden(f"channel {self.name!r}: the handshake's verify token is not the configured one")
        return Response(body=request.query.get("hub.challenge", "").encode("utf-8", "replace"))

    def verify(self, request: Request) -> None:
        right = f"sha256={hmac_of(request.body, self.config.app_secret)}"
        require_header(request, "X-Hub-Signature-256", right, channel=self.name)

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(
            request.body,
            platform=self.platform,
            received_at=request.received_at,
            may_create=self.config.contact_from == "first_message",
        )

    def manual_entry(
        self,
        *,
        page: str,
        psid: str,
        by: str,
        at: datetime,
        entry_id: str,
        email: str = "",
        phone: str = "",
        name: str = "",
        company: str = "",
    ) -> Identified:
        """Give the event for what an agent typed into the visitor details of a conversation.

        It goes to `Hub.receive` under this channel's name, and makes the contact or joins the one that is known.
        `by` names the agent, `entry_id` is the caller's id of this entry (sending it twice changes nothing), `at` an
        aware datetime. Fields that are left blank say nothing.

        Raises:
            ValueError: the entry has no id, person or agent, or its address is none; the text names the field.
        """
        for field_name, value in (("page", page), ("psid", psid), ("by", by), ("entry_id", entry_id)):
            if not value.strip():
                raise ValueError(f"{field_name} of a manual entry is blank: give it")
        if email.strip() and EmailAddress().canonical(email) is None:
            raise ValueError(f"email of a manual entry is {email!r}, which is no e-mail address: correct it")
        points = (("email", email), ("phone", phone))
        hint = IdentityHint(
            at=at,
            identifiers=(
                Claim(self.platform.kind, psid, Trust.CHANNEL, scope=page),
                *(Claim(kind, value.strip(), Trust.AGENT) for kind, value in points if value.strip()),
            ),
            traits=traits_of(Trust.AGENT, name=name, company=company),
            how="manual entry",
            by=by,
        )
        return Identified(external_id=entry_id, thread=f"{page}/{psid}", hint=hint)

    # -- out

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        return parts_of(message, self.platform)

    def build(self, message: Outbound) -> httpx.Request:
        return self._sending.request(message)

    def interpret(self, response: httpx.Response) -> Receipt:
        return self._graph.interpret(response)

    def handover(self, to: Identifier, action: str, *, app: str = "", note: str = "") -> httpx.Request:
        """Give the request that takes, passes (to `app`), requests or releases the thread of a person.

        `action` is as the reference of the handover protocol has it, such as "take_thread_control"; `note` goes along
        to the other app. An `Outbound` with this in its `detail` does the same. Raises `PermanentError`.
        """
        return self._sending.handover(to, action, app=app, note=note)

    def profile_request(self, who: Identifier) -> httpx.Request | None:
        if who.kind != self.platform.kind or who.scope not in self.config.tokens:
            return None
        fields = ",".join(dict.fromkeys((*self.platform.profile, *self.config.profile_fields)))
        return self._graph.get(who.value, {"fields": fields}, sender=who.scope)

    def profile(self, who: Identifier, response: httpx.Response, *, at: datetime) -> IdentityHint | None:
        if response.is_success:
            return read_profile(response.content, who, self.platform, at=at)
        error = self._graph.error(response)
        if isinstance(error, UncertainError):
            raise TransientError(str(error))
        if isinstance(error, TransientError) or self._graph.is_disconnected(error):
            raise error
        return None  # no consent, another app's person, a field that needs a permission: it stays unknown

    def checks(self) -> Sequence[httpx.Request]:
        return tuple(self._setup.requests())

    def judge(self, responses: Sequence[httpx.Response]) -> Sequence[Check]:
        return tuple(self._setup.judge(responses))

    def subscribe(self, callback: str = "") -> Sequence[httpx.Request]:
        return tuple(self._setup.subscriptions(callback))

    @property
    def _graph(self) -> Graph:
        return Graph(channel=self.name, settings=self.config)

    @property
    def _sending(self) -> Sending:
        return Sending(graph=self._graph, platform=self.platform)

    @property
    def _setup(self) -> Setup:
        return Setup(graph=self._graph, platform=self.platform)


class InstagramChannel(MessengerChannel):
    """One Meta app's webhook and Send API, for any number of Instagram accounts."""

    contract = 1
    type = "instagram"
    settings = InstagramSettings
    kinds = (MessagingId(INSTAGRAM.kind),)
    can = evolve(MessengerChannel.can, max_text=INSTAGRAM.most_text, text_size=INSTAGRAM.size)
    platform = INSTAGRAM


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001
    """Give the channels of the Messenger Platform."""
    return [MessengerChannel, InstagramChannel]
