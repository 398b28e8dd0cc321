"""`POST /api/send`: takes a message as JSON or as it is, and answers once it is durable."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.mail.compose import NotComposable, field_of, mailbox
from relay.mail.message import LARGE_HEAD_BYTES, parse
from relay.policy.requests import MOST_KEY_CHARS, is_key
from relay.web.connections import Connection
from relay.web.guard import SEND
from relay.web.letter import CLIENT, TooMany, Unreadable, distinct, letter_of
from relay.web.operation import Body, Headers, Query, operation
from relay.web.responses import PAUSE_S, Json, send_error, small_json
from relay.web.sender import CannotReceive, NotSent, Outgoing, Sender, Upload
from relay.web.webhooks import BODY_WITHIN_S

if TYPE_CHECKING:
    from relay.web import documents

MAX_JSON_BYTES = 5_000_000
ON_LOOP_BYTES = 4_096
ON_LOOP_QUOTES = 80
"""A JSON body up to this, with so many quotation marks, is read on the event loop, in a millisecond or two. It's the
texts that take time, not the bytes: 90 empty files fit in 4 kB and take 30 ms."""
ALONE_BYTES = 262_144
"""of larger ones only one at a time is read: codes share the interpreter with it, and don't wait for it themselves"""
_PIECE_BYTES = 65_536
_PARAMETERS = ("from", "to", "lane")
_REPLACEMENT = "\ufffd"
"""what the library makes of bytes that aren't UTF-8"""
_BROKEN_OFF = NotSent(400, "unreadable", "the body ended too early or is broken", "syntax")


class _Wanted(NamedTuple):
    """A message that came in, and its envelope."""

    sender: str
    recipients: tuple[str, ...]
    lane: str | None
    upload: Upload


class Send:
    """The handler."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._alone = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        return [web.post(SEND, self.post)]

    @operation("send", "sending", statuses=(202,), errors=(400, 408, 409, 413, 422, 429))
    async def post(
        self,
        request: Annotated[
            web.Request,
            Query(documents.SendParameters),
            Headers(documents.SendHeaders),
            Body(documents.Letter, ("message/rfc822",)),
        ],
    ) -> Json[documents.Sent] | web.Response:
        """Take a message, as JSON or as it is, and answer once it is on stable storage. The rules, limits and
        suppressions of SMTP hold here, too."""
        try:
            message_id = await self._send(request)
        except CannotReceive as error:
            if error.answer.reason is not None:
                self._sender.refused(error.answer.reason)
            return _error(error.answer)
        except NotComposable as error:
            self._sender.refused("syntax")
            return _error(_invalid(str(error)).answer)
        return small_json({"id": message_id}, 202)

    async def _send(self, request: web.Request) -> str:
        """The message's id. Raises CannotReceive, NotComposable."""
        key = _only(request, "Idempotency-Key")
        if (refusal := self._sender.unavailable(has_key=key is not None)) is not None:
            raise CannotReceive(refusal)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise CannotReceive(NotSent(415, "unsupported_type", "a compressed body isn't read: send it as it is"))
        if key is not None and not is_key(key):
            raise _invalid(f"Idempotency-Key: expected 1 to {MOST_KEY_CHARS} printable ASCII characters")
        # Now: once the client has hung up nothing is known of it, and mail of no known address counts as local.
        if request.transport is None:
            raise CannotReceive(_BROKEN_OFF)
        peer = request.transport.get_extra_info("peername")
        began = time.monotonic()
        is_json = request.content_type == "application/json"
        wanted = await (self._receive_json(request) if is_json else self._receive_whole(request))
        try:
            if wanted.lane is not None and wanted.lane not in self._sender.lanes():
                raise CannotReceive(NotSent(422, "unknown_lane", "lane: there is no lane of that name", "syntax"))
            if wanted.upload.size_bytes > self._sender.most_bytes():
                raise self._too_large()
        except BaseException:
            wanted.upload.close()
            raise
        ended = time.monotonic()
        outgoing = Outgoing(
            sender=wanted.sender,
            recipients=wanted.recipients,
            lane=wanted.lane,
            idempotency_key=key,
            client=peer[0] if isinstance(peer, tuple) else None,
            receive_s=ended - began,
            received_at=ended,
        )
        sent = await self._sender.send(outgoing, wanted.upload)
        if isinstance(sent, NotSent):
            raise CannotReceive(sent)
        return sent

    async def _receive_json(self, request: web.Request) -> _Wanted:
        """A message that is composed of a document."""
        if request.query_string:
            raise _invalid("a JSON request has its fields in the body, and no parameters")
        text = f"a JSON body has at most {MAX_JSON_BYTES} bytes: send the message as message/rfc822"
        client, most = _only(request, CLIENT), self._sender.most_recipients()
        upload = self._sender.begin()
        try:
            await _receive(request, upload, MAX_JSON_BYTES, CannotReceive(NotSent(413, "too_large", text, "size")))
            read = upload.reader()
            if upload.size_bytes <= ON_LOOP_BYTES and _has_few_texts(body := read()):
                letter = letter_of(body, client, most, _no_pause)
            else:
                async with self._alone if upload.size_bytes > ALONE_BYTES else nullcontext():
                    letter = await asyncio.to_thread(lambda: letter_of(read(), client, most, _pause))
        except Unreadable:
            raise CannotReceive(NotSent(400, "unreadable", "the body is not JSON in UTF-8", "syntax")) from None
        except TooMany:
            raise self._too_many() from None
        finally:
            upload.close()
        composed = self._sender.begin()
        try:
            for at in range(0, len(letter.content), _PIECE_BYTES):
                if at:
                    await asyncio.sleep(0)
                composed.write(letter.content[at : at + _PIECE_BYTES])
        except BaseException:
            composed.close()
            raise
        return _Wanted(letter.sender, letter.recipients, letter.lane, composed)

    async def _receive_whole(self, request: web.Request) -> _Wanted:
        """A message as it is, with its envelope in the parameters."""
        sender, recipients, lane = self._parameters(request)
        client = _only(request, CLIENT)
        field = None if client is None else field_of(CLIENT, CLIENT, client)
        upload = self._sender.begin()
        try:
            sink = upload if field is None else _WithField(upload, CLIENT.lower(), field)
            await _receive(request, sink, self._sender.most_bytes(), self._too_large())
            if isinstance(sink, _WithField):
                sink.finish()
            if not upload.size_bytes:
                raise _invalid("the body is empty: expected a message")
        except BaseException:
            upload.close()
            raise
        return _Wanted(sender, recipients, lane, upload)

    def _parameters(self, request: web.Request) -> tuple[str, tuple[str, ...], str | None]:
        """Sender, recipients, lane. Raises CannotReceive, NotComposable."""
        for name, value in request.query.items():
            if name not in _PARAMETERS:
                raise _invalid(f"unknown parameter; known are {', '.join(_PARAMETERS)}")
            if _REPLACEMENT in value:
                raise NotComposable(name, "expected UTF-8, percent-encoded")
        for name in ("from", "lane"):
            if len(request.query.getall(name, [])) > 1:
                raise NotComposable(name, "this parameter is given twice")
        if "from" not in request.query or "to" not in request.query:
            missing = "to" if "from" in request.query else "from"
            raise NotComposable(missing, "this parameter is required, as in ?from=a@example.com&to=b@example.net")
        sender = request.query["from"]
        # The null sender, for what must not bounce (RFC 5321 4.5.5).
        address = "" if sender in ("", "<>") else mailbox("from", sender).address
        to = [mailbox("to", one) for one in request.query.getall("to")]
        try:
            recipients = distinct(to, self._sender.most_recipients())
        except TooMany:
            raise self._too_many() from None
        return address, tuple(one.address for one in recipients), request.query.get("lane")

    def _too_many(self) -> CannotReceive:
        text = f"to: a message has at most {self._sender.most_recipients()} recipients"
        return CannotReceive(NotSent(422, "too_many_recipients", text, "recipients"))

    def _too_large(self) -> CannotReceive:
        text = f"a message has at most {self._sender.most_bytes()} bytes (limits.message_size)"
        # As all that SMTP answers 5yz (552).
        return CannotReceive(NotSent(422, "too_large", text, "size"))


