"""Where a measurement is played: upstreams, networks, one contender, apps."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import load, message, records, usage
from bench.contender import Contender, Site, Upstream
from bench.options import say
from bench.postfix import Postfix
from bench.process import Child, module, wait_until
from bench.proxy import measured
from bench.records import Arrival, Sent, quantiles
from bench.relay import Relay
from tests.support.tls import make_certificates

WARM_UP = 10
WARM_UP_RATE = 10.0
ARRIVE_WITHIN_S = 60.0
FLOOD_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Network:
    """Between contender and upstream."""

    rtt_ms: float = 0.0
    tls: bool = False
    """STARTTLS and AUTH"""
    chunking: bool = False
    pipelining: bool = True


@dataclass(frozen=True, slots=True)
class Codes:
    count: int
    rate: float
    """a second, on average"""
    body_bytes: int = 2048
    kept: bool = False
    """over connections kept open, not one for each code"""
    burst: int = 1
    """so many at the same moment"""
    seed: int | None = None
    """at random (a Poisson process), as this number says"""


@dataclass(frozen=True, slots=True)
class Bulk:
    """What comes in beside the codes."""

    count: int
    connections: int
    body_bytes: int = 2048
    kept: bool = True
    batches: int = 1
    """one after the other"""
    lane: str = "bulk"


@dataclass(frozen=True, slots=True)
class SinkAt:
    port: int
    out: Path
    child: Child

    def arrivals(self) -> list[Arrival]:
        return records.arrivals(self.out)

    @property
    def arrived(self) -> int:
        return records.arrived(self.out)


class Floor(Contender):
    """The forwarder that does nothing to a message, see `floor`."""

    name = "floor"

    def __init__(self, site: Site) -> None:
        upstream = site.otp[0]
        arguments: list[object] = ["--to", upstream.port, "--spool", site.directory / "spool"]
        arguments += ["--sessions", site.floor_sessions]
        arguments += ["--ca", upstream.ca_file] if upstream.ca_file is not None else []
        arguments += ["--auth"] if upstream.auth else []
        self._argv = module("floor", *arguments)
        self._log = site.directory / "floor.log"
        self._child: Child | None = None
        self.port = 0

    @property
    def roots(self) -> Sequence[int]:
        return [self._child.pid] if self._child is not None else []

    def __enter__(self) -> Self:
        self._child = Child(self._argv, self._log, talks=True)
        try:
            self.port = _ready(self._child)
        except BaseException:
            self._child.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.end()


def contender(name: str, site: Site) -> Contender:
    """By its name: floor, relay, postfix, postfix-kept."""
    match name:
        case "floor":
            return Floor(site)
        case "relay":
            return Relay(site)
        case "postfix":
            return Postfix(site)
        case "postfix-kept":
            return Postfix(site, keep=True)
    raise ValueError(name)


class Stage:
    """A folder and the processes in it; gone when the block ends, the folder too unless `keep`."""

    def __init__(self, parent: Path | None, *, keep: bool, realtime: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="otp-relay-bench-", dir=parent))
        self._running = ExitStack()
        self._keep = keep
        self._realtime = ["--realtime"] if realtime else []
        self._count = 0
        self._pinged: set[float] = set()
        self._next_id = 1
        """no two codes of a run have the same"""
        self.certificates = make_certificates(self.directory)
        self.key_file = self.directory / "dkim.pem"
        _write_key(self.key_file)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of __exit__
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def scene(self) -> Iterator[None]:
        """What is started inside of the block ends with it."""
        outer, self._running = self._running, ExitStack()
        try:
            yield
        finally:
            inner, self._running = self._running, outer
            inner.close()

    def fresh(self, name: str) -> Path:
        """A new path in the folder."""
        self._count += 1
        return self.directory / f"{self._count}-{name}"

    def sink(
        self,
        network: Network = Network(),
        *,
        delay_s: float = 0.0,
        hang: str = "never",
        fast: bool = True,
        eightbit: bool = True,
        refuse: str = "",
    ) -> SinkAt:
        """`fast`: ahead of the contender whenever it has something to do; for upstreams whose times count. `refuse`:
        the reply to every message."""
        out = self.fresh("arrivals")
        arguments: list[object] = ["--out", out, "--delay", delay_s, "--hang", hang]
        if network.tls:
            good = self.certificates.good
            arguments += ["--auth", "--cert", good.cert_file, "--key", good.key_file]
        arguments += ["--chunking"] if network.chunking else []
        arguments += [] if network.pipelining else ["--no-pipelining"]
        arguments += [] if eightbit else ["--no-8bitmime"]
        arguments += ["--refuse", refuse] if refuse else []
        child = self._child("sink", *arguments, *(self._realtime if fast else []))
        return SinkAt(_ready(child), out, child)

    def proxy(self, to_port: int, rtt_ms: float) -> int:
        """The port of a network in front of `to_port`; that port itself where the round trip is zero."""
        if rtt_ms == 0:
            return to_port
        if rtt_ms not in self._pinged:
            self._pinged.add(rtt_ms)
            with self.scene():
                found = measured(lambda echo_port: self._start_proxy(echo_port, rtt_ms))
            say(f"network of {rtt_ms:.0f} ms: p50 {found.p50:.2f}  p99 {found.p99:.2f}  worst {found.worst:.2f} ms")
        return self._start_proxy(to_port, rtt_ms)

    def _start_proxy(self, to_port: int, rtt_ms: float) -> int:
        return _ready(self._child("proxy", "--to", to_port, "--rtt", rtt_ms, *self._realtime))

    def api_sink(self, kind: str) -> SinkAt:
        """An ESP's HTTP API over TLS, ahead of the contender whenever it has something to do."""
        out, good = self.fresh("arrivals"), self.certificates.good
        child = self._child(
            "api_sink",
            *("--kind", kind, "--out", out, "--cert", good.cert_file, "--key", good.key_file, *self._realtime),
        )
        return SinkAt(_ready(child), out, child)

    def upstream(self, sink: SinkAt, network: Network, *, api: str | None = None) -> Upstream:
        port = self.proxy(sink.port, network.rtt_ms)
        return Upstream(port, self.certificates.ca_file if network.tls else None, network.tls, api)

    def site(self, otp: Sequence[Upstream], bulk: Upstream, *, hedge: str | None = None) -> Site:
        directory = self.fresh("site")
        directory.mkdir()
        return Site(directory, tuple(otp), bulk, self.key_file, hedge=hedge)

    def ids(self, count: int) -> range:
        """Bench ids that no other code of the run has."""
        self._next_id += count
        return range(self._next_id - count, self._next_id)

    def codes(self, port: int, codes: Codes) -> tuple[Child, Path]:
        """Start a stream of codes; the file holds what was sent once it has finished."""
        out = self.fresh("sent")
        first_id = self.ids(codes.count).start
        arguments = ["codes", "--port", port, "--out", out, "--count", codes.count, "--rate", codes.rate]
        arguments += ["--body", codes.body_bytes, "--first-id", first_id, *(["--kept"] if codes.kept else [])]
        arguments += ["--burst", codes.burst, *(["--seed", codes.seed] if codes.seed is not None else [])]
        return self._child("load", *arguments, *self._realtime), out

    def flood(self, port: int, bulk: Bulk) -> Child:
        """Start one batch of bulk mail."""
        content = self.fresh("bulk.eml")
        # smtp-source ends each line with CRLF itself.
        content.write_bytes(message.bulk(bulk.body_bytes, bulk.lane).replace(b"\r\n", b"\n"))
        argv = load.flood(port, content, bulk.count, bulk.connections, kept=bulk.kept)
        return self._running.enter_context(Child(argv, self.fresh("flood.log")))

    def warm_up(self, port: int, sink: SinkAt) -> None:
        """A few codes that don't count, until the upstream has them."""
        before = sink.arrived
        child, _ = self.codes(port, Codes(WARM_UP, WARM_UP_RATE))
        child.wait(ARRIVE_WITHIN_S)
        wait_until("warm-up", lambda: sink.arrived >= before + WARM_UP, ARRIVE_WITHIN_S)

    def _child(self, name: str, *arguments: object) -> Child:
        child = Child(module(name, *arguments), self.fresh(f"{name}.log"), talks=True)
        return self._running.enter_context(child)


