"""Large contents on a session that carries several messages: the next one waits until the whole content has left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.upstream.attempt import Progress, Terms
from relay.upstream.gate import Gate
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from tests.upstream.sequence import BDAT, DATA, Wire
from tests.upstream.test_faults import outcomes

MODES = pytest.mark.parametrize("extensions", [DATA, BDAT], ids=["DATA", "BDAT"])
LARGE = b"c0\r\n" + b"x" * 900_000 + b"\r\n"
TO = (Recipient("u@r"),)


@dataclass
class Slow:
    """An upstream that reads no further than the test lets it."""

    wire: Wire
    session: Session
    reports: list[asyncio.Task[TransactionReport]] = field(default_factory=list)
    rooms: int = 0
    """how often the session said that there is room"""

    async def begin(self, content: bytes) -> None:
        gate = Gate(steady() + 60)
        gate.open()
        mail = Mail(Envelope("s@s", TO), list(enumerate(TO)), len(content))
        deadline, terms = time.monotonic() + 60, Terms(60.0, 60.0, Progress())
        transacting = self.session.transact(mail, lambda: [content], gate, deadline=deadline, terms=terms)
        self.reports.append(asyncio.create_task(transacting))
        await asyncio.sleep(0)

    def has_room(self, _: Session) -> None:
        self.rooms += 1

    def reads_on(self) -> None:
        self.wire.takes = 10**9
        self.session.resume_writing()


async def slow(extensions: Sequence[str]) -> Slow:
    """The first message is large, and a part of it has left."""
    wire = Wire()
    session = Session(wire, Capabilities.parse(extensions), Opening(), asyncio.get_running_loop())
    one = Slow(wire, session)
    session.on_room = one.has_room
    wire.takes = 400_000
    await one.begin(LARGE)
    if extensions == DATA:
        session.data_received(b"250 1\r\n250 2\r\n354 3\r\n")
    assert len(wire.written) < len(LARGE)
    return one


@MODES
async def test_there_is_room_once_the_whole_content_has_left(extensions: Sequence[str]) -> None:
    one = await slow(extensions)
    assert (one.session.has_room, one.rooms) == (False, 0)
    one.reads_on()
    assert (one.session.has_room, one.rooms) == (True, 1)
    await one.begin(b"c1\r\n")
    if extensions == DATA:
        one.session.data_received(b"250 4\r\n250 5\r\n250 6\r\n354 7\r\n")
        one.session.data_received(b"250 8\r\n")
    else:
        one.session.data_received(b"250 1\r\n250 2\r\n250 3\r\n250 4\r\n250 5\r\n250 6\r\n250 7\r\n")
    assert [outcomes(await each) for each in one.reports] == [["sent"], ["sent"]]
    assert bytes(one.wire.written).count(b"x" * 900_000) == 1
    assert one.session.usable


@MODES
@pytest.mark.parametrize("reply", [b"250 4\r\n", b"354 4\r\n", b"220 4\r\n"])
async def test_a_reply_to_a_content_that_has_not_left_makes_nothing_of_it(
    extensions: Sequence[str], reply: bytes
) -> None:
    """No server can have accepted it, so it isn't ambiguous either."""
    one = await slow(extensions)
    one.session.data_received(reply if extensions == DATA else b"250 1\r\n250 2\r\n" + reply)
    assert [outcomes(await each) for each in one.reports] == [["abandoned"]]
    assert not one.session.usable


@MODES
async def test_a_second_large_content_that_is_lost_midway_is_not_ambiguous(extensions: Sequence[str]) -> None:
    one = await slow(extensions)
    one.reads_on()
    one.wire.takes = len(one.wire.written) + 400_000
    await one.begin(LARGE)
    if extensions == DATA:
        one.session.data_received(b"250 4\r\n250 5\r\n250 6\r\n354 7\r\n")
    one.wire.close()
    first, second = [outcomes(await each) for each in one.reports]
    assert first == (["sent"] if extensions == DATA else ["ambiguous"])
    assert second == ["abandoned"]
