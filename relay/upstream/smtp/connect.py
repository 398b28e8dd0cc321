"""Opens sessions: aiosmtplib does connect, TLS and AUTH, then its transport is handed over to `Session`.

aiosmtplib's exceptions stop here: each becomes OpenFailed with the phase and a Reply.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from typing import cast

import aiosmtplib

from relay.config.model import Upstream
from relay.mail.reply import Reply
from relay.upstream import flow
from relay.upstream.addresses import Peer
from relay.upstream.failures import insecure, plain
from relay.upstream.oauth import Tokens, unavailable
from relay.upstream.redaction import without_credentials
from relay.upstream.results import GARBLED, LOST, TIMED_OUT, OpenFailed, Phase
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.bounded import BoundedProtocol
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.session import Session
from relay.upstream.target import Target

_CREDENTIALS_REFUSED = 535  # RFC 4954 6


async def open_session(target: Target, *, timeout_s: float, express: bool = False) -> Session:
    """Connect, secure, authenticate. Raises OpenFailed; `timeout_s` bounds all of it together. A connection of an
    `express` lane ends soon once its packets are lost (`flow`)."""
    if target.config.auth != "xoauth2":
        return await _open_session(target, None, timeout_s=timeout_s, express=express)
    if target.tokens is None:
        raise unavailable("nothing fetches it here")
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(ends_at):
            # Before the connection: without a token it would be of no use.
            token = await target.tokens.token()
    except TimeoutError as error:
        raise OpenFailed("auth", TIMED_OUT) from error
    try:
        return await _open_session(target, token, timeout_s=ends_at - loop.time(), express=express)
    except OpenFailed as failure:
        if not (failure.phase == "auth" and failure.from_upstream and failure.reply.code == _CREDENTIALS_REFUSED):
            raise
    # On another connection: a server may take no second AUTH after a refusal, or close.
    other = await _renewed(target.tokens, token, ends_at)
    return await _open_session(target, other, timeout_s=ends_at - loop.time(), express=express)


async def _renewed(tokens: Tokens, refused: str, ends_at: float) -> str:
    """Another token. Raises OpenFailed with the server's code, so that few probes follow: a server that sees many wrong
    logins locks the account."""
    try:
        async with asyncio.timeout_at(ends_at):
            return await tokens.renewed(refused)
    except TimeoutError:
        why = TIMED_OUT.explanation
    except OpenFailed as failure:
        why = failure.reply.explanation
    text = f"the access token was refused, and there is no other: {why}"
    raise OpenFailed("auth", Reply.own(_CREDENTIALS_REFUSED, "5.7.8", text))


async def _open_session(target: Target, token: str | None, *, timeout_s: float, express: bool) -> Session:
    """As `open_session`, with an access token where `auth: xoauth2` wants one."""
    client = aiosmtplib.SMTP(
        hostname=target.config.host,  # the name in the certificate; `addresses` finds where to connect
        use_tls=target.config.tls == "implicit",
        start_tls=False,  # done below: None would mean 'if offered', which an attacker on the wire can undo
        tls_context=target.tls_context,
        local_hostname=target.hostname,
        timeout=timeout_s,
    )
    step = _Step()
    try:
        async with asyncio.timeout(timeout_s):
            return await _open(client, target, token, step, express=express)
    except asyncio.CancelledError:
        step.peer = None  # not a fault of the address
        raise
    except TimeoutError as error:
        raise OpenFailed(step.phase, TIMED_OUT) from error
    except aiosmtplib.SMTPResponseException as error:
        # A reply came while connecting: it is the greeting, or in its place.
        phase: Phase = "greeting" if step.phase == "connect" else step.phase
        # Not `from error`: a traceback would show the reply.
        raise _refused(
            phase, error.code, without_credentials(error.message, target.config, _secrets(target.config, token))
        ) from None
    except ssl.SSLError as error:
        raise insecure(error) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        if step.protocol is not None and step.protocol.overrun:
            raise OpenFailed("greeting" if step.phase == "connect" else step.phase, GARBLED) from None
        raise _mapped(step.phase, error) from error
    finally:
        # After the hand-over neither the client nor the step has a transport, and this does nothing.
        client.close()
        if step.protocol is not None:
            step.protocol.abort()
        if step.peer is not None:
            target.addresses.failed(step.peer)


@dataclass(slots=True)
class _Step:
    phase: Phase = "connect"
    peer: Peer | None = None
    """the address that is connected to"""
    protocol: BoundedProtocol | None = None
    """from the connection to the hand-over"""


async def _open(client: aiosmtplib.SMTP, target: Target, token: str | None, step: _Step, *, express: bool) -> Session:
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    connection = await target.addresses.connected()
    try:
        step.peer = connection.getpeername()[:2]
        if express:
            flow.limit(connection)
    except BaseException:
        connection.close()
        raise
    # From here on a transport has it. To close it under the transport would give its descriptor to the next connection,
    # whose events asyncio would then take for the old one's.
    await _greeted(client, target, step, connection)
    step.phase = "ehlo"
    await client.ehlo()
    connected = time.monotonic()
    if target.config.tls == "starttls":
        step.phase = "tls"
        if not client.supports_extension("starttls"):
            raise OpenFailed("tls", Reply.own(454, "4.7.5", "STARTTLS is not offered"))
        await client.starttls()
        await client.ehlo()
    secured = time.monotonic()
    username, password = target.config.username, target.config.password
    if token is not None:
        step.phase = "auth"
        await _authenticate_by_token(client, target.config, username or "", token)
    elif username is not None and password is not None:
        step.phase = "auth"
        await _authenticate(client, target.config, username, password.get_secret_value())
    opening = Opening(
        connect=(connected - began) * 1000.0,
        tls=(secured - connected) * 1000.0,
        auth=(time.monotonic() - secured) * 1000.0,
        began_at=began,
    )
    session = _hand_over(client, opening, loop)
    step.protocol = None
    if step.peer is not None:
        target.addresses.served(step.peer)
        step.peer = None
    return session


async def _greeted(client: aiosmtplib.SMTP, target: Target, step: _Step, connection: socket.socket) -> None:
    """What `client.connect` does, with a protocol that has bounds."""
    loop = asyncio.get_running_loop()
    protocol = step.protocol = BoundedProtocol(loop)
    implicit = target.config.tls == "implicit"
    transport, _ = await loop.create_connection(
        lambda: protocol,
        sock=connection,
        ssl=target.tls_context if implicit else None,
        server_hostname=target.config.host if implicit else None,
    )
    client.transport, client.protocol = transport, protocol
    greeting = await protocol.read_response()
    if greeting.code != aiosmtplib.SMTPStatus.ready:
        raise aiosmtplib.SMTPConnectResponseError(greeting.code, greeting.message)


async def _authenticate(client: aiosmtplib.SMTP, config: Upstream, username: str, secret: str) -> None:
    if not _may_authenticate(client, config):
        raise OpenFailed("auth", Reply.own(454, "4.7.0", "no credentials over a connection in clear"))
    methods = client.supported_auth_methods
    if "plain" in methods:
        # One round trip: the initial response travels with the command.
        await client.auth_plain(username, secret)
    elif methods:
        await client.login(username, secret)
    else:
        raise OpenFailed("auth", Reply.own(454, "4.7.0", "AUTH is not offered"))


async def _authenticate_by_token(client: aiosmtplib.SMTP, config: Upstream, username: str, token: str) -> None:
    """XOAUTH2 and nothing else. `allow_plaintext` is for mail, not for tokens: they open the whole mailbox."""
    if not _is_private(client, config):
        raise OpenFailed("auth", Reply.own(454, "4.7.0", "no access token over a connection in clear"))
    if "xoauth2" not in client.server_auth_methods:
        raise OpenFailed("auth", Reply.own(454, "4.7.0", "AUTH XOAUTH2 is not offered"))
    # An error of the server is a challenge (334) with JSON in it; an empty line gets the reply that counts.
    await client.auth_xoauth2(username, token)


def _secrets(config: Upstream, token: str | None) -> tuple[str, ...]:
    """What XOAUTH2 sends, for `without_credentials`."""
    return () if token is None else (token, f"user={config.username}\x01auth=Bearer {token}\x01\x01")


def _may_authenticate(client: aiosmtplib.SMTP, config: Upstream) -> bool:
    return config.allow_plaintext or _is_private(client, config)


def _is_private(client: aiosmtplib.SMTP, config: Upstream) -> bool:
    """Whether only the upstream, or this machine, sees what is sent. A proxy on this machine sends it elsewhere."""
    if client.get_transport_info("sslcontext") is not None:
        return True
    peer = client.get_transport_info("peername")
    if config.proxy is not None or not isinstance(peer, tuple):
        return False
    return ipaddress.ip_address(str(peer[0]).split("%")[0]).is_loopback


def _hand_over(client: aiosmtplib.SMTP, opening: Opening, loop: asyncio.AbstractEventLoop) -> Session:
    transport = client.transport
    if transport is None or transport.is_closing():
        raise OpenFailed("ehlo", LOST)
    ehlo = client.last_ehlo_response
    lines = ehlo.message.split("\n")[1:] if ehlo is not None else []
    session = Session(cast(asyncio.Transport, transport), Capabilities.parse(lines), opening, loop)
    client.transport = None
    client.protocol = None
    return session


def _refused(phase: Phase, code: int, message: str) -> OpenFailed:
    """The upstream's refusal. A code that refuses nothing (250, 354) can't be relied on, nor can aiosmtplib's -1 for
    what is no reply."""
    if not 400 <= code <= 599:
        return OpenFailed(phase, GARBLED)
    return OpenFailed(phase, Reply(code, " ".join(message.split())), from_upstream=True)


def _mapped(phase: Phase, error: Exception) -> OpenFailed:
    match error:
        case aiosmtplib.SMTPServerDisconnected():
            return OpenFailed(phase, LOST)
        case aiosmtplib.SMTPException(__cause__=ssl.SSLError() as cause):
            return insecure(cause)
        case aiosmtplib.SMTPConnectError():
            return OpenFailed("connect", Reply.own(451, "4.4.1", plain(error.__cause__ or error)))
        case _:
            return OpenFailed(phase, Reply.own(451, "4.4.1", plain(error)))
