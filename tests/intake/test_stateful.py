"""Any commands in any order, cut into any segments, against a model of RFC 5321's states, over a real connection."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.intake.harness import Service, service, whole
from tests.support.app import stuffed

SIZE_BYTES = 300
RECIPIENTS = 3
ERRORS = 15
"""less than the service bears"""
ENHANCED = re.compile(r"[2-5]\d\d [245]\.\d{1,3}\.\d{1,3} ")

LINES = st.one_of(
    st.sampled_from(
        [b"", b".", b"..", b"a\n.\nRSET", b"a\r.\rb", b"\n.", b"MAIL FROM:<evil@x.test>", b"QUIT", b"\xff\0"]
    ),
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\r\n", b"").rstrip(b"\r")),
)
CONTENTS = st.lists(st.one_of(LINES, LINES, st.just(b"z" * SIZE_BYTES)), max_size=5).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)
SMALL_TALK = [("NOOP x", "250"), ("noop", "250"), ("VRFY b", "252"), ("HELP", "214")]
NONSENSE = [
    ("XYZZY", "500 5.5.2"), ("NOOP\nRSET", "500 5.5.2"), ("RSET\rQUIT", "500 5.5.2"), ("MAIL", "501"), ("RCPT", "501"),
    ("MAIL FROM:<a b@x.test>", "501"), ("RCPT TO:<>", "553"), ("RSET x", "501"), ("DATA x", "501"), ("QUIT now", "501"),
    ("NOOP " + "x" * 1100, "500 5.5.6"), ("BDAT 2 LAST", "500"), ("STARTTLS", "502"), ("AUTH PLAIN AGEAYg==", "502"),
]  # fmt: skip


class Conversation(RuleBasedStateMachine):
    """Commands gather, and leave together when they are sent: a batch of one is no pipeline, one of many is."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.batch = b""
        self.expected: list[str] = []
        self.hello = False
        self.mail = False
        self.recipients: set[str] = set()
        self.refused = 0
        self.errors = 0
        self.stored: list[bytes] = []

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, 20))

    @initialize(greets=st.sampled_from([True, True, True, False]))
    def connect(self, greets: bool) -> None:
        limits = {"message_size_bytes": SIZE_BYTES, "recipients": RECIPIENTS}
        self.relay: Service = self.run(self.stack.enter_async_context(service(limits=limits)))
        self.client = self.run(self.stack.enter_async_context(self.relay.connect()))
        assert self.run(self.client.reply()).startswith("220 ")
        if greets:
            self.greets("EHLO")

    def says(self, command: str, reply: str) -> None:
        self.batch += command.encode() + b"\r\n"
        self.expected.append(reply)
        self.errors += reply[:3] in ("500", "501", "502", "503") or reply == "554 5.5.1"

    def forget(self) -> None:
        self.mail, self.recipients, self.refused = False, set(), 0

    @rule(verb=st.sampled_from(["EHLO", "HELO", "ehlo"]))
    def greets(self, verb: str) -> None:
        self.says(f"{verb} me.test", "250")
        self.hello = True
        self.forget()

    @precondition(lambda self: self.errors < ERRORS)
    @rule(
        sender=st.sampled_from(["a@x.test", "a@x.test", "", "ä@x.test"]),
        size=st.sampled_from([None, None, None, 10, SIZE_BYTES + 1]),
    )
    def sender(self, sender: str, size: int | None) -> None:
        command = f"MAIL FROM:<{sender}>" + (f" SIZE={size}" if size is not None else "")
        if not self.hello or self.mail:
            self.says(command, "503 5.5.1")
        elif not sender.isascii():
            self.says(command, "553 5.6.7")
        elif size is not None and size > SIZE_BYTES:
            self.says(command, "552 5.3.4")
        else:
            self.says(command, "250 2.1.0")
            self.mail = True

    @precondition(lambda self: self.errors < ERRORS and self.refused < 5)
    @rule(address=st.sampled_from(["b@x.test", "c@x.test", "b@X.TEST", "d@x.test", "e@x.test", "no address"]))
    def recipient(self, address: str) -> None:
        command = f"RCPT TO:<{address}>"
        if not self.mail:
            self.says(command, "503 5.5.1")
        elif "@" not in address:
            self.says(command, "501 5.1.3")
            self.refused += 1
        elif address.lower() not in self.recipients and len(self.recipients) == RECIPIENTS:
            self.says(command, "452 4.5.3")
        else:
            self.says(command, "250 2.1.5")
            self.recipients.add(address.lower())

    @precondition(lambda self: self.errors < ERRORS)
    @rule(content=CONTENTS)
    def data(self, content: bytes) -> None:
        if not self.mail or not self.recipients:
            self.says("DATA", "554 5.5.1" if self.mail and self.refused else "503 5.5.1")
            return
        self.says("DATA", "354")
        self.batch += stuffed(content) + b".\r\n"
        self.forget()
        if len(content) > SIZE_BYTES:
            self.expected.append("552 5.3.4")
        else:
            self.stored.append(content)
            self.expected.append(f"250 2.0.0 queued as id-{len(self.stored)}")
            self.errors = 0

    @precondition(lambda self: self.errors < ERRORS)
    @rule(command=st.sampled_from([*[("RSET", "250 2.0.0")] * 6, *SMALL_TALK, *NONSENSE]))
    def says_something_else(self, command: tuple[str, str]) -> None:
        line, reply = command
        if line == "RSET":
            self.forget()
        if line.startswith(("MAIL", "RCPT")):
            ready = self.mail if line.startswith("RCPT") else self.hello and not self.mail
            reply = reply if ready else "503"
            self.refused += ready and line.startswith("RCPT")
        self.says(line, reply)

    @rule(cuts=st.lists(st.integers(1, 40), max_size=12))
    def sends(self, cuts: list[int]) -> None:
        self.run(self.send(cuts))
        replies = self.run(self.hear(len(self.expected)))
        for reply, beginning in zip(replies, self.expected, strict=True):
            assert reply.startswith(beginning), (reply, beginning)
            assert reply[:3] == "354" or "\n" in reply or ENHANCED.match(reply) or reply == "250 relay.test", reply
        self.batch, self.expected = b"", []
        assert [whole(each.content) for each in self.relay.recorder.taken] == self.stored

    async def send(self, cuts: list[int]) -> None:
        rest = self.batch
        for size in cuts:
            await self.client.send(rest[:size])
            rest = rest[size:]
            await asyncio.sleep(0)
        await self.client.send(rest)

    async def hear(self, count: int) -> list[str]:
        return [await self.client.reply() for _ in range(count)]

    @invariant()
    def nothing_is_stored_that_wasnt_sent(self) -> None:
        if hasattr(self, "relay"):
            assert len(self.relay.recorder.taken) <= len(self.stored)

    def teardown(self) -> None:
        try:
            if hasattr(self, "client"):
                self.sends([])
                self.says("QUIT", "221 2.0.0")
                self.sends([])
                assert self.run(self.client.everything()) == b""
        finally:
            self.run(self.stack.aclose())
            self.loop.close()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