@dataclass(frozen=True, slots=True)
class CodesRun:
    """What became of a stream of codes."""

    times_ms: tuple[float, ...]
    """final dot to the upstream's last byte"""
    acknowledged_ms: tuple[float, ...]
    """final dot to the app's 250"""
    failed: int
    """the app got no 250"""
    missing: int
    """acknowledged, but not at the upstream within ARRIVE_WITHIN_S"""
    unsigned: int
    twice: int
    """copies at the upstream beyond the first"""
    peak_rss_bytes: int
    cpu_s: float

    def later_percent(self, calm: CodesRun) -> float:
        """How much later the 99th percentile is than that of an undisturbed run."""
        return (quantiles(self.times_ms).p99 / quantiles(calm.times_ms).p99 - 1.0) * 100.0


def wrong(runs: Sequence[CodesRun], *, signs: bool) -> str:
    """What must not be, over all of them; `-`: nothing. `signs`: the contender does."""
    counts = {
        "refused": sum(run.failed for run in runs),
        "not arrived": sum(run.missing for run in runs),
        "unsigned": sum(run.unsigned for run in runs) if signs else 0,
        "sent twice": sum(run.twice for run in runs),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "-"


def play(
    stage: Stage, running: Contender, sink: SinkAt, codes: Codes, bulk: Bulk | None = None, least_s: float = 0.0
) -> CodesRun:
    """A stream of codes through a contender that runs; with `bulk`, only the codes from its start on count, until it
    is in and `least_s` are over."""
    before = usage.of_trees(running.roots)
    child, sent_file = stage.codes(running.port, codes)
    since_ns = 0
    if bulk is None:
        child.wait(codes.count / codes.rate + ARRIVE_WITHIN_S)
    else:
        time.sleep(0.5)
        began = time.monotonic()
        since_ns = time.monotonic_ns()
        for _ in range(bulk.batches):
            stage.flood(running.port, bulk).wait(FLOOD_WITHIN_S)
        time.sleep(max(0.0, least_s - (time.monotonic() - began)))
        child.finish(ARRIVE_WITHIN_S)
    sent = [one for one in records.sent(sent_file) if one.dot_ns >= since_ns or not one.dot_ns]
    return judged(sent, sink, lambda: usage.of_trees(running.roots), before)


def judged(sent: list[Sent], sink: SinkAt, used: Callable[[], usage.Usage], before: usage.Usage) -> CodesRun:
    """What became of codes once they have arrived."""
    wanted = {one.bench_id for one in sent if one.acknowledged_ns}
    deadline = time.monotonic() + ARRIVE_WITHIN_S
    found: dict[int, Arrival] = {}
    while time.monotonic() < deadline:
        found = {one.bench_id: one for one in reversed(sink.arrivals()) if one.bench_id in wanted}
        if len(found) == len(wanted):
            break
        time.sleep(0.1)
    after = used()
    ids = {one.bench_id for one in sent}
    copies = [one.bench_id for one in sink.arrivals() if one.bench_id in ids]
    there = [(one, found[one.bench_id]) for one in sent if one.bench_id in found]
    return CodesRun(
        times_ms=tuple((arrival.at_ns - one.dot_ns) / 1e6 for one, arrival in there),
        acknowledged_ms=tuple((one.acknowledged_ns - one.dot_ns) / 1e6 for one, _ in there),
        failed=sum(not one.acknowledged_ns for one in sent),
        missing=len(wanted) - len(found),
        unsigned=sum(not arrival.signed for _, arrival in there),
        twice=len(copies) - len(set(copies)),
        peak_rss_bytes=after.peak_rss_bytes,
        cpu_s=after.cpu_s - before.cpu_s,
    )


def _ready(child: Child) -> int:
    """The port of its `ready PORT`."""
    return int(child.line().removeprefix("ready "))


def _write_key(path: Path) -> None:
    subprocess.run(["openssl", "genrsa", "-out", str(path), "2048"], check=True, capture_output=True, timeout=60)
    path.chmod(0o600)
