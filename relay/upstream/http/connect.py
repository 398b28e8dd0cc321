"""Opens connections to an HTTP API: address, TLS, and nothing sent yet."""

from __future__ import annotations

import asyncio
import ssl
import time

from relay.mail.reply import Reply
from relay.upstream import flow
from relay.upstream.addresses import Peer
from relay.upstream.failures import insecure, plain
from relay.upstream.http.connection import HttpConnection
from relay.upstream.results import LOST, TIMED_OUT, OpenFailed, Phase
from relay.upstream.server import ApiServer
from relay.upstream.sessions.kept import Opening


async def open_connection(server: ApiServer, *, timeout_s: float, express: bool = False) -> HttpConnection:
    """Connect and secure. Raises OpenFailed; `timeout_s` bounds both together."""
    loop = asyncio.get_running_loop()
    phase: Phase = "connect"
    connection = HttpConnection(loop, began := time.monotonic())
    peer: Peer | None = None
    try:
        async with asyncio.timeout(timeout_s):
            socket_ = await server.addresses.connected()
            try:
                peer = socket_.getpeername()[:2]
                if express:
                    flow.limit(socket_)
            except BaseException:
                socket_.close()
                raise
            connected_at = time.monotonic()
            phase = "tls" if server.tls_context is not None else "connect"
            await loop.create_connection(
                lambda: connection,
                sock=socket_,
                ssl=server.tls_context,
                server_hostname=server.where.host if server.tls_context is not None else None,
            )
    except TimeoutError as error:
        raise OpenFailed(phase, TIMED_OUT) from error
    except ssl.SSLError as error:
        raise insecure(error) from error
    except (ConnectionError, OSError) as error:
        if phase == "tls":
            raise OpenFailed("tls", LOST) from error
        raise OpenFailed("connect", Reply.own(451, "4.4.1", plain(error))) from error
    except BaseException:
        peer = None  # cancelled: not a fault of the address
        raise
    finally:
        if not connection.is_open and peer is not None:
            server.addresses.failed(peer)
    secured_at = time.monotonic()
    if not connection.is_open:
        raise OpenFailed("connect", LOST)
    server.addresses.served(peer)
    opening = Opening((connected_at - began) * 1000.0, (secured_at - connected_at) * 1000.0, 0.0, began)
    connection.opened(opening, express=express)
    return connection
