"""One client's SMTP session: reads its commands, writes the dialogue's replies, and receives and submits contents."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb

from relay.intake import replies
from relay.intake.allowance import Allowance
from relay.intake.answer import Answer, Credentials, refuse
from relay.intake.connection import ClientDisconnected, Connection, ShuttingDown, TimedOut
from relay.intake.dialogue import Dialogue
from relay.intake.framing import BadLine, DotDecoder
from relay.intake.listener import LoadedListener
from relay.intake.logins import Logins
from relay.intake.pace import Pace
from relay.intake.peer import UNIX, Peer, peer_at
from relay.intake.proxy import BadProxyHeader, read_proxied_peer
from relay.intake.registry import SessionRegistry
from relay.intake.spool import Body, Budget, SpoolFailed
from relay.intake.turns import Priority, Turns
from relay.intake.types import Admit, Observer, Reason, Receipt, Refused, Settings, Submission, Submit
from relay.logfmt import LogLine, logfmt
from relay.mail.reply import Reply

log = logging.getLogger(__name__)

AUTH_DELAY_S = 1.0
"""before the reply to a wrong login"""
_HANDSHAKE_S = 30.0
_PROXY_S = 10.0


@dataclass(slots=True)
class Shared:
    """What the sessions of a server share: settings, budgets, turns and callbacks."""

    settings: Settings
    submit: Submit
    admit: Admit
    observer: Observer
    registry: SessionRegistry
    budget: Budget
    """of contents in memory; past it they come in by files"""
    spool: Path | None = None
    """the folder of large contents while they come in; None: they stay in memory"""
    turns: Turns = field(default_factory=Turns)
    pace: Pace = field(default_factory=Pace)
    logins: Logins = field(default_factory=Logins)
    storing: int = 0
    """messages between their final dot and their reply"""


class Session:
    """`run` is its task: from a connection's first byte to its last."""

    def __init__(self, connection: Connection, listener: LoadedListener, shared: Shared) -> None:
        self._connection = connection
        self._listener = listener
        self._shared = shared
        self._peer = UNIX
        required = listener.listener.auth == "required"
        self._allowance = Allowance(connection.loop.time(), login_required=required)
        self._priority: Priority = "new"
        self._over = False
        self._lingers = False

    async def run(self) -> None:
        """Serve the client until its end. Nothing cancels this: a message that is being stored is stored."""
        shared, connection = self._shared, self._connection
        try:
            if await self._begin():
                await self._converse(Dialogue(self._listener.listener, self._peer, shared.settings, shared.admit))
        except ClientDisconnected:
            pass
        except TimedOut:
            self._send(refuse(replies.TIMED_OUT, "timeout"))
        except ShuttingDown:
            connection.write(replies.encode(replies.SHUTTING_DOWN))
        except Exception as error:  # noqa: BLE001 (whatever it is, it ends one session only, with a reply)
            log.error(describe("session_failed", error))  # noqa: TRY400 (its text may hold mail)
            connection.write(replies.encode(replies.SESSION_TROUBLE))
        finally:
            connection.close(linger=self._lingers)
            shared.registry.session_ended(connection)

    async def _begin(self) -> bool:
        """Identify and check the client, begin TLS where that comes first, greet. False: the session is over."""
        shared, listener = self._shared, self._listener.listener
        implicit = listener.tls == "implicit"
        try:
            self._peer = await self._identify()
        except BadProxyHeader:
            self._rejected("proxy")
            return False
        refusal = shared.registry.check_client(self._connection, self._peer, listener)
        if refusal is not None:
            # A client that waits for TLS can't read a reply before it, and a refusal isn't worth a handshake.
            self._rejected(refusal[1])
            if not implicit:
                self._connection.write(replies.encode(refusal[0]))
            return False
        if implicit and not await self._start_tls():
            return False
        shared.turns.count()
        self._connection.write(replies.encode(Reply(220, f"{shared.settings.hostname} ESMTP otp-relay")))
        return True

    async def _identify(self) -> Peer:
        """Raises BadProxyHeader."""
        connection = self._connection
        address = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        if not isinstance(address, tuple):
            return UNIX
        peer = peer_at(address[0])
        if not peer.inside(self._listener.listener.proxy_protocol):
            return peer
        timeout_s = min(_PROXY_S, self._shared.settings.limits.command_timeout_s)
        return await read_proxied_peer(connection, peer, timeout_s)

    async def _start_tls(self, *, drop_input: bool = False) -> bool:
        """Whether the handshake succeeded."""
        assert self._listener.tls is not None
        try:
            await self._connection.start_tls(
                self._listener.tls, min(_HANDSHAKE_S, self._patience_s()), drop_input=drop_input
            )
        except OSError:  # ssl.SSLError is one; a plain-text client, a scanner, a certificate that it rejects
            self._rejected("tls")
            return False
        return True

    async def _converse(self, dialogue: Dialogue) -> None:
        """Answer commands until the session is over."""
        allowance, settings, loop = self._allowance, self._shared.settings, self._connection.loop
        while not self._over:
            self._send(await self._next_answer(dialogue))
            exceeded = allowance.exceeded(loop.time(), settings.limits.command_timeout_s)
            if exceeded is not None and not self._over:
                self._send(exceeded)

    async def _next_answer(self, dialogue: Dialogue) -> Answer:
        """Read a command, and do what its answer asks for. Returns the reply that is still to be sent."""
        shared, connection = self._shared, self._connection
        if self._allowance.takes_turns and not shared.turns.use_command():
            connection.flush()
            await shared.turns.for_command(self._priority)
        try:
            line = await connection.read_line(self._patience_s(), limit_bytes=dialogue.line_limit, idle=dialogue.idle)
        except BadLine as bad:
            return dialogue.bad_line(bad.reply)
        verb = line[:4].upper()
        self._allowance.count_command(verb)
        if verb == b"MAIL":
            await shared.turns.for_message(self._priority)
        answer = dialogue.answer(line)
        match answer.then:
            case "read on":
                return answer
            case "receive content":
                self._send(answer)
                return await self._receive(dialogue)
            case "start TLS":
                self._send(answer)
                return await self._restart_inside_tls(dialogue)
            case Credentials() as credentials:
                return await self._log_in(dialogue, credentials)
        return answer

    def _send(self, answer: Answer) -> None:
        """Queue the reply, and count what it says."""
        if answer.reply is not None:
            self._connection.write(replies.encode(answer.reply, answer.lines))
        if answer.reason is not None:
            self._rejected(answer.reason)
        if answer.is_error:
            self._allowance.count_error()
        if answer.then == "close":
            self._over = True
            self._lingers = answer.reason is not None

    async def _restart_inside_tls(self, dialogue: Dialogue) -> Answer:
        if dialogue.login.done and self._listener.listener.auth == "required":
            self._allowance.login_required(self._now())
        # RFC 3207 4.2: nothing said in clear counts inside TLS, least of all what came in the same segment.
        if not await self._start_tls(drop_input=True):
            return Answer(None, then="close")
        dialogue.secured()
        return Answer(None)

    async def _log_in(self, dialogue: Dialogue, credentials: Credentials) -> Answer:
        users, verdict = self._listener.users, "right"
        if users is not None:
            verdict = await self._shared.logins.verify(users, self._peer, credentials.user, credentials.password)
        if verdict != "right":
            await asyncio.sleep(AUTH_DELAY_S)
            self._allowance.failed_logins += 1
            return refuse(replies.AUTH_FAILED if verdict == "wrong" else replies.AUTH_LATER, "auth")
        self._allowance.logged_in()
        if users is None:
            dialogue.login.succeeded(None)
        else:
            dialogue.login.succeeded(credentials.user, users.senders(credentials.user))
        return Answer(replies.AUTHENTICATED)

    async def _receive(self, dialogue: Dialogue) -> Answer:
        """Receive a content behind the 354, and submit the message."""
        shared, limits = self._shared, self._shared.settings.limits
        body = Body(shared.spool, budget=shared.budget)
        try:
            decoder = DotDecoder(limits.message_size_bytes, body)
            await self._connection.read_content(decoder, limits.data_timeout_s)
            final_dot = self._connection.final_dot
            envelope = dialogue.end_transaction()
            if decoder.oversize:
                return refuse(replies.TOO_BIG, "size")
            submission = Submission(
                envelope=envelope,
                content=decoder.content(),
                client=self._peer.name,
                helo=dialogue.helo,
                protocol=dialogue.protocol,
                listener=self._listener.listener,
                receive_s=final_dot - self._connection.content_began,
                final_dot=final_dot,
                user=dialogue.login.user,
                user_senders=dialogue.login.senders,
            )
            return await self._submit(submission)
        except SpoolFailed as error:
            log.error(logfmt("trouble", where="spool", error=type(error).__name__, reason=error.strerror))  # noqa: TRY400
            return refuse(error.reply, "store")
        finally:
            body.close()

    async def _submit(self, submission: Submission) -> Answer:
        try:
            receipt = await submit(self._shared, submission, self._priority)
        except Refused as refused:
            return refuse(refused.reply, refused.reason)
        if receipt.express is not None:
            self._priority = "express" if receipt.express else "bulk"
        self._allowance.message_accepted(self._now())
        return Answer(Reply(250, f"2.0.0 queued as {receipt.id}"))

    def _rejected(self, reason: Reason) -> None:
        self._shared.observer.rejected(reason, self._peer.name, str(self._listener.listener.address))

    def _now(self) -> float:
        return self._connection.loop.time()

    def _patience_s(self) -> float:
        return self._allowance.patience_s(self._now(), self._shared.settings.limits.command_timeout_s)


async def submit(shared: Shared, submission: Submission, priority: Priority) -> Receipt:
    """Store a message when its turn comes. Raises Refused, and nothing else."""
    shared.storing += 1
    try:
        await shared.turns.for_message(priority, received=True)
        return await shared.submit(submission)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the relay's fault: 451, and the app tries again)
        log.error(describe("accept_failed", error))  # noqa: TRY400
        raise Refused(replies.TROUBLE, "store") from None
    finally:
        shared.storing -= 1


def describe(event: str, error: BaseException) -> LogLine:
    """A log line about an exception: its kind and place. Its text may quote mail, and is left out."""
    frames = extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    return logfmt(event, error=type(error).__name__, where=where)
