"""How long it takes until something works: `ready`, `--help`, `sendmail`, and what an idle relay keeps in memory.

`python -m bench.startup [--runs N] [--queued N] [--json FILE]`: each row N times, taken in turn so that a noisy moment
hits all of them, beside a Python that does nothing. Compare CPU (user and system) and the differences to that floor; on
a machine that does other work the wall clock says little.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench import fill, message, usage
from bench.process import ROOT, Child, Failed, wait_until

RUNS = 9
QUEUED = 100_000
READY_WITHIN_S = 60.0
SETTLED_AFTER_S = 3.0
"""behind `ready`: workers have begun, everything that is loaded later is there"""
# What pip writes into bin/otp-relay.
_COMMAND = (sys.executable, "-c", "import sys\nfrom relay.__main__ import main\nsys.exit(main())")
_SENDMAIL = (sys.executable, "-c", "from relay.cli.sendmail import main\nmain()")
_READY = re.compile(r"^ready smtp=127\.0\.0\.1:(\d+) ", re.MULTILINE)
_LANES = ("parked", "codes")
"""of what is queued: one is a worker's, the other the main process's"""


@dataclass(frozen=True, slots=True)
class Took:
    cpu_ms: float
    wall_ms: float
    memory_mb: float = 0.0
    """`ready`: shared pages divided among those that share them (PSS), main process and workers, once settled"""
    settled_cpu_ms: float = 0.0
    """`ready`: main process and workers, until they are settled"""


class Relay:
    """A run of the relay in `directory`, begun now; `ready` waits for the line."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "relay.log"
        self._log.unlink(missing_ok=True)
        self._began = time.monotonic()
        self._child = Child([*_COMMAND, "run", "-c", str(directory / "relay.yaml")], self._log)
        self.port = 0

    def ready(self) -> Took:
        deadline = self._began + READY_WITHIN_S
        while not (found := _READY.search(self._log.read_text(errors="replace"))):
            if time.monotonic() > deadline or not self._child.running:
                raise Failed(f"the relay did not get ready\n{self._child.last_words}")
            time.sleep(0.001)
        wall_ms = (time.monotonic() - self._began) * 1000
        self.port = int(found[1])
        return Took(_cpu_ms(self._child.pid), wall_ms)

    def settled(self) -> Took:
        took = self.ready()
        time.sleep(SETTLED_AFTER_S)
        pids = usage.trees([self._child.pid])
        return Took(took.cpu_ms, took.wall_ms, sum(map(_pss_mb, pids)), usage.of_trees([self._child.pid]).cpu_s * 1000)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.end()


