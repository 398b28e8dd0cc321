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
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench.contender import WEBHOOK_SECRET
from bench.process import end_with_stdin

RECIPIENT = "bulk@example.net"
_KINDS = ("Delivery", "Open", "Click")
_ANSWER_WITHIN_S = 20.0


def request(number: int, message_id: str, recipient: str) -> bytes:
    """A whole HTTP request with one event of Postmark's."""
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
    proof = base64.b64encode(WEBHOOK_SECRET.encode()).decode()
    head = (
        f"POST /webhooks/bulk HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {proof}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Tally:
    def __init__(self) -> None:
        self.good = self.bad = 0
        self.times_ms: list[float] = []


async def pour(
    port: int, messages: Sequence[tuple[str, str]], rate: float, connections: int, stop: threading.Event
) -> Tally:
    """`messages`: id and recipient of each."""
    tally, numbers = Tally(), itertools.count(time.time_ns() // 1_000_000 % 10**9)
    await asyncio.gather(
        *(_connection(port, messages, numbers, rate / connections, stop, tally) for _ in range(connections))
    )
    return tally


async def _connection(
    port: int,
    messages: Sequence[tuple[str, str]],
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
        writer.write(request(number, *messages[number % len(messages)]))
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
    args = parser.parse_args()
    stop = threading.Event()
    end_with_stdin(stop.set)
    lines = map(str.split, args.ids.read_text().splitlines())
    messages = [(message_id, recipient) for message_id, recipient in lines]
    print("ready 0", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(pour(args.port, messages, args.rate, args.connections, stop))
    times = sorted(tally.times_ms) or [0.0]
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    print(tally.good, tally.bad, f"{p50:.1f}", f"{p99:.1f}", flush=True)


if __name__ == "__main__":
    main()