class _WithField:
    """Writes a message to an upload, with a field more, unless it has one of that (lower-case) name."""

    def __init__(self, upload: Upload, name: str, field: bytes) -> None:
        self._upload = upload
        self._name = name
        self._field = field
        self._head: bytes | None = b""
        """what came so far; None: it is written"""

    def write(self, piece: bytes) -> None:
        if self._head is None:
            self._upload.write(piece)
            return
        self._head += piece
        if len(self._head) > LARGE_HEAD_BYTES or b"\n\r\n" in self._head or b"\n\n" in self._head:
            self.finish()

    def finish(self) -> None:
        """Write what is left."""
        head, self._head = self._head, None
        if not head:
            return
        # No more than that: 260 kB of short fields would take a tenth of a second, on the event loop.
        message = parse(head[:LARGE_HEAD_BYTES])
        if all(one.name != self._name for one in message.fields):
            at = next((one.start for one in message.fields if one.name), 0)
            head = head[:at] + self._field + head[at:]
        self._upload.write(head)


async def _receive(request: web.Request, sink: Upload | _WithField, most_bytes: int, too_large: CannotReceive) -> None:
    """Write the body to the sink as it comes, other connections in between. Raises `too_large`, and CannotReceive where
    the body comes too slowly or is broken."""
    connection = request.protocol
    assert isinstance(connection, Connection), "every listener of the relay makes it"
    if (request.content_length or 0) > most_bytes:
        raise too_large
    received_bytes = 0
    try:
        with connection.receiving_body():
            async with asyncio.timeout(BODY_WITHIN_S):
                async for piece in request.content.iter_any():
                    received_bytes += len(piece)
                    if received_bytes > most_bytes:
                        raise too_large
                    sink.write(piece)
                    if received_bytes > ON_LOOP_BYTES:
                        await asyncio.sleep(0)
    except TimeoutError:
        raise CannotReceive(NotSent(408, "too_slow", "the body came too slowly", "timeout")) from None
    except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
        raise CannotReceive(_BROKEN_OFF) from None


def _only(request: web.Request, name: str) -> str | None:
    """The value of a header field that may be given once. Raises CannotReceive."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise _invalid(f"{name}: this header field is given twice")
    return values[0] if values else None


def _has_few_texts(body: bytes) -> bool:
    return body.count(b'"') - body.count(b'\\"') <= ON_LOOP_QUOTES


def _invalid(text: str) -> CannotReceive:
    return CannotReceive(NotSent(422, "invalid", text, "syntax"))


def _error(answer: NotSent) -> web.Response:
    response = send_error(answer.status, answer.message, answer.code)
    if answer.retry_after_s is not None:
        response.headers["Retry-After"] = str(answer.retry_after_s)
    return response


def _pause() -> None:
    time.sleep(PAUSE_S)


def _no_pause() -> None:
    pass
