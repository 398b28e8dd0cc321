"""Mail that comes in by HTTP: goes through the same acceptance as SMTP's, and each refusal becomes HTTP's."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection

from relay.intake.idempotency import BAD_KEY
from relay.intake.peer import UNIX, Peer, peer_at
from relay.intake.server import IntakeServer
from relay.intake.spool import Body, Large, SpoolFailed
from relay.intake.turns import Priority
from relay.intake.types import Reason as RefusalReason
from relay.intake.types import Refused, Submission
from relay.mail.envelope import Envelope, Recipient
from relay.observe.maillog import MailLog
from relay.policy.check import UNWRITABLE
from relay.service.current import Current
from relay.web.sender import CannotReceive, ErrorCode, NotSent, Outgoing, Reason, Upload

_CODES: dict[RefusalReason, ErrorCode] = {
    "idempotency": "idempotency_key",
    "limit": "limited",
    "recipients": "too_many_recipients",
    "sender": "sender_not_allowed",
    "size": "too_large",
    "suppressed": "suppressed",
}
"""of refusals for good; the others are `refused`"""
_SENDERS_KEPT = 1_000


class Sending:
    """The HTTP service's `Sender`."""

    def __init__(self, intake: IntakeServer, current: Current, log: MailLog) -> None:
        self._intake = intake
        self._current = current
        self._log = log
        # A restart is needed to change it, as for all of `http`.
        self._listener = current.config.http.sending
        self._tasks: set[asyncio.Task[str | NotSent]] = set()
        self._priorities: OrderedDict[str, Priority] = OrderedDict()
        """by sender, after the lane of its last message, as it is for an SMTP session: bulk mail is stored last"""

    def unavailable(self, *, has_key: bool) -> NotSent | None:
        reply = self._intake.shutting_down() if has_key else self._intake.may_begin()
        return None if reply is None else not_sent(Refused(reply, "busy"))._replace(reason="busy")

    def lanes(self) -> Collection[str]:
        return self._current.config.lanes

    def most_bytes(self) -> int:
        return self._intake.limits.message_size_bytes

    def most_recipients(self) -> int:
        return self._intake.limits.recipients

    def begin(self) -> Upload:
        return _Upload(self._intake.new_body(), self._log)

    def refused(self, reason: Reason) -> None:
        self._rejected(reason)

    async def send(self, outgoing: Outgoing, upload: Upload) -> str | NotSent:
        assert isinstance(upload, _Upload), "made by `begin`"
        # A client that hangs up, or a deadline, ends the request only: what was being stored is stored.
        task = asyncio.create_task(self._send(outgoing, upload), name="send by HTTP")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _rejected(self, reason: str) -> None:
        self._log.rejected(reason, listener=str(self._listener.address))

    async def drain(self, timeout_s: float) -> int:
        """Wait for the messages that are being stored. Returns how many aren't by then; they are stored all the same.
        Once `IntakeServer.stop_accepting` was called, no more begin."""
        if not self._tasks:
            return 0
        _, rest = await asyncio.wait(self._tasks, timeout=timeout_s)
        return len(rest)

    async def _send(self, outgoing: Outgoing, upload: _Upload) -> str | NotSent:
        try:
            # A body that was coming in when the relay began to stop comes too late: delivery is about to end.
            if (reply := self._intake.shutting_down()) is not None:
                raise Refused(reply, "busy")
            submission = self._submission(outgoing, upload.content())
            receipt = await self._intake.submit(submission, self._priority(outgoing))
        except Refused as refused:
            self._rejected(refused.reason)
            return not_sent(refused)
        except CannotReceive as error:
            return error.answer
        else:
            if receipt.express is not None:
                self._remember(outgoing.sender, "express" if receipt.express else "bulk")
            return receipt.id
        finally:
            upload.close()

    def _priority(self, outgoing: Outgoing) -> Priority:
        named = self._current.config.lanes.get(outgoing.lane or "")
        if named is not None:
            return "express" if named.express else "bulk"
        return self._priorities.get(outgoing.sender, "new")

    def _remember(self, sender: str, priority: Priority) -> None:
        self._priorities[sender] = priority
        self._priorities.move_to_end(sender)
        if len(self._priorities) > _SENDERS_KEPT:
            self._priorities.popitem(last=False)

    def _submission(self, outgoing: Outgoing, content: bytes | Large) -> Submission:
        peer = UNIX if outgoing.client is None else peer_at(outgoing.client)
        addresses = outgoing.sender, *outgoing.recipients
        return Submission(
            envelope=Envelope(
                sender=outgoing.sender,
                recipients=tuple(map(Recipient, outgoing.recipients)),
                smtputf8=not all(map(str.isascii, addresses)),
            ),
            content=content,
            client=peer.name,
            helo=_helo(peer),
            protocol="HTTP",
            listener=self._listener,
            receive_s=outgoing.receive_s,
            final_dot=outgoing.received_at,
            user=None,
            lane=outgoing.lane,
            idempotency_key=outgoing.idempotency_key,
            was_admitted=outgoing.idempotency_key is None,
        )


class _Upload:
    """A `Body` as the HTTP service writes it."""

    def __init__(self, body: Body, log: MailLog) -> None:
        self._body = body
        self._log = log

    @property
    def size_bytes(self) -> int:
        return self._body.size_bytes

    def write(self, piece: bytes) -> None:
        self._body.write(piece)

    def reader(self) -> Callable[[], bytes]:
        content = self.content()

        def read() -> bytes:
            try:
                return content.read() if isinstance(content, Large) else content
            except OSError as error:
                raise CannotReceive(self._failed(error)) from None

        return read

    def content(self) -> bytes | Large:
        """Raises CannotReceive."""
        try:
            return self._body.content()
        except SpoolFailed as error:
            raise CannotReceive(self._failed(error)) from None

    def close(self) -> None:
        self._body.close()

    def _failed(self, error: OSError) -> NotSent:
        self._log.trouble("spool", error)
        reply = error.reply if isinstance(error, SpoolFailed) else UNWRITABLE
        # The service counts it, on the event loop: this may be a thread.
        return not_sent(Refused(reply, "store"))._replace(reason="store")


def not_sent(refused: Refused) -> NotSent:
    """The HTTP answer to what SMTP would refuse: 422 for good, 429 at a limit, 409 for a key that is in use or stands
    for another message, else 503."""
    reply, reason, wait_s = refused.reply, refused.reason, refused.retry_after_s
    text = reply.text.removeprefix(reply.enhanced or "").strip()
    if reason == "idempotency" and reply != BAD_KEY:
        return NotSent(409, "idempotency_key", text, retry_after_s=wait_s)
    if reply.permanent:
        return NotSent(422, _CODES.get(reason, "refused"), text)
    if reason == "limit":
        return NotSent(429, "limited", text, retry_after_s=wait_s)
    return NotSent(503, "unavailable", text, retry_after_s=wait_s)


def _helo(peer: Peer) -> str:
    """What stands for a client's name in Received (RFC 5321 4.1.3)."""
    if peer.ip is None:
        return "localhost"
    return f"[IPv6:{peer.ip}]" if peer.ip.version == 6 else f"[{peer.ip}]"
