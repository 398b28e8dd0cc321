"""Connections that go by a SOCKS or HTTP proxy. The proxy looks the upstream's name up.

python-socks speaks SOCKS. It reads an HTTP proxy's answer in one go, and would swallow the greeting of a server that
speaks first; so that answer is read here, octet by octet, and parsed by h11.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from urllib.parse import unquote, urlsplit

import h11
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy

from relay.upstream.addresses import Addresses, Peer

MAX_ANSWER_BYTES = 8_192


class ProxyRefused(OSError):
    """The proxy can't be used, or can't reach the upstream. Its text may be logged."""

    def __init__(self, text: str) -> None:
        super().__init__(0, text)


class ProxiedAddresses:
    """As `Addresses`, for an upstream behind a proxy."""

    def __init__(self, proxy: str, host: str, port: int) -> None:
        """`proxy`: its URL, with credentials where it wants some; the configuration has checked it."""
        self._proxy = proxy
        self._host = host
        self._port = port
        parts = urlsplit(proxy)
        self._is_http = parts.scheme == "http"
        assert parts.hostname is not None
        assert parts.port is not None
        self._to_proxy = Addresses(parts.hostname, parts.port)
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
        self._login = None if login is None else base64.b64encode(login.encode()).decode()

    async def connected(self) -> socket.socket:
        """A non-blocking socket to the upstream. Raises OSError. It has no deadline of its own."""
        connection = await self._tunnel() if self._is_http else await self._socks()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def served(self, peer: Peer) -> None:
        """Nothing is to be learnt: the peer is the proxy."""

    def failed(self, peer: Peer) -> None:
        """See `served`."""

    async def _socks(self) -> socket.socket:
        scheme, _, rest = self._proxy.partition("://")
        proxy = Proxy.from_url(f"{scheme.removesuffix('h')}://{rest}", rdns=True)
        try:
            return await proxy.connect(self._host, self._port)
        except ProxyError as error:
            code = f" (reply {error.error_code})" if error.error_code is not None else ""
            raise ProxyRefused(f"the proxy refused the connection{code}") from None
        except OSError as error:
            raise ProxyRefused("the proxy can't be reached") from error
        except (ValueError, IndexError) as error:
            raise ProxyRefused("the proxy's answer can't be read") from error

    async def _tunnel(self) -> socket.socket:
        """CONNECT (RFC 9110 9.3.6)."""
        loop = asyncio.get_running_loop()
        connection = await self._to_proxy.connected()
        try:
            host = f"[{self._host}]" if ":" in self._host else self._host
            headers = [("Host", f"{host}:{self._port}")]
            if self._login is not None:
                headers.append(("Proxy-Authorization", f"Basic {self._login}"))
            protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_BYTES)
            request = protocol.send(h11.Request(method="CONNECT", target=f"{host}:{self._port}", headers=headers))
            await loop.sock_sendall(connection, request or b"")
            protocol.send(h11.EndOfMessage())
            status = await self._answer(loop, connection, protocol)
            if not 200 <= status < 300:
                raise ProxyRefused(f"the proxy refused the connection (HTTP {status})")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _answer(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket, protocol: h11.Connection
    ) -> int:
        """The status. Nothing behind its header section is read: that is the upstream's."""
        try:
            for _ in range(MAX_ANSWER_BYTES):
                octet = await loop.sock_recv(connection, 1)
                protocol.receive_data(octet)
                event = protocol.next_event()
                if isinstance(event, h11.Response):
                    return event.status_code
                if not octet:
                    break
        except h11.RemoteProtocolError as error:
            raise ProxyRefused("the proxy's answer can't be read") from error
        raise ProxyRefused("the proxy closed the connection, or its answer is too long")
