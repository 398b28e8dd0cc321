"""Several messages on one session, in any order of events: begun, gates opened and shut, attempts cancelled, replies of
any kind and in any pieces, the connection lost at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from relay.upstream.gate import EXPIRED, SUPERSEDED
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.session import Session
from tests.support.machine import LoopMachine
from tests.upstream.accounting import account, account_out_of_step
from tests.upstream.receiver import Change, Receiver
from tests.upstream.sequence import BDAT, DATA, Fate, Message, Network, Played, Wire

CODES = [0, 0, 0, 0, 0, 0, 450, 451, 452, 550, 552, 554]


class Sequences(LoopMachine):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.codes: list[int] = []
        self.in_step = True

    @initialize(extensions=st.sampled_from([DATA, BDAT, BDAT]), lax=st.booleans(), depth=st.integers(1, 8))
    def opens(self, extensions: Sequence[str], lax: bool, depth: int) -> None:
        async def made() -> Session:
            return Session(self.wire, Capabilities.parse(extensions), Opening(), asyncio.get_running_loop())

        self.depth = depth
        self.wire = Wire()
        self.session = self.loop.run_until_complete(made())
        self.receiver = Receiver(lambda _, __: Change(self.codes.pop(0)), takes_data_for_no_one=lax)
        self.played = Played(self.messages, self.receiver, Network(), self.wire, self.session)

    def may_begin(self) -> bool:
        under_way = sum(not each.is_over for each in self.messages)
        return under_way < self.depth and (self.session.usable or self.session.has_room)

    @precondition(lambda self: self.may_begin())
    @rule(recipients=st.integers(1, 3), fate=st.sampled_from(["open", "open", "late"]), together=st.booleans())
    def begins(self, recipients: int, fate: Fate, together: bool) -> None:
        message = Message(len(self.messages), recipients, fate, in_one_write=together)
        self.messages.append(message)
        self.happens(lambda: message.begin(self.session))

    def waiting(self) -> list[Message]:
        return [each for each in self.messages if not each.is_over and not each.has_opened]

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def a_gate_opens(self, data: st.DataObject) -> None:
        self.happens(data.draw(st.sampled_from(self.waiting())).open)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), reason=st.sampled_from([EXPIRED, SUPERSEDED]))
    def a_gate_shuts(self, data: st.DataObject, reason: Any) -> None:
        message = data.draw(st.sampled_from(self.waiting()))
        self.happens(lambda: message.gate.shut(reason))

    @precondition(lambda self: any(not each.is_over for each in self.messages))
    @rule(data=st.data())
    def an_attempt_is_cancelled(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([each for each in self.messages if not each.is_over])).task
        assert task is not None
        self.happens(task.cancel)

    @precondition(lambda self: not self.receiver.ended and not self.wire.ended)
    @rule(size=st.one_of(st.just(10**6), st.integers(1, 60)), codes=st.lists(st.sampled_from(CODES), max_size=40))
    def the_server_reads(self, size: int, codes: list[int]) -> None:
        read = self.played.network.was_read
        data = bytes(self.wire.written[read : read + size])
        self.played.network.was_read += len(data)
        self.codes = codes + [0] * 400
        self.receiver.read(data)

    @precondition(lambda self: not self.wire.ended and self.played.network.arrived < len(self.receiver.out))
    @rule(size=st.one_of(st.just(10**6), st.integers(1, 60)))
    def replies_arrive(self, size: int) -> None:
        network = self.played.network
        data = bytes(self.receiver.out[network.arrived : network.arrived + size])
        network.arrived += len(data)
        self.happens(partial(self.session.data_received, data))

    @precondition(lambda self: not self.wire.ended and self.played.network.arrived == len(self.receiver.out))
    @rule(said=st.sampled_from([b"250 surplus\r\n", b"4", b"junk\r\n", b"421 closing\r\n"]))
    def something_comes_that_was_not_asked_for(self, said: bytes) -> None:
        self.in_step = False
        self.happens(partial(self.session.data_received, said))

    @precondition(lambda self: not self.wire.ended)
    @rule()
    def the_server_hangs_up(self) -> None:
        self.happens(self.wire.close)

    @rule()
    def a_moment_passes(self) -> None:
        self.happens()

    @invariant()
    def nothing_is_written_behind_the_end(self) -> None:
        if hasattr(self, "wire"):
            assert not self.wire.late
            over = all(each.is_over for each in self.messages)
            assert not over or self.session.state in ("idle", "resetting", "closed") or self.wire.ended

    def teardown(self) -> None:
        if hasattr(self, "wire"):
            self.happens(self.wire.close)
            self.happens()
            assert all(each.is_over for each in self.messages)
            assert self.session.state == "closed"
            assert not self.session.pipeline
            (account if self.in_step else account_out_of_step)(self.played)
        self.loop.close()


TestSequences: Any = Sequences.TestCase
TestSequences.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
