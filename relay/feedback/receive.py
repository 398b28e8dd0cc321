"""What becomes of a posted webhook: its proof is checked, its events are found and stored; then it is answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, Protocol

from relay.feedback.correlate import Miss, Search, Upstream
from relay.feedback.counts import Result
from relay.feedback.message_files import MessageFiles
from relay.feedback.receiver import Receiver
from relay.feedback.record import recording
from relay.feedback.settings import WebhookSettings
from relay.providers.registry import provider_named
from relay.providers.webhook import Accepted, EspEvent, NeedsCertificate, Posted, Refused, Terms
from relay.store.addresses import Hashed, is_hashed
from relay.store.base import StoreError
from relay.store.events import Recorded, Recording, Token
from relay.store.sqlite.events_file import EventsFile, Replayed
from relay.store.sqlite.locate import Located
from relay.store.sqlite.pseudonymise import stored

LARGE_BYTES = 64_000
"""a larger body is read on a thread, one at a time: what it becomes takes ten times its size"""
EVENTS_AT_ONCE = 200
"""events of one body that are looked up and written in one go"""
REPLAYED = "its token was used before, for another event: it is forged"


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP status, and how the request is counted."""

    status: int
    result: Result
    text: str


ACCEPTED = Answer(200, "accepted", "stored")
UNAVAILABLE = Answer(503, "unavailable", "events can't be stored now")


class Watcher(Protocol):
    """Counts and logs. No method raises or waits."""

    def on_request(self, upstream: str, result: Result) -> None:
        """A request was answered."""

    def on_refused(self, upstream: str, why: str) -> None:
        """A request wasn't believed, or couldn't be read."""

    def on_event(self, event: Recording, recorded: Recorded) -> None:
        """A new event is stored."""

    def on_miss(self, upstream: str, miss: Miss | Literal["kind"]) -> None:
        """An event is about no message of the relay's, or of a kind that says nothing; it was forgotten."""

    def on_trouble(self, where: str, error: BaseException) -> None:
        """The process's own code, disk or network failed."""


class Certificates(Protocol):
    """`sns.SnsClient`"""

    async def get(self, url: str, folder: str | None) -> bytes | None:
        """The certificate in PEM; None: it can't be had now."""

    def confirm(self, url: str) -> None:
        """Begin to fetch the URL that confirms a subscription, until it is answered 200 or an hour is over."""


