"""A client's login: the AUTH mechanisms PLAIN (RFC 4616) and LOGIN. Pure.

aiosmtpd's exchanges are coroutines that read from its own SMTP class, so they can't be used here.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Generator
from typing import Literal

from relay.intake import replies
from relay.intake.answer import Answer, Credentials, refuse
from relay.mail.reply import Reply

Exchange = Generator[bytes, bytes, Credentials]
"""Yields each challenge, is sent the client's response, returns the credentials."""


def _plain() -> Exchange:
    """Raises ValueError where the response hasn't three parts. The first, an identity to act as, changes nothing."""
    _, user, password = (yield b"").split(b"\0")
    return _credentials(user, password)


def _login() -> Exchange:
    user = yield b"Username:"
    password = yield b"Password:"
    return _credentials(user, password)


def _credentials(user: bytes, password: bytes) -> Credentials:
    return Credentials(user.decode("utf-8", "replace"), password)


MECHANISMS: dict[str, Callable[[], Exchange]] = {"PLAIN": _plain, "LOGIN": _login}


class Login:
    """Whether a session may log in, has logged in, or is within an AUTH exchange."""

    def __init__(self, auth: Literal["none", "any", "required"], *, local: bool) -> None:
        """`auth`: the listener's. `local`: the client is on this machine."""
        self.done = False
        self.user: str | None = None
        """the user, where the listener verifies that"""
        self.senders: tuple[str, ...] = ()
        """patterns of the addresses that the user may send as; none: all"""
        self.exchange: Exchange | None = None
        self._auth = auth
        self._local = local

    def possible(self, *, tls: bool) -> bool:
        """`required` guards real passwords: they cross no network in clear. `any` has none to guard."""
        return self._auth == "any" or tls or self._local

    def offered(self, *, tls: bool) -> bool:
        return self._auth != "none" and self.possible(tls=tls)

    def missing(self, *, tls: bool) -> Reply | None:
        """Why a message needs a login first; None: it needs none, or there was one."""
        if self._auth != "required" or self.done:
            return None
        return replies.AUTH_FIRST if self.possible(tls=tls) else replies.TLS_FIRST

    def succeeded(self, user: str | None, senders: tuple[str, ...] = ()) -> None:
        self.done, self.user, self.senders = True, user, senders

    def begin(self, argument: str) -> Answer:
        """Answer an AUTH command that may come now."""
        words = argument.split()
        if not 1 <= len(words) <= 2:
            return refuse(replies.AUTH_SYNTAX, "syntax")
        mechanism = MECHANISMS.get(words[0].upper())
        if mechanism is None:
            return refuse(replies.AUTH_MECHANISM, "auth")
        exchange = mechanism()
        challenge = next(exchange)
        return self.respond(exchange, words[1]) if len(words) == 2 else self._ask(exchange, challenge)

    def respond(self, exchange: Exchange, response: str) -> Answer:
        """Continue an exchange with the client's response, in base64."""
        self.exchange = None
        if response == "*":
            return refuse(replies.AUTH_GIVEN_UP, "syntax")
        try:
            return self._ask(exchange, exchange.send(b64decode(response, validate=True)))
        except StopIteration as done:
            return Answer(None, then=done.value)
        except ValueError:
            return refuse(replies.AUTH_MALFORMED, "syntax")

    def _ask(self, exchange: Exchange, challenge: bytes) -> Answer:
        self.exchange = exchange
        return Answer(Reply(334, b64encode(challenge).decode()))
