"""One session to a server of any kind, message after message: each recipient's result against what the server
really did, whatever it answers and wherever it breaks off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.upstream.attempt import Progress, Terms
from relay.upstream.gate import Gate
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from tests.support.machine import LoopMachine
from tests.upstream.test_faults import Line

CONTENT = b"Subject: x\r\n\r\n.one\r\n..\r\n"
WAYS = [(), ("PIPELINING",), ("PIPELINING", "CHUNKING"), ("CHUNKING",)]
REFUSALS = [450, 451, 452, 550, 552, 554]


@dataclass
class Server:
    """Reads what the session wrote, command by command; the test says how each is answered."""

    line: Line
    read: int = 0
    in_data: bool = False
    mail: bool = False
    asked: int = 0
    accepted: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    """recipients of the present message that it is responsible for"""
    texts: int = 0

    def next(self) -> str:
        """What waits for an answer: a verb, DOT for a content; '' for nothing."""
        rest = bytes(self.line.written[self.read :])
        if self.in_data:
            return "DOT" if b".\r\n" in (rest[:3], rest[-3:]) else ""
        if rest.startswith(b"BDAT"):
            head, _, body = rest.partition(b"\r\n")
            return "DOT" if len(body) >= int(head.split()[1]) else ""
        return rest.partition(b" ")[0].partition(b"\r\n")[0].decode() if b"\r\n" in rest else ""

    def answer(self, code: int) -> bytes:
        verb = self.next()
        rest = bytes(self.line.written[self.read :])
        if verb == "DOT":
            self._content(rest)
            if code < 300 and self.accepted:
                self.taken = list(self.accepted)
            elif code < 300:
                code = 554
            self.mail, self.asked, self.accepted = False, 0, []
        else:
            self.read += rest.index(b"\r\n") + 2
            code = self._command(verb, code)
        self.texts += 1
        return f"{code} {verb.lower()} text {self.texts}\r\n".encode()

    def _content(self, rest: bytes) -> None:
        if self.in_data:
            self.read += len(rest)
            self.in_data = False
        else:
            head, _, _ = rest.partition(b"\r\n")
            self.read += len(head) + 2 + int(head.split()[1])

    def _command(self, verb: str, code: int) -> int:
        match verb:
            case "MAIL":
                self.mail, self.asked, self.accepted, self.taken = code < 300, 0, [], []
            case "RCPT":
                code = code if self.mail else 503
                if code < 300:
                    self.accepted.append(self.asked)
                self.asked += 1
            case "DATA":
                code = (354 if self.accepted else 554) if code < 300 else code
                self.in_data = code == 354
            case "RSET":
                self.mail, self.asked, self.accepted = False, 0, []
        return code


class Messages(LoopMachine):
    def __init__(self) -> None:
        super().__init__()
        self.running: asyncio.Task[TransactionReport] | None = None
        self.poisoned = False

    @initialize(extensions=st.sampled_from(WAYS))
    def opens(self, extensions: Sequence[str]) -> None:
        async def made() -> Session:
            return Session(self.line, Capabilities.parse(extensions), Opening(), asyncio.get_running_loop())

        self.line = Line()
        self.session = self.loop.run_until_complete(made())
        self.server = Server(self.line)

    @precondition(lambda self: self.running is None)
    @rule(recipients=st.integers(1, 3), is_open=st.booleans())
    def begins(self, recipients: int, is_open: bool) -> None:
        was_usable = self.session.usable or self.session.has_room
        self.server.taken = []
        to = [(at, Recipient(f"r{at}@example.net")) for at in range(recipients)]
        mail = Mail(Envelope("a@example.com", tuple(one for _, one in to)), to, len(CONTENT))
        self.gate = Gate(steady() + 600)
        if is_open:
            self.gate.open()
        deadline, terms = time.monotonic() + 600, Terms(600.0, 600.0, Progress())
        written = len(self.line.written)

        async def begun() -> asyncio.Task[TransactionReport]:
            return asyncio.create_task(
                self.session.transact(mail, lambda: [CONTENT], self.gate, deadline=deadline, terms=terms)
            )

        self.count = recipients
        self.running = self.loop.run_until_complete(begun())
        self.happens()
        if not was_usable:
            assert len(self.line.written) == written, "a poisoned session is never written to"

    @precondition(lambda self: self.running is not None and not self.gate.is_open)
    @rule()
    def gate_opens(self) -> None:
        self.happens(self.gate.open)

    @precondition(lambda self: not self.line.ended and self.server.next() != "")
    @rule(code=st.sampled_from([250, 250, 250, 251, *REFUSALS]), cut=st.integers(0, 30))
    def answers(self, code: int, cut: int) -> None:
        reply = self.server.answer(code)
        for segment in filter(None, (reply[:cut], reply[cut:])):
            self.happens(partial(self.session.data_received, segment))

    @precondition(lambda self: not self.line.ended and self.server.next() == "")
    @rule(said=st.sampled_from([b"250 2.0.0 once more\r\n", b"4", b"junk\r\n", b"421 closing\r\n"]))
    def sends_what_no_command_asked_for(self, said: bytes) -> None:
        self.poisoned = True
        self.happens(partial(self.session.data_received, said))

    @precondition(lambda self: not self.line.ended)
    @rule()
    def hangs_up(self) -> None:
        self.poisoned = True
        self.happens(self.line.close)

    @precondition(lambda self: self.running is not None and self.running.done())
    @rule()
    def reports(self) -> None:
        report = self.running.result()  # type: ignore[union-attr]
        self.running = None
        results = {result.position: result.outcome for result in report.results}
        assert set(results) == set(range(self.count))
        for position, outcome in results.items():
            if outcome == "sent":
                assert position in self.server.taken
            elif position in self.server.taken:
                assert outcome == "ambiguous", "it has the mail: nobody may send it again without knowing"
            if outcome == "ambiguous":
                assert CONTENT[-4:] in bytes(self.line.written)

    @invariant()
    def a_poisoned_session_is_not_used_again(self) -> None:
        if self.poisoned and self.running is None:
            assert not self.session.usable
            assert not self.session.has_room

    def teardown(self) -> None:
        if hasattr(self, "line"):
            self.happens(self.line.close)
            assert self.running is None or self.running.done()
        self.loop.close()


TestMessages: Any = Messages.TestCase
TestMessages.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