def _cpu_ms(pid: int) -> float:
    """Of all threads that live, exact where /proc/PID/stat counts in ticks of 10 ms."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e6


def _pss_mb(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _compiled(folder: Path) -> None:
    """Let every process from here on find its modules compiled, as pip leaves them, whatever state this checkout and
    its environment are in; the first of them compiles."""
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _run(argv: Sequence[str], given: bytes = b"", environ: dict[str, str] | None = None) -> Took:
    began = time.monotonic()
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
        stdin.write(given)
        stdin.seek(0)
        child = subprocess.Popen(
            argv, stdin=stdin, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **(environ or {})}
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall_ms = (time.monotonic() - began) * 1000
        if child.returncode:
            output.seek(0)
            raise Failed(f"{argv[2:]}: exit code {child.returncode}\n{output.read().decode(errors='replace')}")
    return Took((used.ru_utime + used.ru_stime) * 1000, wall_ms)


def _configure(directory: Path, upstream_port: int) -> None:
    """Two upstreams with STARTTLS and the system's CAs, one of them warm, one RSA key."""
    key = rsa.generate_private_key(65537, 2048)
    (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    upstream = {"host": "127.0.0.1", "port": upstream_port, "tls": "starttls"}
    config: dict[str, Any] = {
        "listen": [{"address": "127.0.0.1:0"}],
        "http": {"address": "127.0.0.1:0"},
        "store": "relay.db",
        "hostname": "relay.example.com",
        "upstreams": {name: dict(upstream) for name in ("first", "second")},
        "lanes": {
            "otp": {"upstreams": ["first", "second"]},
            "bulk": {"upstreams": ["second"]},
            "parked": {"upstreams": ["second"], "retry": ["4h"], "expires": "2d"},
            "codes": {"upstreams": ["second"], "retry": ["4h"], "expires": "2d", "express": True},
        },
        "rules": [{"name": lane, "match": {"header": {"X-Relay-Lane": lane}}, "lane": lane} for lane in _LANES],
        "default_lane": "bulk",
        "dkim": [{"domain": message.DOMAIN, "keys": [{"selector": "bench", "key_file": "key.pem"}]}],
        "shutdown": "1s",
    }
    (directory / "relay.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _submit(port: int, lane: str) -> Took:
    arguments = ["sendmail", "-i", "-f", message.BULK_SENDER, "list@example.net"]
    return _run([*_COMMAND, *arguments], message.bulk(2048, lane), {"OTP_RELAY_SUBMIT": f"127.0.0.1:{port}"})


def _fill(directory: Path, queued: int) -> None:
    """`queued` messages wait in the main process's file, and as many in the worker's."""
    with Relay(directory) as relay:
        relay.ready()
        for lane in _LANES:
            _submit(relay.port, lane)
        files = [directory / "relay.db", directory / "relay-bulk1.db"]
        wait_until("one message in each file", lambda: all(map(fill.holds_mail, files)), READY_WITHIN_S)
    fill.fill(directory, 0, 2 * queued)


def _started(directory: Path) -> Took:
    with Relay(directory) as relay:
        return relay.settled()


def _rows(directory: Path, queued: int, port: int, stack: ExitStack) -> dict[str, Callable[[], Took]]:
    for name in ("empty", "full", "running"):
        (directory / name).mkdir()
        _configure(directory / name, port)
    if queued:
        _fill(directory / "full", queued)
    running = stack.enter_context(Relay(directory / "running"))
    running.ready()

    def empty() -> Took:
        for file in (directory / "empty").glob("*.db*"):
            file.unlink()
        return _started(directory / "empty")

    given = message.bulk(2048)
    alone = [*_SENDMAIL, "-i", "-f", message.BULK_SENDER, "list@example.net"]
    rows: dict[str, Callable[[], Took]] = {
        "python -c pass": lambda: _run([sys.executable, "-c", "pass"]),
        "otp-relay --help": lambda: _run([*_COMMAND, "--help"]),
        "otp-relay run --help": lambda: _run([*_COMMAND, "run", "--help"]),
        "otp-relay sendmail": lambda: _submit(running.port, "bulk"),
        "otp-relay-sendmail": lambda: _run(alone, given, {"OTP_RELAY_SUBMIT": f"127.0.0.1:{running.port}"}),
        "ready, empty store": empty,
    }
    if queued:
        rows[f"ready, 2 x {queued:,} queued"] = lambda: _started(directory / "full")
    return rows


def _table(taken: dict[str, list[Took]]) -> Iterable[str]:
    yield f"{'':32} {'CPU ms':>22} {'wall ms':>22} {'settled: CPU ms':>16} {'MB':>7}"
    for name, all_of_it in taken.items():
        cpu, wall = ([getattr(took, what) for took in all_of_it] for what in ("cpu_ms", "wall_ms"))
        line = f"{name:32} {_spread(cpu):>22} {_spread(wall):>22}"
        if all_of_it[0].memory_mb:
            settled = statistics.median(took.settled_cpu_ms for took in all_of_it)
            line += f" {settled:16.0f} {statistics.median(took.memory_mb for took in all_of_it):7.1f}"
        yield line


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"default: {RUNS}")
    parser.add_argument("--queued", type=int, default=QUEUED, metavar="N", help=f"in each file; default: {QUEUED}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run's figures")
    args = parser.parse_args(argv)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="otp-relay-bench-")))
        _compiled(directory / "compiled")
        # Its kernel takes connections, and nobody answers: what is queued stays queued.
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        rows = _rows(directory, args.queued, silent.getsockname()[1], stack)
        for measure in rows.values():
            measure()
        taken: dict[str, list[Took]] = {name: [] for name in rows}
        for _ in range(args.runs):
            for name, measure in rows.items():
                taken[name].append(measure())
    print("\n".join(_table(taken)))
    if args.json is not None:
        args.json.write_text(
            json.dumps({name: [asdict(one) for one in all_of_it] for name, all_of_it in taken.items()})
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
