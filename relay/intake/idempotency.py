"""Requests with an idempotency key: the same again gets the same answer, and sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import NamedTuple

from relay.intake.draft import with_whole_head
from relay.intake.spool import Large
from relay.intake.types import Refused, Submission
from relay.mail.header_text import decoded
from relay.mail.message import Message, first, normalised
from relay.mail.reply import Reply
from relay.policy.requests import HEADER, MOST_KEY_CHARS, REQUESTS_KEPT_S, hash_of_key, hash_of_request, is_key
from relay.store.base import KnownRequests
from relay.store.model import IdempotencyKey

IN_USE_RETRY_S = 1
BAD_KEY = Reply(554, f"5.6.0 expected an idempotency key of 1 to {MOST_KEY_CHARS} printable ASCII characters")
_IN_USE = Reply(451, "4.3.0 a request with this idempotency key is being processed; try again")
_OTHER_REQUEST = Reply(554, "5.6.0 this idempotency key was used for another message")
_HASHED_ON_LOOP_BYTES = 65_536


class Repeated(NamedTuple):
    """The request was accepted before, as this message."""

    message_id: str


class Idempotency:
    """The keys that are in use, beside those that the store knows."""

    def __init__(self, known: KnownRequests, salt: Callable[[], bytes]) -> None:
        """`salt`: the store's, of the hashes."""
        self._known = known
        self._salt = salt
        self._in_use: set[bytes] = set()

    @asynccontextmanager
    async def claimed(
        self, submission: Submission, message: Message, now: float
    ) -> AsyncIterator[IdempotencyKey | Repeated | None]:
        """What to store with the message, whose key is in use until the block ends; None: the request has no key.
        `message`: its header section at least. Raises Refused for a bad key, one that is in use, and one of another
        message; StoreError."""
        text = submission.idempotency_key
        if text is None:
            value = first(message, HEADER)
            if value is None:
                yield None
                return
            text = decoded(value).strip()
        if not is_key(text):
            raise Refused(BAD_KEY, "idempotency")
        key = hash_of_key(self._salt(), text, submission.user)
        if key in self._in_use:
            raise Refused(_IN_USE, "idempotency", retry_after_s=IN_USE_RETRY_S)
        self._in_use.add(key)
        try:
            request = await self._hashed(submission, message)
            known = await self._known.find(key, now - REQUESTS_KEPT_S)
            if known is not None and known.request != request:
                raise Refused(_OTHER_REQUEST, "idempotency")
            yield IdempotencyKey(key, request) if known is None else Repeated(known.message_id)
        finally:
            self._in_use.discard(key)

    async def _hashed(self, submission: Submission, message: Message) -> bytes:
        content, envelope, lane, salt = submission.content, submission.envelope, submission.lane, self._salt()
        if isinstance(content, Large):
            return await asyncio.to_thread(lambda: hash_of_request(salt, envelope, message, _body_of(content), lane))
        body = (message.content[message.body_at :],)
        if len(message.content) > _HASHED_ON_LOOP_BYTES:
            return await asyncio.to_thread(hash_of_request, salt, envelope, message, body, lane)
        return hash_of_request(salt, envelope, message, body, lane)


def _body_of(content: Large) -> Iterator[bytes]:
    pieces = normalised(with_whole_head(content.pieces()))
    begin = next(pieces, b"")
    return chain((begin[begin.find(b"\r\n\r\n") + 4 :],), pieces)
