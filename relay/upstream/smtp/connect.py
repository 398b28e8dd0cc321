"""Opens sessions: aiosmtplib does connect, TLS and AUTH, then its transport is handed over to `Session`.

aiosmtplib's exceptions stop here: each becomes OpenFailed with the phase and a Reply.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiosmtplib

from relay.config.model import Upstream
from relay.mail.reply import Reply
from relay.upstream.redaction import without_credentials
from relay.upstream.results import GARBLED, LOST, TIMED_OUT, OpenFailed, Phase
from relay.upstream.smtp import flow
from relay.upstream.smtp.addresses import Addresses, Peer
from relay.upstream.smtp.bounded import BoundedProtocol
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.session import Opening, Session


class Contexts:
    """TLS contexts of one configuration. Upstreams that trust the same CAs share one: reading the CAs takes 20 ms."""

    def __init__(self) -> None:
        self._built: dict[Path | None, ssl.SSLContext] = {}

    def trusting(self, ca_file: Path | None) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError for an unreadable `ca_file`; None: the system's CAs."""
        context = self._built.get(ca_file)
        if context is None:
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._built[ca_file] = context
        return context


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream, ready to be connected to."""

    name: str
    config: Upstream
    hostname: str
    """our EHLO name"""
    tls_context: ssl.SSLContext | None
    addresses: Addresses = field(compare=False)

    @classmethod
    def of(cls, name: str, config: Upstream, hostname: str, contexts: Contexts | None = None) -> Target:
        """Raises OSError or ssl.SSLError for an unreadable `ca_file`."""
        addresses = Addresses(config.host, config.port)
        if config.tls == "none":
            return cls(name, config, hostname, None, addresses)
        context = (contexts if contexts is not None else Contexts()).trusting(config.ca_file)
        return cls(name, config, hostname, context, addresses)

    def is_same(self, other: Target) -> bool:
        """Whether a session opened for one serves the other as well. A `ca_file` is compared by the certificates that
        were read from it."""
        return (self.name, self.config, self.hostname, self._own_cas()) == (
            other.name,
            other.config,
            other.hostname,
            other._own_cas(),
        )

    def _own_cas(self) -> frozenset[bytes]:
        """Of the `ca_file`, in DER; none where the system's are trusted."""
        if self.tls_context is None or self.config.ca_file is None:
            return frozenset()
        return frozenset(self.tls_context.get_ca_certs(binary_form=True))


async def open_session(target: Target, *, timeout_s: float, express: bool = False) -> Session:
    """Connect, secure, authenticate. Raises OpenFailed; `timeout_s` bounds all of it together. A connection of an
    `express` lane ends soon once its packets are lost (`flow`)."""
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
            return await _open(client, target, step, express=express)
    except asyncio.CancelledError:
        step.peer = None  # not a fault of the address
        raise
    except TimeoutError as error:
        raise OpenFailed(step.phase, TIMED_OUT) from error
    except aiosmtplib.SMTPResponseException as error:
        # A reply came while connecting: it is the greeting, or in its place.
        phase: Phase = "greeting" if step.phase == "connect" else step.phase
        # Not `from error`: a traceback would show the reply.
        raise _refused(phase, error.code, without_credentials(error.message, target.config)) from None
    except ssl.SSLError as error:
        raise _insecure(error) from error
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


async def _open(client: aiosmtplib.SMTP, target: Target, step: _Step, *, express: bool) -> Session:
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
    if username is not None and password is not None:
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


def _may_authenticate(client: aiosmtplib.SMTP, config: Upstream) -> bool:
    if client.get_transport_info("sslcontext") is not None or config.allow_plaintext:
        return True
    peer = client.get_transport_info("peername")
    return isinstance(peer, tuple) and ipaddress.ip_address(str(peer[0]).split("%")[0]).is_loopback


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
            return _insecure(cause)
        case aiosmtplib.SMTPConnectError():
            return OpenFailed("connect", Reply.own(451, "4.4.1", _plain(error.__cause__ or error)))
        case _:
            return OpenFailed(phase, Reply.own(451, "4.4.1", _plain(error)))


def _insecure(error: ssl.SSLError) -> OpenFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        return OpenFailed("tls", Reply.own(454, "4.7.5", f"certificate not trusted: {error.verify_message}"))
    return OpenFailed("tls", Reply.own(454, "4.7.5", f"TLS failed: {error.reason or 'handshake'}"))


def _plain(error: BaseException) -> str:
    """A system error as the system describes it, without addresses or paths."""
    if not isinstance(error, OSError) or not error.strerror:
        return "connection failed"
    # asyncio's own text contains the address. Errors of the look-up (negative numbers) have no other text.
    return (os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror).lower()
