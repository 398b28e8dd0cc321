"""One client's SMTP session: its commands, and the replies to them (RFC 5321; the contract's section 7)."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import MISSING, AuthResult, LoginPassword

from relay.intake import replies
from relay.intake.connection import BadLine, Hangup, TimedOut, Wire, WoundUp
from relay.intake.framing import MAX_AUTH_BYTES, DotDecoder
from relay.intake.parameters import BadCommand, Mail, parse_mail, parse_rcpt
from relay.intake.policy import UNIX, Peer, Policy, peer_at
from relay.intake.proxy import BadProxyHeader, read_proxied_peer
from relay.intake.spool import Body, SpoolFull
from relay.intake.turns import Standing
from relay.intake.types import Reason, Refused, SmtpProtocol, Submission
from relay.mail.envelope import Envelope, Recipient
from relay.mail.reply import Reply
from relay.observe.lines import logfmt

if TYPE_CHECKING:
    from relay.intake.server import IntakeServer

log = logging.getLogger(__name__)

_ERRORS = 50
_COMMANDS = 1_000
_REFUSED_RECIPIENTS = 1_000
"""How many errors, commands but for RCPT, and bad addresses a session may have without a message being taken."""
_FRUITLESS_TIMEOUTS = 12
"""How many times `command_timeout_s` a session may last without a message being taken."""
_FREE_COMMANDS = 32
"""How many a session may have, from its beginning or its last message, before it takes turns with others for each:
more than a message to a few recipients needs, however it comes."""
_REPEATED_RECIPIENTS = 1_000
"""How many RCPTs a message may have beyond the recipients that it may have: repeated ones, ones too many."""
_HANDSHAKE_S = 30.0
_PROXY_S = 10.0
_LOGIN_WITHIN_S = 30.0
"""from the connection, TLS included, where a login is required"""
_AUTH_FAILURES = 3
_AUTH_DELAY_S = 1.0
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "CONNECT", "HOST:"})
"""A web page can make a browser send such to a port of its machine, with SMTP commands in the body."""


class Session(Wire):
    """Made for each connection of a listener; a task of its own runs `_handle_client` until the end."""

    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, server: IntakeServer, policy: Policy) -> None:
        super().__init__(server.loop)
        self.pace = server.pace
        self._server = server
        self._policy = policy
        self._peer = UNIX
        self._helo = ""
        self._esmtp = False
        self._tls = False
        self._authenticated = False
        required = policy.listener.auth == "required"
        self._login_before = self.loop.time() + _LOGIN_WITHIN_S if required else math.inf
        """a client that must log in, and hasn't by then, loses its connection (time of the loop)"""
        self._user: str | None = None
        self._over = False
        self._lingers = False
        self._errors = 0
        self._commands = 0
        self._talk = 0
        """commands, of any kind, since the last message"""
        self._auth_failures = 0
        self._last_mail_at = 0.0
        self._standing: Standing = "new"
        self._mail: Mail | None = None
        self._recipients: dict[str, Recipient] = {}
        self._refused_recipients = 0
        self._rcpts = 0
        """of this message, whatever came of them"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:
            self._server.connected(self)
        super().connection_made(transport)

    @property
    def peer(self) -> Peer:
        return self._peer

    @property
    def winding_up(self) -> bool:
        return self._server.draining

    # The session from its first to its last byte.

    async def _handle_client(self) -> None:
        """Nothing cancels this task: while a message is being stored, whatever the client does is looked at later."""
        try:
            if await self._admitted():
                await self._converse()
        except Hangup:
            pass
        except TimedOut:
            self._refuse(replies.TIMED_OUT, "timeout")
        except WoundUp:
            self.say(replies.SHUTTING_DOWN)
        except Exception as error:  # noqa: BLE001 (whatever it is, it ends one session only, with a reply)
            log.error(describe("session_failed", error))  # noqa: TRY400 (its text may hold mail)
            self.say(replies.SESSION_TROUBLE)
        finally:
            self.close(linger=self._lingers)
            self._server.left(self)

    async def _admitted(self) -> bool:
        """Who is it, may it, TLS where that comes first, the greeting."""
        implicit = self._policy.listener.tls == "implicit"
        try:
            self._peer = await self._identified()
        except BadProxyHeader:
            self._server.observer.rejected("proxy")
            return False
        refusal = self._server.entered(self, self._policy.listener)
        if refusal is not None:
            # A client that waits for TLS understands no word before it, and this one isn't worth a handshake.
            self._server.observer.rejected(refusal[1])
            if not implicit:
                self.say(refusal[0])
            return False
        if implicit and not await self._secured():
            return False
        self._last_mail_at = self.loop.time()
        self._server.turns.begin()
        self.say_lines(b"220 %s ESMTP otp-relay\r\n" % self._server.hostname.encode())
        return True

    async def _identified(self) -> Peer:
        """Raises BadProxyHeader."""
        assert self.transport is not None
        address = self.transport.get_extra_info("peername")
        if not isinstance(address, tuple):
            return UNIX
        peer = peer_at(address[0])
        if not peer.inside(self._policy.listener.proxy_protocol):
            return peer
        return await read_proxied_peer(self, peer, min(_PROXY_S, self._server.limits.command_timeout_s))

    async def _secured(self) -> bool:
        assert self._policy.tls is not None
        try:
            await self.secure(self._policy.tls, min(_HANDSHAKE_S, self._patience_s()))
        except OSError:  # ssl.SSLError is one; a plain-text client, a scanner, a certificate it doesn't like
            self._server.observer.rejected("tls")
            return False
        self._tls = True
        return True

    async def _converse(self) -> None:
        turns = self._server.turns
        while True:
            self._talk += 1
            if self._talk > _FREE_COMMANDS and not turns.has_command():
                self.flush()
                await turns.command(self._standing)
            try:
                idle = self._mail is None
                line = await self.read_line(self._patience_s(), idle=idle)
                await self._execute(line.decode("utf-8", "surrogateescape"))
            except BadLine as bad:
                self._refuse(bad.reply, "syntax")
            self._judge_patience()
            if self._over:
                return

    async def _execute(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        verb = verb.upper()
        self._commands += verb != "RCPT"
        method = _METHODS.get(verb)
        if method is not None:
            await method(self, argument.strip(" "))
        elif verb in _HTTP:
            self._refuse(replies.NOT_SMTP, "syntax")
        else:
            self._refuse(replies.UNKNOWN, "syntax")

    def _judge_patience(self) -> None:
        """A session that takes and gives nothing ends: too many errors, too many commands, too long."""
        if self._over:
            return
        limits = self._server.limits
        if self._errors >= _ERRORS or self._refused_recipients >= _REFUSED_RECIPIENTS:
            self._refuse(replies.TOO_MANY_ERRORS, "syntax")
        elif self._commands >= _COMMANDS:
            self._refuse(replies.TOO_MANY_COMMANDS, "syntax")
        elif (
            self.loop.time() - self._last_mail_at > _FRUITLESS_TIMEOUTS * limits.command_timeout_s
            or self.loop.time() >= self._login_before
        ):
            self._refuse(replies.TIMED_OUT, "timeout")

    def _patience_s(self) -> float:
        """How long what the client says next may take; above zero."""
        timeout_s = self._server.limits.command_timeout_s
        if self._login_before == math.inf:
            return timeout_s
        return max(0.001, min(timeout_s, self._login_before - self.loop.time()))

    def _refuse(self, reply: Reply, reason: Reason) -> None:
        self.say(reply)
        self._server.observer.rejected(reason)
        if reason in ("syntax", "sequence"):
            self._errors += 1
        if reply.code == 421:
            # RFC 5321 3.8: the service closes the channel.
            self._over = self._lingers = True

    def _reset(self) -> None:
        self._mail = None
        self._recipients = {}
        self._refused_recipients = 0
        self._rcpts = 0

    # The commands.

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802 (aiosmtpd's names)
        if self._greeted(hostname):
            self._esmtp = False
            self.say_lines(b"250 %s\r\n" % self._server.hostname.encode())

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        if self._greeted(hostname):
            self._esmtp = True
            lines = [self._server.hostname, f"SIZE {self._server.limits.message_size_bytes}"]
            lines += ["8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN", "DELIVERBY", "MT-PRIORITY"]
            if self._offers_tls():
                lines.append("STARTTLS")
            if self._offers_auth():
                lines.append("AUTH PLAIN LOGIN")
            reply = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
            self.say_lines(reply.encode())

    def _greeted(self, name: str) -> bool:
        if not name:
            self._refuse(replies.NAME_MISSING, "syntax")
            return False
        self._helo = "".join(char if " " < char <= "~" else "?" for char in name[:255])
        self._reset()
        return True

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        await self._server.turns.take(self._standing)
        problem = self._not_yet() or (replies.NESTED_MAIL if self._mail is not None else None)
        if problem is not None:
            self._refuse(problem, "auth" if problem.code == 530 else "sequence")
            return
        try:
            mail = parse_mail(arg or "")
        except BadCommand as bad:
            self._refuse(bad.reply, bad.reason)
            return
        if mail.size_bytes is not None and mail.size_bytes > self._server.limits.message_size_bytes:
            self._refuse(replies.TOO_BIG, "size")
        elif (busy := self._server.admission()) is not None:
            self._refuse(busy, "busy")
        else:
            self._mail = mail
            self.say(replies.SENDER_OK)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        if self._mail is None:
            self._refuse(self._not_yet() or replies.MAIL_FIRST, "sequence")
            return
        self._rcpts += 1
        if self._rcpts > self._server.limits.recipients + _REPEATED_RECIPIENTS:
            self._refuse(replies.ENDLESS_RECIPIENTS, "recipients")
            return
        try:
            recipient = parse_rcpt(arg or "", smtputf8=self._mail.smtputf8)
        except BadCommand as bad:
            self._refused_recipients += 1
            self.say(bad.reply)
            self._server.observer.rejected(bad.reason)
            return
        if (address := self._qualified(recipient.address)) != recipient.address:
            recipient = recipient._replace(address=address)
        local, at, domain = address.rpartition("@")
        key = local + at + domain.lower()
        if key not in self._recipients and len(self._recipients) >= self._server.limits.recipients:
            self._refuse(replies.TOO_MANY_RECIPIENTS, "recipients")
            return
        # The same recipient twice is one recipient: it is told yes and gets one mail.
        self._recipients.setdefault(key, recipient)
        self.say(replies.RECIPIENT_OK)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        problem = self._not_ready_for_data(arg)
        if problem is not None:
            self._refuse(*problem)
            return
        self.say(replies.START_DATA)
        began = time.monotonic()
        limits = self._server.limits
        body = Body(self._server.spool, sealed=self._server.sealed, budget=self._server.budget)
        try:
            decoder = DotDecoder(limits.message_size_bytes, body)
            await self.read_data(decoder, limits.data_timeout_s)
            envelope = self._envelope()
            self._reset()
            if decoder.oversize:
                self._refuse(replies.TOO_BIG, "size")
                return
            submission = Submission(
                envelope=envelope,
                content=decoder.content(),
                client=self._peer.name,
                helo=self._helo,
                protocol=self._protocol(),
                listener=self._policy.listener,
                receive_s=self.final_dot - began,
                final_dot=self.final_dot,
                user=self._user,
            )
            del decoder
            await self._store(submission)
        except SpoolFull:
            self._refuse(replies.FULL, "store")
        finally:
            body.close()

    async def _store(self, submission: Submission) -> None:
        self._server.storing += 1
        try:
            await self._server.turns.take(self._standing)
            receipt = await self._server.accept(submission)
        except Refused as refused:
            self._refuse(refused.reply, refused.reason)
        except Exception as error:  # noqa: BLE001 (trouble of ours, whatever it is: 451, and the app tries again)
            log.error(describe("accept_failed", error))  # noqa: TRY400
            self._refuse(replies.TROUBLE, "store")
        else:
            self.say(Reply(250, f"2.0.0 queued as {receipt.id}"))
            self._standing = "express" if receipt.express else "bulk"
            self._errors = self._commands = self._talk = 0
            self._last_mail_at = self.loop.time()
        finally:
            self._server.storing -= 1

    async def smtp_RSET(self, arg: str) -> None:  # noqa: N802
        if arg:
            self._refuse(replies.NO_ARGUMENT, "syntax")
            return
        self._reset()
        self.say(replies.OK)

    async def smtp_NOOP(self, arg: str) -> None:  # noqa: ARG002, N802
        self.say(replies.OK)

    async def smtp_HELP(self, arg: str) -> None:  # noqa: ARG002, N802
        commands = ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "HELP"]
        commands += ["STARTTLS"] * self._offers_tls() + ["AUTH"] * self._offers_auth()
        self.say(Reply(214, f"2.0.0 Commands: {' '.join(commands)} QUIT"))

    async def smtp_VRFY(self, arg: str) -> None:  # noqa: N802
        # RFC 5321 3.5.3: who exists is the next server's to know.
        if arg:
            self.say(replies.CANNOT_VERIFY)
        else:
            self._refuse(replies.ADDRESS_MISSING, "syntax")

    async def smtp_EXPN(self, arg: str) -> None:  # noqa: ARG002, N802
        self._refuse(replies.NOT_OFFERED, "syntax")

    async def smtp_QUIT(self, arg: str) -> None:  # noqa: N802
        if arg:
            self._refuse(replies.NO_ARGUMENT, "syntax")
            return
        self.say(replies.BYE)
        self._over = True

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        if arg:
            self._refuse(replies.NO_ARGUMENT, "syntax")
        elif self._tls:
            self._refuse(replies.ALREADY_TLS, "sequence")
        elif self._policy.listener.tls != "starttls":
            self._refuse(replies.NOT_OFFERED, "tls")
        else:
            self.say(replies.READY_FOR_TLS)
            # RFC 3207 4.2: nothing said in clear counts inside TLS, least of all what came in the same segment.
            self.drop_input()
            self._reset()
            if self._authenticated and self._policy.listener.auth == "required":
                self._login_before = self.loop.time() + _LOGIN_WITHIN_S
            self._helo, self._esmtp, self._authenticated, self._user = "", False, False, None
            self._over = not await self._secured()

    async def smtp_AUTH(self, arg: str) -> None:  # noqa: N802
        problem = self._no_auth_now()
        words = arg.split()
        if problem is not None:
            self._refuse(problem, "auth" if problem.code == 538 else "sequence")
        elif not 1 <= len(words) <= 2:
            self._refuse(Reply(501, "5.5.4 Syntax: AUTH mechanism [initial-response]"), "syntax")
        elif words[0].upper() not in ("PLAIN", "LOGIN"):
            self._refuse(replies.AUTH_MECHANISM, "auth")
        else:
            exchange = self.auth_PLAIN if words[0].upper() == "PLAIN" else self.auth_LOGIN
            result = await exchange(self, words)
            if isinstance(result.auth_data, LoginPassword):
                await self._verify(result.auth_data)
            else:
                self._errors += 1

    async def _verify(self, credentials: LoginPassword) -> None:
        users = self._policy.users
        name = credentials.login.decode("utf-8", "replace")
        verdict = "right"
        if users is not None:
            verdict = await self._server.logins.verify(users, self._peer, name, credentials.password)
        if verdict != "right":
            await asyncio.sleep(_AUTH_DELAY_S)
            self._auth_failures += 1
            self._refuse(replies.AUTH_FAILED if verdict == "wrong" else replies.AUTH_LATER, "auth")
            if self._auth_failures >= _AUTH_FAILURES:
                self._refuse(replies.TOO_MANY_ERRORS, "auth")
            return
        self._authenticated, self._login_before = True, math.inf
        self._user = name if users is not None else None
        self.say(replies.AUTHENTICATED)

    def _authenticate(self, mechanism: str, auth_data: LoginPassword) -> AuthResult:  # noqa: ARG002
        """Called at the end of aiosmtpd's exchanges, which are used as they are: `_verify` judges later."""
        return AuthResult(success=True, auth_data=auth_data)

    async def challenge_auth(
        self,
        challenge: str | bytes,
        encode_to_b64: bool = True,
        log_client_response: bool = False,  # noqa: ARG002
    ) -> Any:
        """aiosmtpd's, without its reader and without its log, which would hold the answer."""
        text = challenge.encode() if isinstance(challenge, str) else challenge
        self.say_lines(b"334 " + (b64encode(text) if encode_to_b64 else text) + b"\r\n")
        answer = await self.read_line(self._patience_s(), limit_bytes=MAX_AUTH_BYTES)
        if answer.strip() == b"*":
            self.say(Reply(501, "5.7.0 Authentication given up"))
            return MISSING
        try:
            return b64decode(answer.strip(), validate=True)
        except Base64Error:
            self.say(Reply(501, "5.5.2 Expected base64"))
            return MISSING

    # What holds at this moment.

    def _offers_tls(self) -> bool:
        return self._policy.listener.tls == "starttls" and not self._tls

    def _offers_auth(self) -> bool:
        return self._policy.listener.auth != "none" and self._may_authenticate()

    def _may_authenticate(self) -> bool:
        """`required` guards real passwords: they cross no network in clear. `any` has none to guard."""
        return self._policy.listener.auth == "any" or self._tls or self._peer.local

    def _not_yet(self) -> Reply | None:
        """Why no message may begin now."""
        if not self._helo:
            return replies.HELLO_FIRST
        if self._policy.listener.auth == "required" and not self._authenticated:
            return replies.AUTH_FIRST if self._may_authenticate() else replies.TLS_FIRST
        return None

    def _no_auth_now(self) -> Reply | None:
        if self._policy.listener.auth == "none":
            return replies.NOT_OFFERED
        if not self._esmtp:
            return replies.HELLO_FIRST
        if not self._may_authenticate():
            return replies.AUTH_NEEDS_TLS
        if self._authenticated:
            return replies.ALREADY_AUTHENTICATED
        return replies.IN_TRANSACTION if self._mail is not None else None

    def _not_ready_for_data(self, arg: str) -> tuple[Reply, Reason] | None:
        if arg:
            return replies.NO_ARGUMENT, "syntax"
        if self._mail is None:
            return self._not_yet() or replies.MAIL_FIRST, "sequence"
        if not self._recipients:
            return replies.NO_VALID_RECIPIENTS if self._refused_recipients else replies.RCPT_FIRST, "sequence"
        busy = self._server.admission()
        return None if busy is None else (busy, "busy")

    def _protocol(self) -> SmtpProtocol:
        if not self._esmtp:
            return "SMTP"
        if self._authenticated:
            return "ESMTPSA" if self._tls else "ESMTPA"
        return "ESMTPS" if self._tls else "ESMTP"

    def _qualified(self, address: str) -> str:
        """RFC 5321 4.1.1.3: <Postmaster>, the only one without a domain, is the one here."""
        return address if not address or "@" in address else f"{address}@{self._server.hostname}"

    def _envelope(self) -> Envelope:
        mail = self._mail
        assert mail is not None
        return Envelope(
            sender=self._qualified(mail.sender),
            recipients=tuple(self._recipients.values()),
            body=mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            priority=mail.priority,
            deliver_by=mail.deliver_by,
        )


def describe(event: str, error: BaseException) -> str:
    """A log line about an exception: its kind and place, never its text, which may quote mail."""
    frames = extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    return logfmt(event, error=type(error).__name__, where=where)


_METHODS: dict[str, Callable[[Session, str], Awaitable[None]]] = {
    "HELO": Session.smtp_HELO,
    "EHLO": Session.smtp_EHLO,
    "MAIL": Session.smtp_MAIL,
    "RCPT": Session.smtp_RCPT,
    "DATA": Session.smtp_DATA,
    "RSET": Session.smtp_RSET,
    "NOOP": Session.smtp_NOOP,
    "HELP": Session.smtp_HELP,
    "VRFY": Session.smtp_VRFY,
    "EXPN": Session.smtp_EXPN,
    "QUIT": Session.smtp_QUIT,
    "STARTTLS": Session.smtp_STARTTLS,
    "AUTH": Session.smtp_AUTH,
}
