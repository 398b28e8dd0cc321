"""How long a code takes to an ESP's HTTP API, beside the same ESP's SMTP without PIPELINING, and Postfix there.

`python -m bench.api [--quick] [--repeat N] [--no-postfix]`: RTT 40 ms, TLS, warm; README.md says what is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.options import parse, preamble, save, table
from bench.otp import HEAD, QUICK_CODES, SETTLE_S, Results
from bench.process import Failed
from bench.stage import Codes, CodesRun, Network, SinkAt, Stage, contender, play

_FAR = Network(rtt_ms=40, tls=True)
_CODES = Codes(200, 5)


@dataclass(frozen=True, slots=True)
class Way:
    """How codes go out."""

    name: str
    title: str
    target: str
    api: str | None = None
    peer: bool = False


ROW = "api"
WAYS = (
    Way("relay, SES API", "raw, signed, SigV4", "p50 ≤ 30", api="ses"),
    Way("relay, JSON API", "JSON, as Resend has it", "p50 ≤ 30", api="resend"),
    Way("relay, SMTP", "STARTTLS + AUTH, no PIPELINING", "(2.5 RTT)"),
    Way("postfix-kept", "STARTTLS + AUTH, no PIPELINING", "(2.5 RTT)", peer=True),
    Way("postfix", "the same, a new session for each", "", peer=True),
)


def measure(stage: Stage, way: Way, codes: Codes) -> CodesRun:
    """One way, once. Raises Failed."""
    with stage.scene():
        network = replace(_FAR, pipelining=False)
        sink: SinkAt = stage.api_sink(way.api) if way.api is not None else stage.sink(network)
        site = stage.site(
            [stage.upstream(sink, network, api=way.api)], stage.upstream(stage.sink(fast=False), Network())
        )
        with contender("relay" if way.name.startswith("relay") else way.name, site) as running:
            stage.warm_up(running.port, sink)
            time.sleep(SETTLE_S)
            return play(stage, running, sink, codes)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse("api", __doc__ or "", [ROW], argv)
    print(preamble(options), end="\n\n", flush=True)
    results = Results()
    codes = replace(_CODES, count=QUICK_CODES) if options.quick else _CODES
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        for _ in range(options.repeat):
            for way in WAYS:
                if options.peers or not way.peer:
                    results.take(way.name, way.name, lambda way=way: measure(stage, way, codes))  # type: ignore[misc]
    lines = [line for way in WAYS for line in results.lines(way.name, way.title, way.target, signs=way.api != "resend")]
    print(table(HEAD, lines))
    save(options, results.dump())
    return 1 if results.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(str(failure))
