"""The addresses of the chat widget: between HTTP and `chat.py`.

A browser is known by its cookie: made here, first-party, `HttpOnly`, and set once its visitor opens the chat or writes,
or the site says that it may. A page of another site gets the token itself, since browsers keep no cookie for it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Annotated, Self
from urllib.parse import quote

from attrs import evolve, frozen
from litestar import Response as HttpResponse
from litestar import Router, delete, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import SerializationException
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import File as FileResponse
from litestar.response import Stream as StreamResponse

from convsdk.core.events import FieldProblem
from convsdk.core.model import Attachment
from convsdk.core.ports import Widget
from convsdk.hub import Hub
from convsdk.memory import Memory
from convsdk.web.chat import FILE, Chat, Introduced, Said, Seen, Submitted, Visit
from convsdk.web.document import SECURITY, RawBody, empty, raw, told
from convsdk.web.door import PRIVATE, Door, RefusedError, cookie, cookie_token, holds_token, network, write_refusal
from convsdk.web.exchange import Incoming, Limits, read_body
from convsdk.web.files import Files, TooLargeError
from convsdk.web.live import Live
from convsdk.web.pages import is_cross_site
from convsdk.web.views import (
    Accepted,
    Begin,
    EntriesView,
    EntryView,
    FileRules,
    HistoryView,
    Position,
    Problems,
    SessionView,
    Typing,
    Uploaded,
    WidgetView,
)

_INLINE = {"image/png", "image/jpeg", "image/gif", "image/webp"}
# What was uploaded is shown by itself or not at all: it runs nothing, loads nothing, and is taken for nothing else.
_FILE_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "private, max-age=86400",
    "cross-origin-resource-policy": "cross-origin",
}
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

_Id = Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1)]


@frozen
class Home:
    """Where the visitors of a channel are: its hub, what they do there, and what they are told of."""

    hub: Hub
    chat: Chat
    live: Live


class Widgets:
    """The widgets of channels, each at its home, by name.

    `files` keeps their attachments; what else they take shares `memory` while it comes.
    """

    def __init__(self, homes: Mapping[str, Home], *, files: Files, limits: Limits, memory: Memory) -> None:
        self._homes = homes
        self._files = files
        self._limits = limits
        self._memory = memory
        self._door = Door({name: home.hub.channels[name] for name, home in homes.items()}, limits)

    def __deepcopy__(self, _: object) -> Self:
        return self  # Litestar copies its handlers, and with them what they are bound to

    def widget(self, channel: str) -> Widget | None:
        """Give how a channel is shown, or None where no widget shows it."""
        home = self._homes.get(channel)
        return home.hub.channels[channel].widget if home else None

    def router(self) -> Router:
        """Give the addresses."""
        take = partial(
            post,
            before_request=self._read,
            status_code=200,
            response_description="It was done.",
            responses=told(401, 408, 413, 415),
        )
        give = partial(get, response_description="What was asked for.", responses=told(401))
        taken = ResponseSpec(Accepted, description="It was taken.", generate_examples=False)
        problems = ResponseSpec(Problems, description="What is wrong with each field.", generate_examples=False)
        return Router(
            "/widget/{channel:str}",
            route_handlers=[
                give("/", responses=told())(self.show),
                take("/session")(self.begin),
                delete("/session", status_code=204, responses=told() | empty(_204="There is no session now."))(
                    self.end
                ),
                take("/identity")(self.identify),
                give("/conversations")(self.conversations),
                give("/messages")(self.messages),
                take("/messages")(self.say),
                take("/forms", responses=told(408, 413, 415) | {200: taken, 422: problems})(self.submit),
                take("/seen", status_code=204)(self.see),
                take("/typing", status_code=204)(self.type),
                post("/files", request_max_body_size=None, operation_class=RawBody, responses=told(401, 408, 413, 415))(
                    self.upload
                ),
                get("/files/{number:str}", responses=told(401) | {200: raw("*/*", "The file.")})(self.download),
                get("/events", responses=told(401) | {200: raw("text/event-stream", "The events.")})(self.listen),
            ],
            exception_handlers={Exception: write_refusal},
            request_max_body_size=self._limits.body_bytes,
            security=SECURITY,
            tags=["widget"],
        )

    async def _read(self, request: Incoming) -> None:
        """Read what is to be JSON before anything is done with it, in the time that there is for that."""
        if request.content_type[0] != "application/json":  # a form of another page can send other types unasked
            raise RefusedError(415, "media_type", "the body is not JSON: send it as application/json")
        await read_body(request, limits=self._limits, memory=self._memory)
        try:
            await request.json()
        except (SerializationException, RecursionError, UnicodeError):
            raise RefusedError(400, "unreadable", "the body is no JSON in UTF-8, or nested too deep") from None

    def _chat(self, visit: Visit) -> Chat:
        return self._homes[visit.channel.name].chat

    def _live(self, visit: Visit) -> Live:
        return self._homes[visit.channel.name].live

    def _hub(self, visit: Visit) -> Hub:
        return self._homes[visit.channel.name].hub

    async def _visit(self, request: Incoming, *, is_write: bool = False) -> Visit:
        channel, token = self._door.let_in(request, is_write=is_write)
        visit = await asyncio.to_thread(self._homes[channel.name].chat.visit, channel, token)
        if is_write and visit.session:
            self._door.require_pace(visit.session.visitor)
        return visit

    async def _own_visit(self, request: Incoming, *, is_write: bool = False) -> Visit:
        visit = await self._visit(request, is_write=is_write)
        if visit.session is None:
            raise RefusedError(401, "no_session", "this browser has no session: POST to /session first")
        return visit

    async def _begun(self, request: Incoming) -> Visit:
        visit = await self._visit(request, is_write=True)
        return await asyncio.to_thread(self._chat(visit).begin, visit)

    async def _view(self, visit: Visit, request: Incoming, *, is_kept: bool) -> SessionView:
        assert visit.session is not None  # noqa: S101  (for the type checker: who asks has one)
        session = visit.session
        conversation, unread = await asyncio.to_thread(
            lambda: (self._chat(visit).current(visit), self._chat(visit).unread(visit))
        )
        # What is in a cookie stays out of the reach of scripts, whatever a page asks for.
        is_hidden = is_kept or visit.token == cookie_token(request, visit.channel.name)
        return SessionView(
            visitor=session.public,
            is_proven=session.is_proven(self._chat(visit).now()),
            conversation=conversation,
            unread=unread,
            token=None if is_hidden else visit.token,
        )

    def _cookies(self, visit: Visit, request: Incoming) -> list[Cookie]:
        """Give the cookie of a visit, with each answer anew, so that its time begins anew: where the browser has it."""
        return [] if holds_token(request) else [self._cookie(visit)]

    def _cookie(self, visit: Visit) -> Cookie:
        return cookie(visit.channel.name, visit.token, int(self._chat(visit).visitors.keep.total_seconds()))

    async def _accepted(self, visit: Visit, request: Incoming, client_id: str) -> HttpResponse[Accepted]:
        self._live(visit).wake()
        shown = await self._view(visit, request, is_kept=not holds_token(request))
        content = Accepted(accepted=(client_id,), conversation=shown.conversation, session=shown)
        return HttpResponse(content, status_code=200, cookies=self._cookies(visit, request), headers=PRIVATE)

    async def show(self, request: Incoming) -> HttpResponse[WidgetView]:
        """Tell how the widget looks. No browser gets a cookie by it; one that has a session keeps that for longer."""
        visit = await self._visit(request)
        widget = visit.channel.widget or Widget()
        content = WidgetView(
            title=widget.title,
            greeting=widget.greeting,
            color=widget.color,
            forms=dict(visit.channel.forms),
            attachments=FileRules(max_bytes=widget.file_bytes, types=widget.file_types if widget.file_bytes else ()),
            has_agents=bool(await asyncio.to_thread(self._hub(visit).on_duty)),
            session=await self._view(visit, request, is_kept=not holds_token(request)) if visit.session else None,
        )
        sent = self._cookies(visit, request) if visit.session else []
        return HttpResponse(content, cookies=sent, headers=PRIVATE)

    async def begin(self, request: Incoming, data: JSONBody[Begin]) -> HttpResponse[SessionView]:
        """Begin a session, or go on with the one that this browser has; its time begins anew."""
        visit = await self._begun(request)
        if data.is_open:
            await asyncio.to_thread(self._chat(visit).open, visit)
            self._live(visit).wake()
        # Also where the browser had but the token, in memory: from now on it may keep it.
        is_kept = data.keep and not is_cross_site(request.headers)
        shown = await self._view(visit, request, is_kept=is_kept)
        sent = [self._cookie(visit)] if is_kept else []
        return HttpResponse(shown, status_code=200, cookies=sent, headers=PRIVATE)

    async def end(self, request: Incoming) -> HttpResponse[None]:
        """End the session of this browser: its visitor logged out, or wants nothing kept."""
        visit = await self._visit(request, is_write=True)
        await asyncio.to_thread(self._chat(visit).reset, visit)
        if visit.session:
            self._live(visit).tell((visit.channel.name, visit.session.visitor), "session")
        return HttpResponse(None, status_code=204, cookies=[cookie(visit.channel.name, "", 0)], headers=PRIVATE)

    async def identify(self, request: Incoming, data: JSONBody[Introduced]) -> HttpResponse[SessionView]:
        """Take what the page says of who is there. The answer is the same whether or not anybody is known by it."""
        before = await self._own_visit(request, is_write=True)
        visit = await asyncio.to_thread(self._chat(before).identify, before, data)
        if before.session and visit.token != before.token:
            self._live(visit).tell((visit.channel.name, before.session.visitor), "session")
        self._live(visit).wake()
        shown = await self._view(visit, request, is_kept=not holds_token(request))
        return HttpResponse(shown, status_code=200, cookies=self._cookies(visit, request), headers=PRIVATE)

    async def conversations(self, request: Incoming) -> HttpResponse[EntriesView]:
        """List the conversations that this visitor may read, the newest first."""
        visit = await self._own_visit(request)
        current, entries = await asyncio.to_thread(
            lambda: (self._chat(visit).current(visit), self._chat(visit).entries(visit))
        )
        views = tuple(
            EntryView(
                id=one.filing.id,
                channel=one.filing.channel,
                subject=one.filing.subject,
                last_at=one.filing.last_at,
                is_own=one.is_own,
                is_current=one.filing.id == current,
                unread=one.unread,
                last=one.last,
            )
            for one in entries
        )
        return HttpResponse(EntriesView(conversations=views), headers=PRIVATE)

    async def messages(
        self, request: Incoming, conversation: _Id = None, before: _Id = None, after: _Id = None
    ) -> HttpResponse[HistoryView]:
        """Give messages of a conversation: the newest, those before one, or those after one."""
        visit = await self._own_visit(request)

        def read() -> HistoryView:
            history = self._chat(visit).history(visit, conversation, before=before, after=after)
            return HistoryView(
                conversation=history.conversation,
                messages=tuple(_with_addresses(one, visit.channel.name) for one in history.messages),
                has_more=history.has_more,
                expects=self._chat(visit).expects(visit, history.conversation),
                has_agents=bool(self._hub(visit).on_duty()),
            )

        return HttpResponse(await asyncio.to_thread(read), headers=PRIVATE)

    async def say(self, request: Incoming, data: JSONBody[Said]) -> HttpResponse[Accepted]:
        """Send a message. The same id again is the same message."""
        visit = await self._begun(request)
        await asyncio.to_thread(self._chat(visit).say, visit, data)
        return await self._accepted(visit, request, data.id)

    async def submit(
        self, request: Incoming, data: JSONBody[Submitted]
    ) -> HttpResponse[Accepted] | HttpResponse[Problems]:
        """Send a form that the bot automation asked for; 422 tells what is wrong with each field."""
        visit = await self._begun(request)
        rejected = await asyncio.to_thread(self._chat(visit).submit, visit, data)
        if rejected is None:
            return await self._accepted(visit, request, data.id)
        problems: dict[str, list[FieldProblem]] = {}
        for one in rejected.problems:
            problems.setdefault(one.field, []).append(one)
        return HttpResponse(
            Problems(problems=problems), status_code=422, cookies=self._cookies(visit, request), headers=PRIVATE
        )

    async def see(self, request: Incoming, data: JSONBody[Position]) -> None:
        """Remember how far a conversation was read."""
        visit = await self._own_visit(request, is_write=True)
        await asyncio.to_thread(self._chat(visit).read, visit, data.conversation, data.message)

    async def type(self, request: Incoming, data: JSONBody[Typing]) -> None:
        """Tell the staff that the visitor is writing."""
        visit = await self._own_visit(request)
        conversation = await asyncio.to_thread(self._chat(visit).current, visit)
        if conversation is not None:
            self._live(visit).tell(
                ("staff", str(conversation)), "typing", conversation=conversation, is_typing=data.is_typing
            )

    async def upload(
        self, request: Incoming, name: Annotated[str, QueryParameter(max_length=1000)] = ""
    ) -> HttpResponse[Uploaded]:
        """Upload a file as the raw body, to attach it to a message."""
        # The answer tells no token: a page that holds it itself begins first.
        visit = await (self._own_visit if holds_token(request) else self._visit)(request, is_write=True)
        widget = visit.channel.widget or Widget()
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not widget.file_bytes or media_type not in widget.file_types:
            raise RefusedError(415, "file_type", f"files of this type are not taken: {', '.join(widget.file_types)}")
        self._door.require_upload_pace(request)
        visit = await asyncio.to_thread(self._chat(visit).begin, visit)
        assert visit.session is not None  # noqa: S101  (for the type checker: begin made one)
        try:
            async with asyncio.timeout(self._limits.file_time_s):
                kept = await self._files.keep(
                    request.stream(),
                    channel=visit.channel.name,
                    visitor=visit.session.visitor,
                    name=name,
                    media_type=media_type,
                    most=widget.file_bytes,
                )
        except TooLargeError:
            raise RefusedError(413, "too_large", f"a file may have {widget.file_bytes} bytes") from None
        except TimeoutError:
            raise RefusedError(408, "slow", "the file did not come in time: try again") from None
        content = Uploaded(id=kept.id, name=kept.name, media_type=kept.media_type, size=kept.size)
        return HttpResponse(content, status_code=201, cookies=self._cookies(visit, request), headers=PRIVATE)

    async def download(self, request: Incoming, number: FromPath[str]) -> FileResponse:
        """Give a file that this visitor may read."""
        visit = await self._own_visit(request)
        found = await asyncio.to_thread(self._chat(visit).file, visit, number)
        return FileResponse(
            self._files.path(found.id),
            media_type=found.media_type,
            filename=found.name,
            content_disposition_type="inline" if found.media_type in _INLINE else "attachment",
            headers=_FILE_HEADERS,
        )

    async def listen(self, request: Incoming) -> StreamResponse:
        """Tell when there is something new, as server-sent events; what it is, is read by the other addresses."""
        visit = await self._own_visit(request)
        assert visit.session is not None  # noqa: S101  (for the type checker: own_visit has one)
        own = (visit.channel.name, visit.session.visitor)
        address = ("", network(request))  # nothing is told by it, since no channel has an empty name: it is counted
        live, limits = self._live(visit), self._limits

        def is_full() -> bool:
            of_own, of_address = live.listening(own), live.listening(address)
            is_beyond = of_own >= limits.visitor_streams or of_address >= limits.address_streams
            return is_beyond or live.open >= limits.streams

        if is_full():
            raise RefusedError(503, "too_many_streams", "no more event streams: ask now and then", retry_after_s=30)
        readable = await asyncio.to_thread(self._chat(visit).readable, visit.session)

        async def events() -> AsyncIterator[bytes]:
            if is_full():  # others came in at the same time
                return
            with live.listen([own, address, *readable]) as stream:
                async for event in stream.events():
                    yield event

        return StreamResponse(events(), media_type="text/event-stream", headers=_STREAM_HEADERS)


def _with_addresses(message: Seen, channel: str) -> Seen:
    """Give a message with the addresses of its attachments: of those that are kept here, seen from the script's."""

    def addressed(one: Attachment) -> Attachment:
        number = one.url.removeprefix(FILE)
        # The browser knows under which prefix the app is; not every host, and no proxy, tells the app.
        return evolve(one, url=f"widget/{quote(channel)}/files/{number}") if number != one.url else one

    return evolve(message, attachments=tuple(map(addressed, message.attachments)))
