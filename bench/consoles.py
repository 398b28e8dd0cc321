"""What codes feel of five open consoles, and how soon a console shows its first rows.

`python -m bench.consoles [--quick] [--rows ROW ...] [--repeat N]`. The row `five` has 20 codes a second, undisturbed
and right after that with five consoles open (`bench.console_clients`). The row `five-bulk` has a flood of bulk mail
beside both. `python -m bench.consoles --paint` opens the console in a headless Chromium, over a log of a million
messages, and over an empty one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import log
from bench.options import Options, parse, preamble, save, table
from bench.process import Child, module
from bench.records import Spread, quantiles
from bench.relay import Relay
from bench.repeated import repeated
from bench.stage import FLOOD_WITHIN_S, Bulk, Codes, CodesRun, Network, Stage, play
from relay.demo.process import RelayProcess

CONSOLES = 5
TARGET_PERCENT = 10.0
"""how much later the 99th percentile may be than undisturbed"""
PAINT_TARGET_S = 2.0
PAINTED, CHROMIUM = 1_000_000, "/usr/bin/chromium"
ROWS = ("five", "five-bulk")
HEAD = ("row", "p50", "p99", "undisturbed p99", "p99 later by", "low–high", "asked", "answer p50/p99", "CPU", "wrong")
_NETWORK = Network(rtt_ms=20)
_CODES, _QUICK_CODES = Codes(600, 20), Codes(20, 20)
_BULK = Bulk(20_000, 10)
"""they last for both runs of codes, some 60 s"""
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    row: str
    calm: CodesRun
    disturbed: CodesRun
    answered: int
    refused: int
    answer_ms: tuple[float, float]
    """median and 99th percentile"""

    @property
    def later_percent(self) -> float:
        return self.disturbed.later_percent(self.calm)


def measure(stage: Stage, row: str, codes: Codes, bulk: Bulk) -> Outcome:
    """Raises Failed."""
    with stage.scene():
        sink, slow = stage.sink(_NETWORK), stage.sink(fast=False)
        site = stage.site([stage.upstream(sink, _NETWORK)], stage.upstream(slow, Network()))
        with Relay(site) as relay:
            stage.warm_up(relay.port, sink)
            flood = stage.flood(relay.port, bulk) if row == "five-bulk" else None
            time.sleep(_SETTLE_S)
            calm = play(stage, relay, sink, codes)
            arguments = [relay.http_port, "--consoles", CONSOLES]
            with Child(module("console_clients", *arguments), stage.fresh("consoles.log"), talks=True) as consoles:
                consoles.line()
                disturbed = play(stage, relay, sink, codes)
                consoles.close_input()
                good, bad, p50, p99 = consoles.line(within_s=60.0).split()
            if flood is not None:
                flood.wait(FLOOD_WITHIN_S)
    return Outcome(row, calm, disturbed, int(good), int(bad), (float(p50), float(p99)))


def _line(row: str, outcomes: Sequence[Outcome]) -> list[str]:
    calm = [quantiles(one.calm.times_ms) for one in outcomes]
    found = [quantiles(one.disturbed.times_ms) for one in outcomes]
    later = Spread.of([one.later_percent for one in outcomes])
    wrong = sum(one.disturbed.failed + one.disturbed.missing + one.refused for one in outcomes)
    answers = [Spread.of([one.answer_ms[at] for one in outcomes]).median for at in (0, 1)]
    return [
        row,
        f"{Spread.of([one.p50 for one in found]).median:.1f}",
        f"{Spread.of([one.p99 for one in found]).median:.1f}",
        f"{Spread.of([one.p99 for one in calm]).median:.1f}",
        f"{later.median:+.1f} %",
        f"{later.low:+.1f} to {later.high:+.1f}",
        str(sum(one.answered for one in outcomes)),
        f"{answers[0]:.1f}/{answers[1]:.1f}",
        f"{Spread.of([one.disturbed.cpu_s for one in outcomes]).median:.1f} s",
        str(wrong) if wrong else "-",
    ]


def run(options: Options, stage: Stage) -> tuple[list[Outcome], int]:
    codes = _QUICK_CODES if options.quick else _CODES
    bulk = dataclasses.replace(_BULK, count=100) if options.quick else _BULK
    return repeated(options, lambda row: measure(stage, row, codes, bulk), _line)


async def paint(messages: int, runs: int) -> list[float]:
    """Seconds from the request of the page to its first row, over a log of so many messages; to its first text over an
    empty one."""
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        if messages:
            await log.make(directory / "relay.db", messages, time.time())
        config = log.configure(directory, listen=[{"address": "127.0.0.1:0"}], http={"address": "127.0.0.1:0"})
        async with RelayProcess(config) as relay, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM)
            found = [await _paint(browser, f"http://{relay.http_address}/", messages) for _ in range(runs)]
            await browser.close()
    return found


async def _paint(browser: object, url: str, messages: int) -> float:
    page = await browser.new_page()  # type: ignore[attr-defined]
    try:
        began = time.perf_counter()
        await page.goto(url)
        await page.wait_for_selector("tbody tr" if messages else "main :text-matches('.')", timeout=60_000)
        return time.perf_counter() - began
    finally:
        await page.close()


def paint_all(runs: int) -> None:
    rows = []
    for messages in (0, PAINTED):
        found = asyncio.run(paint(messages, runs))
        name = f"{messages} messages" if messages else "an empty log"
        rows.append([name, f"{statistics.median(found):.2f} s", f"{min(found):.2f} to {max(found):.2f}"])
    print(table(("first rows", "median", "low–high"), rows))
    print(f"\ntarget: less than {PAINT_TARGET_S:.0f} s")


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if "--paint" in given:
        paint_all(int(next(iter(re.findall(r"--repeat (\d+)", " ".join(given))), "5")))
        return 0
    options = parse("consoles", __doc__ or "", ROWS, given)
    print(preamble(options), end="\n\n", flush=True)
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        outcomes, failures = run(options, stage)
    for row in dict.fromkeys(one.row for one in outcomes):
        print(table(HEAD, [_line(row, [one for one in outcomes if one.row == row])]))
    print(f"\ntarget: p99 later by less than {TARGET_PERCENT:.0f} %")
    save(options, [{"row": one.row, "later_percent": one.later_percent} for one in outcomes])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
