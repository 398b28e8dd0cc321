"""Post delivery events at a steady rate: `python -m bench.hooks PORT IDS --rate N --connections N`.

The file IDS has ids of messages that the relay has sent, a line each. Each event is a new one of one of them. Prints
`ready 0`, posts until its standard input is closed, then prints how many were answered 200, how many otherwise, and the
median and 99th percentile of the answers' milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvloop

from bench.contender import WEBHOOK_SECRET
from bench.process import end_with_stdin

RECIPIENT = "bulk@example.net"
_KINDS = ("Delivery", "Open", "Click")
_ANSWER_WITHIN_S = 20.0
Make = Callable[[int], bytes]
"""the number-th request"""


def event(messages: Sequence[tuple[str, str]], number: int) -> bytes:
    """A whole HTTP request with one event of Postmark's, about one of these messages (id, recipient)."""
    message_id, recipient = messages[number % len(messages)]
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    body = json.dumps(
        {
            "RecordType": _KINDS[number % len(_KINDS)],
            "MessageID": f"00000000-0000-4000-8000-{number:012d}",
            "Recipient": recipient,
            "Metadata": {"relay-id": message_id},
            **dict.fromkeys(("DeliveredAt", "ReceivedAt"), at),
            "UserAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari",
            "Tag": "newsletter",
            "ServerID": 23,
            "MessageStream": "outbound",
        }
    ).encode()
    return _request(body, WEBHOOK_SECRET)


def forged(size_bytes: int, _number: int) -> bytes:
    """A request of that size with a wrong proof."""
    return _request(b" " * size_bytes, "wrong:secret")


def _request(body: bytes, secret: str) -> bytes:
    proof = base64.b64encode(secret.encode()).decode()
    head = (
        f"POST /webhooks/bulk HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {proof}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Tally:
    def __init__(self) -> None:
        self.good = self.bad = 0
        self.times_ms: list[float] = []


async def pour(port: int, make: Make, rate: float, connections: int, stop: threading.Event) -> Tally:
    tally, numbers = Tally(), itertools.count(time.time_ns() // 1_000_000 % 10**9)
    each = rate / connections
    await asyncio.gather(*(_connection(port, make, numbers, each, stop, tally) for _ in range(connections)))
    return tally


async def _connection(
    port: int,
    make: Make,
    numbers: Iterator[int],
    rate: float,
    stop: threading.Event,
    tally: Tally,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due = time.monotonic()
    while not stop.is_set():
        due += 1.0 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        number = next(numbers)
        began = time.monotonic()
        writer.write(make(number))
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            await reader.readexactly(int(length.split(b":")[1]))
        tally.times_ms.append((time.monotonic() - began) * 1000)
        if head.startswith(b"HTTP/1.1 200"):
            tally.good += 1
        else:
            tally.bad += 1
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hooks", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("ids", type=Path)
    parser.add_argument("--rate", type=float, required=True, help="events a second, over all connections")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--forged", type=int, metavar="BYTES", help="no events, but bodies of that size, unproved")
    args = parser.parse_args()
    stop = threading.Event()
    end_with_stdin(stop.set)
    lines = map(str.split, args.ids.read_text().splitlines())
    messages = [(message_id, recipient) for message_id, recipient in lines]
    print("ready 0", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        make = partial(forged, args.forged) if args.forged else partial(event, messages)
        tally = runner.run(pour(args.port, make, args.rate, args.connections, stop))
    times = sorted(tally.times_ms) or [0.0]
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    print(tally.good, tally.bad, f"{p50:.1f}", f"{p99:.1f}", flush=True)


if __name__ == "__main__":
    main()
