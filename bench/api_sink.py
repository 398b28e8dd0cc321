"""An ESP's HTTP API as a process of its own: takes mail, writes down when each request's last byte was in.

`python -m bench.api_sink --kind ses|resend --out FILE [--cert FILE --key FILE]` prints `ready PORT` and runs until its
standard input ends. It looks at nothing but Content-Length and the message's id.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import ssl
import time
from pathlib import Path
from typing import cast

import uvloop

from bench.message import ID_HEADER
from bench.process import end_with_stdin, steady
from bench.sink import Recorder

KINDS = ("ses", "resend")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_BODIES = {"ses": b'{"MessageId":"0107018f-bench-000000"}', "resend": b'{"id":"49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"}'}


class ApiSink(asyncio.Protocol):
    """One connection."""

    def __init__(self, kind: str, recorder: Recorder) -> None:
        self._kind = kind
        self._recorder = recorder
        self._read = b""
        body = _BODIES[kind]
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._answer = head + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._read, 0, end + 2)
            size = int(found[1]) if found is not None else 0
            if len(self._read) < end + 4 + size:
                return
            body, self._read = self._read[end + 4 : end + 4 + size], self._read[end + 4 + size :]
            self._transport.write(self._answer)
            self._recorder.take(self._content(body), now_ns, size)

    def _content(self, body: bytes) -> bytes:
        if self._kind == "ses":
            return base64.b64decode(json.loads(body)["Content"]["Raw"]["Data"])
        return body.replace(b'"X-Bench-ID": "', ID_HEADER)


async def serve(kind: str, out: Path, context: ssl.SSLContext | None) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    recorder = Recorder(out)
    server = await loop.create_server(lambda: ApiSink(kind, recorder), "127.0.0.1", 0, ssl=context, backlog=1024)
    stop = asyncio.Event()
    end_with_stdin(lambda: loop.call_soon_threadsafe(stop.set))
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    recorder.flush()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api_sink", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--realtime", action="store_true")
    args = parser.parse_args()
    steady(realtime=args.realtime)
    context = None
    if args.cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
    uvloop.run(serve(args.kind, args.out, context))


if __name__ == "__main__":
    main()
