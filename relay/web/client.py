"""A synchronous client of the relay's own HTTP service, for the commands: one request, one JSON response."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple

from relay.config.network import AnyAddress, SystemdAddress, TcpAddress, UnixAddress

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a listener there answers on loopback, too


class NotListening(Exception):
    """Nothing listens on the address."""


class NoResponse(Exception):
    """The address gave no JSON response in time; the text says why."""


class Response(NamedTuple):
    """An HTTP status, and the JSON document that came with it ({} if that is no object)."""

    status: int
    document: dict[str, Any]


def request(
    address: AnyAddress,
    method: str,
    path: str,
    document: object = None,
    *,
    token: str | None = None,
    within_s: float,
) -> Response:
    """Send one request. `within_s`: the deadline of each network step (connect, each read). Raises NotListening,
    NoResponse; ValueError for a systemd address, whose place isn't known."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection = _Connection(address, within_s)
    try:
        connection.request(method, path, None if document is None else json.dumps(document), headers)
        response = connection.getresponse()
        body = json.loads(response.read())
    except (ConnectionRefusedError, FileNotFoundError):
        raise NotListening from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise NoResponse("the body is not JSON") from None
    except (OSError, http.client.HTTPException) as error:
        raise NoResponse(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    return Response(response.status, body if isinstance(body, dict) else {})


class _Connection(http.client.HTTPConnection):
    """To a TCP address or a unix socket."""

    def __init__(self, address: AnyAddress, within_s: float) -> None:
        if isinstance(address, SystemdAddress):
            raise ValueError(f"the address of the socket {address} isn't known here")  # noqa: TRY004
        self._address = address
        super().__init__("localhost", timeout=within_s)

    def connect(self) -> None:
        match self._address:
            case TcpAddress(host, port):
                self.sock = socket.create_connection((_WILDCARDS.get(host, host), port), timeout=self.timeout)
            case UnixAddress(path):
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(self.timeout)
                self.sock.connect(path)