class Webhooks:
    """Answers the webhooks of all upstreams."""

    def __init__(
        self,
        files: MessageFiles,
        events: EventsFile,
        certificates: Certificates,
        watcher: Watcher,
        now: Callable[[], float],
    ) -> None:
        self.upstreams: Mapping[str, WebhookSettings] = {}
        self.receivers: Sequence[Receiver] = ()
        self.objectives: Collection[str] = ()
        """lanes that have one"""
        self.hashes_addresses = False
        """`log.addresses: hashed`: no reason that is kept has an address"""
        self._files = files
        self._events = events
        self._certificates = certificates
        self._watcher = watcher
        self._now = now
        self._one_large = asyncio.Semaphore(1)
        self.provider: Callable[[str], str] = lambda provider: provider
        """the known mailbox provider behind a domain of its own"""
        self.catch_up: Callable[[], Awaitable[None]] | None = None
        """called before events are written for receivers: what the relay did before comes before them"""

    async def take(self, upstream: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Answer a request. `headers`: names in lower case. None: the upstream has no webhook."""
        settings = self.upstreams.get(upstream)
        if settings is None:
            return None
        try:
            if len(body) > LARGE_BYTES:
                async with self._one_large:
                    answer = await self._take(upstream, settings, Posted(headers, body))
            else:
                answer = await self._take(upstream, settings, Posted(headers, body))
        except StoreError as error:
            self._watcher.on_trouble("webhook", error)
            answer = UNAVAILABLE
        self._watcher.on_request(upstream, answer.result)
        return answer

    def too_large(self, upstream: str) -> None:
        """A request's body was refused for its size."""
        self._watcher.on_request(upstream, "too_large")

    async def _take(self, upstream: str, settings: WebhookSettings, posted: Posted) -> Answer:
        verdict = await self._judge(settings, posted)
        if isinstance(verdict, Answer):
            return verdict
        if isinstance(verdict, Refused):
            self._watcher.on_refused(upstream, verdict.why)
            result: Result = "refused" if verdict.status == 401 else "unreadable"
            return Answer(verdict.status, result, verdict.why)
        if verdict.confirm_url is not None:
            self._certificates.confirm(verdict.confirm_url)
        token = None
        if verdict.token is not None:
            token = Token(upstream, verdict.token, _digest(verdict.events))
        try:
            await self._record(upstream, settings, verdict.events, token)
        except Replayed:
            self._watcher.on_refused(upstream, REPLAYED)
            return Answer(401, "refused", REPLAYED)
        return ACCEPTED

    async def _judge(self, settings: WebhookSettings, posted: Posted) -> Accepted | Refused | Answer:
        """What the provider says of the request, with the certificates that it asks for."""
        provider = provider_named(settings.kind)
        assert provider is not None
        assert provider.webhook is not None
        terms = Terms(self._now(), settings.secrets, settings.topics, settings.url)
        judge = provider.webhook
        for _ in range(2):
            if len(posted.body) > LARGE_BYTES:
                verdict = await asyncio.to_thread(judge, posted, terms)
            else:
                verdict = judge(posted, terms)
            if not isinstance(verdict, NeedsCertificate):
                return verdict
            pem = await self._certificates.get(verdict.url, settings.certificates)
            if pem is None:
                return Answer(503, "unavailable", "the certificate can't be had now")
            terms = terms._replace(certificates={verdict.url: pem})
        return Refused(401, "the certificate named in the request is not the one that it was asked for with")

    async def _record(
        self, upstream: str, settings: WebhookSettings, events: Sequence[EspEvent], token: Token | None
    ) -> None:
        """Write what is known of these events, in steps. Raises StoreError, Replayed."""
        provider = provider_named(settings.kind)
        what = Upstream(upstream, provider.esp_id if provider is not None else None, settings.keeps_message_id)
        telling = [event for event in events if event.kind != "other" or event.suppress is not None]
        misses: list[Miss | Literal["kind"]] = ["kind"] * (len(events) - len(telling))
        for begin in range(0, max(1, len(telling)), EVENTS_AT_ONCE):
            some = telling[begin : begin + EVENTS_AT_ONCE]
            found = await self._files.thread.run(partial(self._locate, some, what)) if some else []
            recordings: list[Recording] = []
            for event, one in found:
                if isinstance(one, str):
                    misses.append(one)
                else:
                    recordings.append(self._recording(event, one, upstream))
            if recordings or token is not None:
                await self._write(recordings, token)
        for miss in misses:  # not before: what can't be stored now is posted again, and a forgery counts nowhere
            self._watcher.on_miss(upstream, miss)

    def _recording(self, event: EspEvent, one: Located, upstream: str) -> Recording:
        one = one._replace(provider=self.provider(one.provider))
        made = recording(event, one, upstream, self.receivers, self._now())
        return made._replace(has_objective=one.lane in self.objectives)

    async def _write(self, recordings: Sequence[Recording], token: Token | None) -> None:
        if self.catch_up is not None and any(one.posts for one in recordings):
            await self.catch_up()
        outcomes = await self._events.record(recordings, token)
        for one, recorded in zip(recordings, outcomes, strict=True):
            if recorded.is_new:
                self._watcher.on_event(one, recorded)

    def _locate(self, events: Sequence[EspEvent], upstream: Upstream) -> list[tuple[EspEvent, Located | Miss]]:
        """Each event, fit to be kept, with what it is about."""
        readers = self._files.readers()
        search = Search(readers, upstream, self._now())

        @cache
        def hashed() -> Hashed | None:
            return next((one for one in (reader.ask(stored) for reader in readers) if one is not None), None)

        found = [(event, search.locate(event)) for event in events]
        return [(self._hide(event, one, hashed), one) for event, one in found]

    def _hide(self, event: EspEvent, one: Located | Miss, find_hashed: Callable[[], Hashed | None]) -> EspEvent:
        """Hash the addresses in the reason, if the recipient's is hashed or is to be."""
        if event.reason is None or isinstance(one, str) or not (self.hashes_addresses or is_hashed(one.address)):
            return event
        hashed = find_hashed()
        if hashed is None:
            return event
        address = event.recipient or ""
        reason = hashed.text(event.reason, address)
        if is_hashed(one.address) and address:  # files of workers have salts of their own
            reason = reason.replace(hashed.address(address), one.address)
        return event._replace(reason=reason)


def _digest(events: Sequence[EspEvent]) -> bytes:
    """What a token vouches for: what the events are about, and what they say."""
    said = [(e.kind, e.key, e.recipient, e.permanent, e.relay_id, e.esp_id, e.message_id) for e in events]
    return hashlib.sha256(repr(said).encode("utf-8", "replace")).digest()
