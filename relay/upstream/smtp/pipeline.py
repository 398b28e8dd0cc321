"""The transactions of one session, in the order of their replies.

Where the upstream announced PIPELINING, the next transaction begins once the content of the one before has left: its
MAIL, RCPT and DATA stand behind that content (RFC 2920), or its whole message does (RFC 3030). Each reply belongs to
the first transaction that isn't over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from relay.mail.reply import Reply
from relay.upstream.smtp.flight import Flight
from relay.upstream.smtp.transaction import EnvelopeMode
from relay.upstream.smtp.wire import Wire


class _Reset:
    """A RSET that isn't answered yet."""

    outstanding = 1
    has_left = True

    def __init__(self, on_reply: Callable[[Reply], None]) -> None:
        self.receive = on_reply


class _Owed:
    """The replies that a transaction was still due when 421 ended it: an upstream that goes on sends them."""

    has_left = True

    def __init__(self, outstanding: int, on_last: Callable[[], None]) -> None:
        self.outstanding = outstanding
        self._on_last = on_last

    def receive(self, _: Reply) -> None:
        self.outstanding -= 1
        if not self.outstanding:
            self._on_last()


class PipelineOwner(Protocol):
    """The session."""

    def on_pipeline_room(self) -> None:
        """Another transaction may begin behind those under way."""

    def on_empty(self, *, needs_reset: bool) -> None:
        """Nothing is under way any more. `needs_reset`: the upstream may still hold an envelope."""

    def on_broken(self) -> None:
        """The session can't be used again: close it. `connection_lost` ends what is under way."""


class Pipeline:
    """`begin` transactions, give it each reply by `receive`. It is the `Line` of its flights."""

    def __init__(self, wire: Wire, mode: EnvelopeMode, owner: PipelineOwner) -> None:
        self.wire = wire
        self._mode = mode
        self._owner = owner
        self._under_way: deque[Flight | _Reset | _Owed] = deque()
        self.reads_ahead: Callable[[], bool] = lambda: True
        """whether the upstream has shown that it reads what stands behind a content"""
        self._is_ending = False
        """the session closes once what is under way is over"""
        self._is_out_of_step = False
        """what came shows that messages behind each other upset the upstream"""
        self._hears_out = False
        """the upstream said 421: it may still answer contents that have left"""

    def __bool__(self) -> bool:
        """Something is under way."""
        return bool(self._under_way)

    @property
    def depth(self) -> int:
        """Transactions under way."""
        return sum(isinstance(each, Flight) for each in self._under_way)

    @property
    def outstanding(self) -> int:
        """Replies that are due."""
        return sum(each.outstanding for each in self._under_way)

    @property
    def has_room(self) -> bool:
        """Another transaction may begin behind those under way."""
        ready = self._mode.pipelined and not self._is_ending and bool(self._under_way)
        return ready and self._under_way[-1].has_left and not self.wire.is_closing

    def begin(self, flight: Flight, deadline: float) -> None:
        """The next transaction; there is room for it, or nothing is under way. `deadline`: see `Session.transact`."""
        behind = bool(self._under_way)
        if behind and isinstance(last := self._under_way[-1], Flight):
            last.is_followed = True
        # Contents that an upstream throws away would be taken for accepted once later replies come.
        flight.transaction.envelope_first = behind and not self.reads_ahead()
        self._under_way.append(flight)
        flight.begin(deadline, behind=behind)

    def before(self, flight: Flight) -> bytes:
        at = self._under_way.index(flight)
        if not (flight.is_behind and self._mode.chunked) or (at and isinstance(self._under_way[at - 1], _Reset)):
            return b""
        # RFC 3030 4.2: after a failed BDAT the server keeps the envelope until RSET.
        return self.reset(at)

    def reset(self, at: int = 0) -> bytes:
        """What to write so that the upstream forgets an envelope that it may hold. `at`: its place in what is under
        way."""
        self._under_way.insert(at, _Reset(self._reset_answered))
        return b"RSET\r\n"

    def receive(self, reply: Reply) -> None:
        """The next reply; something is under way."""
        self._under_way[0].receive(reply)

    def desynchronised(self) -> None:
        """What came is no reply."""
        if self._under_way and isinstance(first := self._under_way[0], Flight):
            first.desynchronised()

    def connection_lost(self, *, by_upstream: bool) -> None:
        """Each transaction under way ends: its outcome is unknown only where its content had left. `by_upstream`: it
        closed the connection."""
        self._is_ending = True
        under_way, self._under_way = list(self._under_way), deque()
        for each in under_way:
            if isinstance(each, Flight):
                each.connection_lost(by_upstream=by_upstream or self._is_out_of_step)

    def content_has_left(self) -> None:
        if self.has_room:
            self._owner.on_pipeline_room()

    def flight_over(self, flight: Flight) -> None:
        if flight not in self._under_way:
            return  # it wasn't begun, or the connection is lost
        transaction = flight.transaction
        self._is_out_of_step |= transaction.is_desynchronised
        if not transaction.has_begun:
            self._withdrawn(flight)
            return
        if self._under_way[0] is not flight:
            self._is_ending = True  # its envelope is under way, and can't be taken back
            if not self._is_awaited():
                self._owner.on_broken()
            return
        self._under_way.popleft()
        if not self._under_way:
            if transaction.broken or flight.is_unsent or self._is_ending:
                self._owner.on_broken()
            else:
                self._owner.on_empty(needs_reset=transaction.needs_reset)
        elif transaction.reply_421 is not None:
            if transaction.outstanding:
                self._under_way.appendleft(_Owed(transaction.outstanding, self._owed_answered))
            self._hear_out(transaction.reply_421)
        elif transaction.broken and not self._hears_out:
            self._owner.on_broken()
        else:
            self._next_comes_first()

    def _withdrawn(self, flight: Flight) -> None:
        """Nothing of the flight was written."""
        self._under_way.remove(flight)
        if (flight.transaction.broken or self._is_ending) and not self._is_awaited():
            self._owner.on_broken()
        elif not self._under_way:
            # The one before may have left an envelope behind.
            self._owner.on_empty(needs_reset=flight.is_behind and self._mode.chunked)
        else:
            self.content_has_left()

    def _hear_out(self, reply: Reply) -> None:
        self._is_ending = self._hears_out = True
        for each in list(self._under_way):
            if isinstance(each, Flight):
                each.upstream_closes(reply)
        self._next_comes_first()

    def _next_comes_first(self) -> None:
        if not self._is_awaited():
            # What was given up is owed replies, which answer nothing else.
            self._owner.on_broken()
        elif isinstance(first := self._under_way[0], Flight):
            if first.transaction.done:
                self._owner.on_broken()
            else:
                first.comes_first()

    def _is_awaited(self) -> bool:
        """Some transaction under way isn't over."""
        return any(isinstance(each, Flight) and not each.transaction.done for each in self._under_way)

    def _owed_answered(self) -> None:
        self._under_way.popleft()
        self._next_comes_first()

    def _reset_answered(self, reply: Reply) -> None:
        self._under_way.popleft()
        if reply.code == 421 and self._under_way:
            self._hear_out(reply)
        elif not reply.positive:
            # The next envelope would be added to the one before.
            self._is_out_of_step = True
            self._owner.on_broken()
        elif self._under_way:
            self._next_comes_first()
        else:
            self._owner.on_empty(needs_reset=False)
