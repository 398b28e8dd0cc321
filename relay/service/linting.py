"""`lint: report`: what lint finds in a lane's messages is counted, by a process beside the relay (`linting.entry`).

Nothing waits for it. A message that it has no room for is counted as skipped.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque

from relay.config.model import Config
from relay.linting.messages import MOST_BYTES, domains_packet, message_packet, read_answer
from relay.mail.dkim import ascii_domain
from relay.mail.lint.rules import RULES
from relay.observe.maillog import MailLog
from relay.service import child
from relay.supervise import Supervisor

ENTRY = "relay.linting.entry"
SILENT_FOR_S = 60.0
"""a process that owes an answer for this long hangs, and another one is started"""
CHECK_EVERY_S = 5.0
STOPS_WITHIN_S = 0.5
_ANSWER_BYTES = 65_536


class LintEnded(Exception):
    """The lint process ended, or did not answer any more."""


class LintReport:
    """`start`, `reload`, `stop`; and `offer` for each message."""

    def __init__(self, log: MailLog, supervisor: Supervisor) -> None:
        self._log = log
        self._supervisor = supervisor
        self._lanes: frozenset[str] = frozenset()
        self._domains: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._link: socket.socket | None = None
        self._asked: deque[tuple[str, float]] = deque()
        """lane and time (time.monotonic) of each message that is not answered yet"""

    def start(self, config: Config) -> None:
        """Start the process where a lane wants it. Returns at once."""
        self._use(config)
        if self._lanes and self._task is None:
            self._task = self._supervisor.run_forever("lint", self._live)

    async def reload(self, config: Config) -> None:
        """Start, stop or reconfigure the process, as the lanes need it."""
        self.start(config)
        if not self._lanes:
            await self.stop()
        elif self._link is not None:
            self._send(self._link, domains_packet(self._domains))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def offer(self, lane: str, content: bytes | None) -> None:
        """Let a message of this lane be looked at, if the lane wants that. None: it is too large for it."""
        if lane not in self._lanes:
            return
        is_sent = (
            self._link is not None
            and content is not None
            and len(content) <= MOST_BYTES
            and self._send(self._link, message_packet(lane, content))
        )
        if is_sent:
            self._asked.append((lane, time.monotonic()))
        else:
            self._log.metrics.linted[lane, "skipped"].inc()

    def _use(self, config: Config) -> None:
        self._lanes = frozenset(name for name, lane in config.lanes.items() if lane.lint == "report")
        self._domains = frozenset(ascii_domain(one.domain) for one in config.dkim)

    @staticmethod
    def _send(link: socket.socket, packet: bytes) -> bool:
        """False: the socket is full, or the process is gone."""
        try:
            return link.send(packet) > 0
        except OSError:
            return False

    async def _live(self) -> None:
        """One life of the process. Raises LintEnded."""
        loop = asyncio.get_running_loop()
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.setblocking(False)
        with link:
            process = await child.start(ENTRY, theirs)
            try:
                self._send(link, domains_packet(self._domains))
                self._link = link
                loop.add_reader(link.fileno(), self._read, link)
                while process.returncode is None and not self._hangs():
                    await child.ended_within(process, CHECK_EVERY_S)
                raise LintEnded
            finally:
                self._link = None
                loop.remove_reader(link.fileno())
                for lane, _ in self._asked:
                    self._log.metrics.linted[lane, "skipped"].inc()
                self._asked.clear()
                link.close()
                await child.end(process, STOPS_WITHIN_S)

    def _hangs(self) -> bool:
        return bool(self._asked) and time.monotonic() - self._asked[0][1] > SILENT_FOR_S

    def _read(self, link: socket.socket) -> None:
        try:
            while packet := link.recv(_ANSWER_BYTES):
                self._asked.popleft()
                self._count(packet)
        except BlockingIOError:
            return
        except OSError as error:
            self._log.trouble("lint", error)
        # Nothing more will come. The end of the process is noticed where it is awaited.
        asyncio.get_running_loop().remove_reader(link.fileno())

    def _count(self, packet: bytes) -> None:
        lane, rules = read_answer(packet)
        metrics = self._log.metrics
        if lane not in self._lanes:
            return
        metrics.linted[lane, "skipped" if rules is None else "checked"].inc()
        for rule in rules or ():
            if rule in RULES:
                metrics.lint_findings[lane, rule].inc()
