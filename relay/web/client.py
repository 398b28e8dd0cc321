"""A synchronous client of a relay's HTTP service, for the commands."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from relay.config.network import AnyAddress, SystemdAddress, TcpAddress, UnixAddress, is_host

if TYPE_CHECKING:
    import ssl

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a listener there answers on loopback, too
_PORTS = {"http": 80, "https": 443}
MAX_BODY_BYTES = 200_000_000
"""of a response: a listing of 10,000 messages has some ten million"""


@dataclass(frozen=True, slots=True)
class Url:
    """`https://relay.example.com:8025/prefix`"""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    """before each path, where a proxy stands before the relay"""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"


class NotListening(Exception):
    """Nothing listens on the address."""


class NoResponse(Exception):
    """The address gave no proper response in time; the text says why."""


class Response(NamedTuple):
    """An HTTP status, and the JSON that came with it."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}

    @property
    def document(self) -> dict[str, Any]:
        """The body; {} where that is no object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def error(self) -> str:
        """Of a refusal: why."""
        error = self.document.get("error", "")
        return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def parse_url(text: str) -> Url:
    """Raises ValueError, which shows no credentials."""
    expected = "expected a URL such as https://relay.example.com:8025"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with credentials; the token goes into a file or a variable")
    if parts.scheme not in _PORTS or not host or not is_host(host) or parts.query or parts.fragment:
        raise ValueError(expected)
    return Url(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, parts.path.rstrip("/"))


def request(
    address: AnyAddress | Url,
    method: str,
    path: str,
    document: object = None,
    *,
    token: str | None = None,
    within_s: float,
) -> Response:
    """Send one request. `within_s`: the deadline of each network step (connect, each read). Raises NotListening,
    NoResponse; ValueError for a systemd address, whose place isn't known."""
    with _Exchange(address, token, within_s) as exchange, exchange.errors():
        response = exchange.send(method, path, None if document is None else json.dumps(document))
        body = response.read(MAX_BODY_BYTES)
        try:
            return Response(response.status, json.loads(body), dict(response.headers))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise NoResponse("the body is not JSON") from None


def events(
    address: AnyAddress | Url, path: str, *, token: str | None = None, within_s: float
) -> Iterator[tuple[str, str]]:
    """Server-sent events, as they come: kind and data; the kind is '' for a comment. The stream has begun when this
    returns. `within_s`: see `request`. It and each step raise NotListening, NoResponse, also at the stream's end."""
    exchange = _Exchange(address, token, within_s)
    try:
        with exchange.errors():
            response = exchange.send("GET", path)
            if response.status != 200:
                raise NoResponse(f"{response.status} {response.reason}")
    except BaseException:
        exchange.close()
        raise
    return _events(exchange, response)


def _events(exchange: _Exchange, response: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    kind = ""
    with exchange, exchange.errors():
        while line := response.readline(MAX_BODY_BYTES):
            name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(": ")
            match name:
                case "event":
                    kind = value
                case "data":
                    yield kind, value
                case ":":
                    yield "", ""
        raise NoResponse("the stream ended")


class _Exchange:
    """One request over a connection of its own, which the block closes."""

    def __init__(self, address: AnyAddress | Url, token: str | None, within_s: float) -> None:
        self._prefix = address.prefix if isinstance(address, Url) else ""
        self._token = token
        self._connection = _connection(address, within_s)

    def send(self, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        self._connection.request(method, self._prefix + path, body, headers)
        return self._connection.getresponse()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What fails inside of the block is raised as one of this module's errors."""
        try:
            yield
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotListening from None
        except (OSError, http.client.HTTPException) as error:
            raise NoResponse(str(error) or type(error).__name__) from error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connection(address: AnyAddress | Url, within_s: float) -> http.client.HTTPConnection:
    match address:
        case Url("https", host, port):
            return http.client.HTTPSConnection(host, port, timeout=within_s, context=_tls())
        case Url(_, host, port):
            return http.client.HTTPConnection(host, port, timeout=within_s)
        case _:
            return _LocalConnection(address, within_s)


def _tls() -> ssl.SSLContext:
    import ssl  # here: most commands ask a relay on this machine

    return ssl.create_default_context()


class _LocalConnection(http.client.HTTPConnection):
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
