"""What a scripted HTTP server answers: a `Reply`, or an action that misbehaves.

An answer is any of
- a `Reply` or an action: `Hang()`, `Redirect("https://elsewhere.example/")`, ...
- a callable, plain or async: `(Request) -> Reply or action`. It is asked once the whole body is there.
`ApiServer` takes one answer, or a list: one for each request, over all connections; the last one repeats.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

Header: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    """as sent, with the query"""
    headers: list[Header]
    """names in lower case"""
    body: bytes
    connection: int
    """index of the connection, from 0"""
    first_byte_at: float
    """of the request line; time.monotonic(), like the next"""
    last_byte_at: float
    """of what was read"""
    whole: bool = True
    """False: the client left, or the script ended it, before the body's end"""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a field that may stand once. ValueError if it stands twice."""
        values = self.values(name)
        if len(values) > 1:
            raise ValueError(f"the field {name} stands {len(values)} times")
        return values[0] if values else None

    def json(self) -> Any:
        """The body as JSON. ValueError if it isn't."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """A proper answer. Content-Length is added, and for a JSON value Content-Type too."""

    status: int = 200
    body: Any = b""
    """bytes as they are, or a JSON value"""
    headers: Sequence[Header] = ()

    def encode(self, *, close: bool = False) -> bytes:
        """`close`: with `Connection: close`."""
        is_json = not isinstance(self.body, bytes)
        body = json.dumps(self.body).encode() if is_json else self.body
        added = [("Content-Type", "application/json")] if is_json else []
        # RFC 9110 8.6: 1xx and 204 have no Content-Length.
        if self.status >= 200 and self.status != HTTPStatus.NO_CONTENT:
            added.append(("Content-Length", str(len(body))))
        if close:
            added.append(("Connection", "close"))
        own = {name.lower() for name, _ in self.headers}
        kept = [one for one in added if one[0].lower() not in own]
        return encode_head(self.status, (*self.headers, *kept)) + body


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing, but notice when the client leaves."""


@dataclass(frozen=True, slots=True)
class CloseBefore:
    """Read the whole request, then end the connection with FIN, without an answer."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Read the whole request, then end the connection with RST."""


@dataclass(frozen=True, slots=True)
class StopReading:
    """Read so much of the body, then read nothing more. The kernels' buffers take some megabytes before the client
    notices, less with `ApiServer(receive_buffer_bytes=...)`. A client that leaves with an RST is noticed; a FIN waits
    behind what isn't read."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CloseWhileReading:
    """Read so much of the body, then close. What is still unread makes an RST of it."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Early:
    """Answer when the head is there, before the body is read; then close."""

    status: int = 413
    body: Any = b""
    reads_on: bool = True
    """read the body all the same and drop it; else close at once, which may destroy the answer"""


@dataclass(frozen=True, slots=True)
class Raw:
    """Any bytes as the answer."""

    data: bytes
    close: bool = True
    """else the next request is read"""


@dataclass(frozen=True, slots=True)
class Endless:
    """An answer without end, until the client leaves. `headers` say how the body is framed."""

    headers: Sequence[Header] = (("Transfer-Encoding", "chunked"),)
    """or `("Content-Length", "1000000000000")`"""
    status: int = 200
    part: Literal["head", "body"] = "body"


@dataclass(frozen=True, slots=True)
class Slow:
    """The body a byte at a time, with a pause before each."""

    body: bytes
    pause_s: float = 0.01
    status: int = 200
    head: bool = False
    """the head a byte at a time too"""


@dataclass(frozen=True, slots=True)
class Bomb:
    """A small gzip body that gets large when unpacked."""

    size_bytes: int = 256 << 20
    """unpacked; rounded up to whole MiB"""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str
    status: int = 307
    """307 and 308 ask for the same method and body"""


@dataclass(frozen=True, slots=True)
class CloseAfter:
    """Answer with `Connection: close`, and do so."""

    reply: Reply = Reply()


@dataclass(frozen=True, slots=True)
class IdleClose:
    """Answer as though the connection were kept, but close it when no request comes for so long."""

    after_s: float = 0.0
    reply: Reply = Reply()


@dataclass(frozen=True, slots=True)
class Taken:
    """Let `by` have the request, lose its answer and do `then`: the mail is accepted, and the client can't know."""

    by: Responder
    then: Action


WhileReading: TypeAlias = StopReading | CloseWhileReading | Early
"""Actions that come before the body's end: in a list, or from `ApiServer(at_head=...)`."""
Action: TypeAlias = (
    Hang
    | CloseBefore
    | Reset
    | StopReading
    | CloseWhileReading
    | Early
    | Raw
    | Endless
    | Slow
    | Bomb
    | Redirect
    | CloseAfter
    | IdleClose
    | Taken
)
Responder: TypeAlias = Callable[[Request], Reply | Action | Awaitable[Reply | Action]]
Answer: TypeAlias = Reply | Action | Responder
AtHead: TypeAlias = Callable[[Request], WhileReading | None]


def encode_head(status: int, headers: Sequence[Header]) -> bytes:
    """Status line and fields, with the empty line."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""  # RFC 9112 4: a phrase may be empty, for a code without a name
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


@functools.cache
def gzip_bomb(mebibytes: int) -> bytes:
    """One gzip member of that many MiB of zeros, made without compressing all of them."""
    mebibyte = bytes(1 << 20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    # A full flush forgets what came before, so that the block may be repeated.
    block = deflate.compress(mebibyte) + deflate.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(mebibytes):
        check = zlib.crc32(mebibyte, check)
    size = (mebibytes << 20) & 0xFFFFFFFF
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"  # RFC 1952 2.3
    return header + block * mebibytes + deflate.flush() + check.to_bytes(4, "little") + size.to_bytes(4, "little")
