"""A real SMTP server for tests that does what a script says: see `script` for the actions and the table.

async with Upstream(script={"rcpt": {"bad@*": "550 5.1.1 no such user"}, "dot": [Close(), None]}) as upstream:
    ...
    await upstream.wait_for(1)
    assert upstream.messages[0].content == b"..."
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from tests.support.dialogue import Dialogue, Received, Session, encode
from tests.support.listening import Listening
from tests.support.script import (
    BySession,
    Close,
    Delay,
    Drip,
    Endless,
    Garbage,
    Hang,
    Moment,
    Playbook,
    ReplyThenClose,
    ReplyThenReset,
    Reset,
    Script,
    Split,
    Stall,
    Step,
    Wait,
)
from tests.support.tls import Certificate
from tests.support.wire import Lost, Wire

__all__ = [
    "BySession", "Close", "Delay", "Drip", "Endless", "Garbage", "Hang", "Moment", "Received",
    "ReplyThenClose", "ReplyThenReset", "Reset", "Session", "Split", "Stall", "Upstream", "Wait",
]  # fmt: skip

DEFAULT_EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 35882577", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Upstream(Listening[Wire]):
    """An async context manager that listens on loopback; what it saw is in `sessions` and `transfers`."""

    def __init__(
        self,
        extensions: Sequence[str] = DEFAULT_EXTENSIONS,
        *,
        tls: Literal["starttls", "implicit"] | None = None,
        certificate: Certificate | ssl.SSLContext | None = None,
        auth: Mapping[str, str] | None = None,
        script: Script | None = None,
        latency_s: float = 0.0,
        idle_s: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`latency_s`: every reply leaves this long after its command came, as over a line with that
        round trip.
        `idle_s`: with no command for so long the `idle` step comes (421 and closing, unless scripted).
        `certificate`: needed where `tls` is; see the `certificates` fixture."""
        super().__init__()
        if tls is not None and certificate is None:
            raise ValueError("an upstream with TLS needs a certificate")
        self.extensions = tuple(extensions)
        self.tls = tls
        self.auth = auth
        self.latency_s = latency_s
        self.idle_s = idle_s
        self.host = host
        self.port = port
        self.transfers: list[Received] = []
        """all content whose end arrived, accepted or not"""
        self.sessions: list[Session] = []
        self.peak = 0
        """most sessions open at once"""
        self.context = certificate.server_context() if isinstance(certificate, Certificate) else certificate
        self.playbook = Playbook(script or {})
        self.seen: Counter[Step] = Counter()

    @property
    def messages(self) -> list[Received]:
        """What was accepted."""
        return [received for received in self.transfers if received.accepted]

    @property
    def open(self) -> int:
        return sum(session.closed_at is None for session in self.sessions)

    @property
    def closed(self) -> int:
        return len(self.sessions) - self.open

    def set_script(self, script: Script) -> None:
        """A new script from the next step on, its counts at zero."""
        self.playbook = Playbook(script)
        self.seen.clear()

    async def resume(self) -> None:
        """Listen (again) on the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Wire(self._serve, self._tasks, held=self.tls == "implicit"), self.host, self.port
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    def reset_sessions(self) -> None:
        """RST on every open session."""
        self._reset_all()

    def swallow_sessions(self) -> None:
        """The network loses what comes on the sessions that are open now, without an RST. Linux only."""
        self._swallow_all()

    def close_sessions(self, reply: str | None = "421 4.4.2 idle too long, closing") -> None:
        """What a server does to idle sessions: a last word (or none), then FIN."""
        for wire in list(self._wires):
            if reply is not None:
                wire.write_now(encode(reply))
            wire.close()

    async def wait_for(self, n: int, within_s: float = 10.0) -> list[Received]:
        """The accepted messages, once there are `n`."""
        await self.wait_until(lambda: len(self.messages) >= n, within_s)
        return self.messages

    def _seen(self) -> str:
        said = {session.index: session.verbs for session in self.sessions}
        return f"{len(self.messages)} accepted of {len(self.transfers)}, {said}"

    async def _serve(self, wire: Wire) -> None:
        session = Session(index=len(self.sessions), opened_at=time.time())
        self.sessions.append(session)
        self._wires.add(wire)
        self.peak = max(self.peak, self.open)
        self.changed()
        try:
            await Dialogue(self, wire, session).run()
        except Lost:
            pass  # the script or the client ended it: what was seen is noted
        finally:
            session.closed_at = time.time()
            self._wires.discard(wire)
            wire.close()
            self.changed()
