"""The SMTP dialogue as a state machine: which command is allowed when, and its reply (RFC 5321). Pure.

Each command becomes an `Answer`, which also says what the session does next.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.config.model import Listener
from relay.intake import replies
from relay.intake.answer import Answer, refuse
from relay.intake.auth import MECHANISMS, Login
from relay.intake.framing import MAX_AUTH_BYTES
from relay.intake.parameters import BadCommand, parse_mail
from relay.intake.peer import Peer
from relay.intake.transaction import MailTransaction
from relay.intake.types import Admit, Settings, SmtpProtocol
from relay.mail.envelope import Envelope
from relay.mail.reply import Reply
from relay.policy.check import Refuse
from relay.policy.sender import check_sender

_EXTENSIONS = ("8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN", "DELIVERBY", "MT-PRIORITY")
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "CONNECT", "HOST:"})
"""A web page can make a browser send these to a port of its machine, with SMTP commands in the body."""


class Dialogue:
    """One session's state: greeted, inside TLS, logged in, within a mail transaction or an AUTH exchange."""

    def __init__(self, listener: Listener, peer: Peer, settings: Settings, admit: Admit) -> None:
        self.helo = ""
        """the client's name; '' before EHLO"""
        self.tls = listener.tls == "implicit"
        self.login = Login(listener.auth, local=peer.local)
        self._listener = listener
        self._local = peer.local
        self._settings = settings
        self._admit = admit
        self._esmtp = False
        self._transaction: MailTransaction | None = None

    @property
    def idle(self) -> bool:
        """No message and no login is under way."""
        return self._transaction is None and self.login.exchange is None

    @property
    def line_limit(self) -> int | None:
        """How many bytes the next line may have; None: as many as its verb allows."""
        return None if self.login.exchange is None else MAX_AUTH_BYTES

    @property
    def protocol(self) -> SmtpProtocol:
        if not self._esmtp:
            return "SMTP"
        if self.login.done:
            return "ESMTPSA" if self.tls else "ESMTPA"
        return "ESMTPS" if self.tls else "ESMTP"

    def answer(self, line: bytes) -> Answer:
        """Answer a command, or a response within an AUTH exchange; `line` has no CRLF."""
        text = line.decode("utf-8", "surrogateescape")
        if self.login.exchange is not None:
            return self.login.respond(self.login.exchange, text.strip())
        verb, _, argument = text.partition(" ")
        handler = _HANDLERS.get(verb.upper())
        if handler is not None:
            return handler(self, argument.strip(" "))
        return refuse(replies.NOT_SMTP if verb.upper() in _HTTP else replies.UNKNOWN, "syntax")

    def bad_line(self, reply: Reply) -> Answer:
        """Answer a line that can't be read; it also ends an AUTH exchange."""
        self.login.exchange = None
        return refuse(reply, "syntax")

    def end_transaction(self) -> Envelope:
        """The content has come in: end the transaction, and return its envelope."""
        assert self._transaction is not None
        envelope = self._transaction.envelope()
        self._transaction = None
        return envelope

    def secured(self) -> None:
        """TLS is on. RFC 3207 4.2: the client begins anew."""
        self.helo, self._esmtp, self.tls, self._transaction = "", False, True, None
        self.login = Login(self._listener.auth, local=self._local)

    # Commands.

    def _helo(self, name: str, *, esmtp: bool = False) -> Answer:
        if not name:
            return refuse(replies.NAME_MISSING, "syntax")
        self.helo = "".join(char if " " < char <= "~" else "?" for char in name[:255])
        self._esmtp = esmtp
        self._transaction = None
        return Answer(Reply(250, self._settings.hostname))

    def _ehlo(self, name: str) -> Answer:
        answer = self._helo(name, esmtp=True)
        size = f"SIZE {self._settings.limits.message_size_bytes}"
        return answer if answer.reason else answer._replace(lines=(size, *_EXTENSIONS, *self._offered()))

    def _mail(self, argument: str) -> Answer:
        if (problem := self._not_ready()) is not None:
            return problem
        if self._transaction is not None:
            return refuse(replies.NESTED_MAIL, "sequence")
        try:
            mail = parse_mail(argument)
        except BadCommand as bad:
            return refuse(bad.reply, bad.reason)
        if mail.size_bytes is not None and mail.size_bytes > self._settings.limits.message_size_bytes:
            return refuse(replies.TOO_BIG, "size")
        if (busy := self._admit()) is not None:
            return refuse(busy, "busy")
        transaction = MailTransaction(mail, self._settings.hostname)
        decision = check_sender((self._listener.senders or (), self.login.senders), transaction.sender)
        if isinstance(decision, Refuse):
            return refuse(decision.reply, decision.reason)
        self._transaction = transaction
        return Answer(replies.SENDER_OK)

    def _rcpt(self, argument: str) -> Answer:
        if self._transaction is None:
            return self._without_mail()
        return self._transaction.add_recipient(argument, self._settings.limits.recipients)

    def _data(self, argument: str) -> Answer:
        if argument:
            return refuse(replies.NO_ARGUMENT, "syntax")
        if self._transaction is None:
            return self._without_mail()
        if not self._transaction.recipients:
            refused = self._transaction.recipient_refused
            return refuse(replies.NO_VALID_RECIPIENTS if refused else replies.RCPT_FIRST, "sequence")
        if (busy := self._admit()) is not None:
            return refuse(busy, "busy")
        return Answer(replies.START_DATA, then="receive content")

    def _rset(self, argument: str) -> Answer:
        if argument:
            return refuse(replies.NO_ARGUMENT, "syntax")
        self._transaction = None
        return Answer(replies.OK)

    def _help(self, _: str) -> Answer:
        commands = ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "HELP"]
        commands += [extension.partition(" ")[0] for extension in self._offered()]
        return Answer(Reply(214, f"2.0.0 Commands: {' '.join(commands)} QUIT"))

    def _starttls(self, argument: str) -> Answer:
        if argument:
            return refuse(replies.NO_ARGUMENT, "syntax")
        if self.tls:
            return refuse(replies.ALREADY_TLS, "sequence")
        if self._listener.tls != "starttls":
            return refuse(replies.NOT_OFFERED, "tls")
        return Answer(replies.READY_FOR_TLS, then="start TLS")

    def _auth(self, argument: str) -> Answer:
        if self._listener.auth == "none":
            return refuse(replies.NOT_OFFERED, "sequence")
        if not self._esmtp:
            return refuse(replies.HELLO_FIRST, "sequence")
        if not self.login.possible(tls=self.tls):
            return refuse(replies.AUTH_NEEDS_TLS, "auth")
        if self.login.done:
            return refuse(replies.ALREADY_AUTHENTICATED, "sequence")
        if self._transaction is not None:
            return refuse(replies.IN_TRANSACTION, "sequence")
        return self.login.begin(argument)

    # What holds now.

    def _offered(self) -> list[str]:
        """STARTTLS and AUTH, where they are configured and possible now."""
        offers_tls = self._listener.tls == "starttls" and not self.tls
        return ["STARTTLS"] * offers_tls + ["AUTH " + " ".join(MECHANISMS)] * self.login.offered(tls=self.tls)

    def _not_ready(self) -> Answer | None:
        """Why no message may begin now."""
        if not self.helo:
            return refuse(replies.HELLO_FIRST, "sequence")
        missing = self.login.missing(tls=self.tls)
        return None if missing is None else refuse(missing, "auth")

    def _without_mail(self) -> Answer:
        problem = self._not_ready() or refuse(replies.MAIL_FIRST, "sequence")
        return problem._replace(reason="sequence", is_error=True)


def _quit(_: Dialogue, argument: str) -> Answer:
    return refuse(replies.NO_ARGUMENT, "syntax") if argument else Answer(replies.BYE, then="close")


def _noop(_: Dialogue, __: str) -> Answer:
    return Answer(replies.OK)


def _vrfy(_: Dialogue, argument: str) -> Answer:
    # RFC 5321 3.5.3: whether an address exists is known at the next server.
    return Answer(replies.CANNOT_VERIFY) if argument else refuse(replies.ADDRESS_MISSING, "syntax")


def _expn(_: Dialogue, __: str) -> Answer:
    return refuse(replies.NOT_OFFERED, "syntax")


_HANDLERS: dict[str, Callable[[Dialogue, str], Answer]] = {
    "HELO": Dialogue._helo,
    "EHLO": Dialogue._ehlo,
    "MAIL": Dialogue._mail,
    "RCPT": Dialogue._rcpt,
    "DATA": Dialogue._data,
    "RSET": Dialogue._rset,
    "NOOP": _noop,
    "HELP": Dialogue._help,
    "VRFY": _vrfy,
    "EXPN": _expn,
    "QUIT": _quit,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth,
}
