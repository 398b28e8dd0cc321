"""How late codes are when the first of two upstreams dies under an open session.

`refused`: its process is killed, connections are reset and new ones refused. `black-hole`: its process is stopped;
the kernel goes on taking connections and bytes, and nobody answers. The death comes just before a code does, which
is the worst moment: there was no time to notice it.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import records
from bench.options import Options, say, table
from bench.process import Failed, wait_until
from bench.records import Spread
from bench.stage import ARRIVE_WITHIN_S, Codes, Network, SinkAt, Stage, contender

ROWS = ("refused", "black-hole")
HEDGE_MS = 500.0
BETWEEN_S = 0.8
"""from code to code: longer than the hedge, so that the second comes when the first has taught its lesson"""
BEFORE_S = 0.01
"""from the death to the next code"""
ALIVE = 3
"""codes while the upstream lives"""
AFTER = 6
DEATHS = 5
QUICK_DEATHS = 1
_TARGETS = {"refused": "first ≤ 300, next 0", "black-hole": f"first ≤ hedge ({HEDGE_MS:.0f}), next 0"}
_TITLES = {"refused": "first upstream killed", "black-hole": "first upstream falls silent"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Milliseconds beyond what a code took while the upstream lived."""

    row: str
    alive_ms: float
    first_late_ms: float
    next_late_ms: float
    """the worst of the others"""
    twice: int
    """codes that reached both upstreams"""
    failure: str = ""


def measure(stage: Stage, row: str, options: Options) -> list[Outcome]:
    """One outcome for each death."""
    outcomes = []
    for _ in range(QUICK_DEATHS if options.quick else DEATHS * options.repeat):
        try:
            outcome = _one_death(stage, row)
        except Failed as failure:
            outcome = Outcome(row, 0.0, 0.0, 0.0, 0, failure=str(failure))
            say(f"{row}: FAILED: {failure}")
        else:
            say(f"{row:11} relay         first {outcome.first_late_ms:7.2f} ms late, next {outcome.next_late_ms:7.2f}")
        outcomes.append(outcome)
    return outcomes


def _one_death(stage: Stage, row: str) -> Outcome:
    with stage.scene():
        first, second = stage.sink(), stage.sink()
        upstreams = [stage.upstream(one, Network()) for one in (first, second)]
        bulk = stage.upstream(stage.sink(fast=False), Network())
        with contender("relay", stage.site(upstreams, bulk, hedge=f"{HEDGE_MS:.0f}ms")) as running:
            stage.warm_up(running.port, first)
            warm = first.arrived
            child, sent_file = stage.codes(running.port, Codes(ALIVE + AFTER, 1 / BETWEEN_S))
            wait_until("codes", lambda: first.arrived >= warm + ALIVE, ARRIVE_WITHIN_S, every_s=0.005)
            last_ns = first.arrivals()[-1].at_ns
            time.sleep(max(0.0, BETWEEN_S - BEFORE_S - (time.monotonic_ns() - last_ns) / 1e9))
            died_ns = time.monotonic_ns()
            first.child.signal(signal.SIGKILL if row == "refused" else signal.SIGSTOP)
            child.wait((ALIVE + AFTER) * BETWEEN_S + ARRIVE_WITHIN_S)
            sent = records.sent(sent_file)
            return _judged(row, sent, died_ns, first, second)


def _judged(row: str, sent: Sequence[records.Sent], died_ns: int, first: SinkAt, second: SinkAt) -> Outcome:
    wanted = {one.bench_id for one in sent}

    def there() -> dict[int, int]:
        both = [*first.arrivals(), *second.arrivals()]
        return {one.bench_id: one.at_ns for one in reversed(both) if one.bench_id in wanted}

    wait_until(f"{row}: all codes at an upstream", lambda: len(there()) == len(wanted), ARRIVE_WITHIN_S)
    arrived = there()
    times = [(one.dot_ns, (arrived[one.bench_id] - one.dot_ns) / 1e6) for one in sent]
    alive_ms = statistics.median(took for dot_ns, took in times if dot_ns < died_ns)
    late = [took - alive_ms for dot_ns, took in times if dot_ns >= died_ns]
    twice = {one.bench_id for one in first.arrivals()} & {one.bench_id for one in second.arrivals()} & wanted
    return Outcome(row, alive_ms, late[0], max(late[1:]), len(twice))


def table_of(outcomes: Sequence[Outcome]) -> str:
    head = (
        "work",
        "must reach (ms)",
        "alive p50",
        "first code late",
        "low–high",
        "next late",
        "low–high",
        "n",
        "wrong",
    )
    lines = []
    for row in ROWS:
        done = [one for one in outcomes if one.row == row and not one.failure]
        lost = sum(1 for one in outcomes if one.row == row and one.failure)
        if not done:
            continue
        first = Spread.of([one.first_late_ms for one in done])
        later = Spread.of([one.next_late_ms for one in done])
        twice = sum(one.twice for one in done)
        wrong = [f"{twice} sent twice"] if twice else []
        wrong += [f"{lost} failed"] if lost else []
        lines.append([
            _TITLES[row], _TARGETS[row], f"{Spread.of([one.alive_ms for one in done]).median:.2f}",
            f"{first.median:.2f}", f"{first.low:.2f}–{first.high:.2f}",
            f"{later.median:.2f}", f"{later.low:.2f}–{later.high:.2f}", str(len(done)), ", ".join(wrong) or "-",
        ])  # fmt: skip
    return table(head, lines)


def dump(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome)
