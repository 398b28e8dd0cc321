"""The store's roles, as protocols, and its errors.

`Queue` is what intake and delivery call, `Log` what the web interface shows, `Transfer` what moves messages between
the files of one relay. Every store implements the first two (`Store`), and passes the test suite
`tests/store/contract.py`. A caller depends on the one role it needs. The values are in `store/model.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from relay.store.model import (
    BOOKED,
    Action,
    Booking,
    DeliveryRow,
    Ended,
    Expired,
    KnownRequest,
    LaneCount,
    LateEnd,
    NewMessage,
    Queued,
    Recovered,
    ReportedRow,
    Selection,
    Settlement,
    TransferredMessage,
)
from relay.store.search_text import Found
from relay.store.suppressions import Suppression, SuppressionQuery

if TYPE_CHECKING:
    import asyncio


class StoreError(Exception):
    """The store can't do it now: disk full, unwritable, locked, damaged. The text is one line for an operator."""


class StoreFull(StoreError):
    """No space is left. The SMTP reply is 452."""


class StoreDamaged(StoreError):
    """The file is not a store, or it is damaged. It was left untouched."""


class StoreSealed(StoreError):
    """Waiting mail is encrypted with a key that isn't configured."""


class Unreadable(StoreError):
    """One message is missing or damaged for good; the rest of the store is well. The text continues `held: `, and
    quotes nothing of the mail."""


class Queue(Protocol):
    """Mail that is to be sent. Every call that changes something is durable when it returns. Each raises StoreError."""

    async def put(
        self, message: NewMessage, *, claimed: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> None:
        """Write a message. `claimed`: its recipients begin as `sending`, booked as by `claim`, because their lane has
        them already; else as `queued`, due at `accepted_at`. `others`: messages that are written in the same
        transaction, not claimed. Raises StoreFull, StoreError: nothing was written."""

    async def put_large(
        self,
        message: NewMessage,
        pieces: Iterator[bytes],
        *,
        most_bytes: int,
        others: Sequence[tuple[NewMessage, Iterator[bytes]]] = (),
    ) -> None:
        """`put`, not claimed, a message whose content comes in pieces, `most_bytes` in all at most; the message has
        none of it. The pieces may block, and are asked for on a thread. `others`: as of `put`, each with the pieces of
        its own content. Raises what the pieces raise, too."""

    def start_put(
        self, message: NewMessage, *, express: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> asyncio.Future[None]:
        """`put`, claimed, and under way before this returns. `express`: ahead of all others. If the future is
        cancelled, the message is either not written or left `queued`."""

    async def claim(
        self, lane: str, now: float, *, messages: int, size_bytes: int, booking: Booking = BOOKED
    ) -> Sequence[Queued]:
        """Claim up to `messages` due ones in order of `next_at`: at least one, then until their contents exceed
        `size_bytes`. Mark them `sending`, count the attempt, and book the next one. A message that can't be read is
        `held` with a note, and left out. Suspects are claimed one at a time, when nothing else is due."""

    async def end_expired(self, lane: str, now: float, reply: str) -> Sequence[Expired]:
        """End due recipients of messages whose life is over, as `expired` with this reply, if no DSN is due about them:
        the sender is null, or NOTIFY is without FAILURE. The others are left to `claim`, because a DSN quotes the
        content. Those due first are looked at, in steps, until a step ends none."""

    async def next_due(self, lane: str) -> float | None:
        """When the lane's next `queued` or `deferred` recipient is due; None: there is none."""

    async def mark_final(self, message_id: str, positions: Sequence[int]) -> None:
        """Record that the final dot is about to leave. After a crash these recipients are `ambiguous`, not `queued`."""

    async def settle(self, settlement: Settlement) -> None:
        """Write the outcome of an attempt for some recipients. The content is deleted once no recipient is open. An
        update of a recipient that is no longer open only adds its attempt."""

    async def unclaim(self, message_id: str, due_at: float | None = None) -> None:
        """Give back what wasn't sent: its `sending` recipients are `queued` again, due then (default: at once). The
        attempt that the claim counted no longer counts."""

    async def recover(self, now: float, marking: Collection[str] = ()) -> Sequence[Recovered]:
        """At start: `sending` becomes `queued`, due when its claim booked it; `held` after MOST_DEATHS crashes with it
        in hand; `ambiguous` where the final dot was marked. Each such message gets a note, which says that an upstream
        may have it unless its lane is one of `marking` (those that call `mark_final`). Times that an earlier start's
        wrong clock put into the future become now. Returns what was `sending`."""

    async def supersede(self, key: str, before_id: str, now: float) -> Sequence[str]:
        """End the `queued` and `deferred` recipients of older messages with this key. Returns the messages' ids."""

    async def retry_deferred(self, lane: str, now: float, *, only_urged: bool = False) -> int:
        """Make the lane's `deferred` recipients due now, at their step of the ladder, because an upstream is back.
        `only_urged`: only those that an operator asked to be tried. Returns how many recipients those were."""

    async def adopt(self, lanes: Sequence[str], default: str) -> int:
        """Move open recipients of lanes that no longer exist to `default`. Returns how many those were."""

    async def act(self, action: Action, selection: Selection, now: float) -> Sequence[str]:
        """Apply an operator's action to open messages. `retry` makes queued and deferred ones due now and restarts
        their ladder; ambiguous ones too where the selection names them (`ids`, `state`, `ambiguous`). `hold` suspends
        queued and deferred ones. `release` makes held ones due now. `drop` ends queued, deferred, held and ambiguous
        ones (state `bounced`, reply `dropped by the operator`, no DSN). `sending` ones are never changed. With `to` or
        `state`, only matching recipients are. Returns the ids of the messages that changed, of a part its entry's."""

    def size(self) -> tuple[int, int]:
        """Open messages, and the bytes of their contents, from memory: asked before every message."""

    async def prune(self, before: float, *, limit: int) -> int:
        """Delete up to `limit` finished messages accepted before then. Returns how many."""


class Outcomes(Protocol):
    """What becomes of recipients that an upstream has accepted. It raises StoreError."""

    async def end_sent(self, end: LateEnd) -> Ended:
        """Turn a recipient that is `sent` by this upstream into `bounced`. `done` also where it ended otherwise."""


class Log(Protocol):
    """What the store shows. It changes nothing. A split message is shown as one, where any of its parts is selected.
    Each call raises StoreError."""

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        """One message as docs/reference.md has it (JSON-ready), with `next_at` where a recipient waits. The id of any
        part finds a split one."""

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        """Messages newest first, each as `get` returns it but without attempts. `text` and `states` are for `find`."""

    async def find(self, selection: Selection, within_s: float) -> Found:
        """`search`, also by `text` and `states`, for about so long."""

    async def ids_that_begin(self, begin: str, limit: int) -> Sequence[str]:
        """The ids of messages that begin so, newest first, of a part of a split one too; `limit` at most."""

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        """Open messages, earliest due first, as `search` returns them, with each recipient's `next_at` and number of
        `attempts`."""

    async def with_parts(self, ids: Sequence[str]) -> Sequence[str]:
        """These ids, and those of all parts of the split messages among them."""

    async def counts(self) -> Sequence[LaneCount]:
        """Open recipients by lane and state."""

    async def deliveries(self, since: float, objectives: Mapping[str, float] | None = None) -> Sequence[DeliveryRow]:
        """Finished recipients of messages accepted since then, counted by outcome: the rows of `report`. `objectives`:
        by lane, the seconds within which its mail is to arrive."""

    async def reported(self, since: float) -> Sequence[ReportedRow]:
        """What ESPs reported of messages accepted since then, counted."""


class Transfer(Protocol):
    """What moves messages from one store of a relay to another: written there, durably, before it is deleted here."""

    async def messages_for_other_lanes(self, lanes: Sequence[str], *, limit: int, after: str = "") -> Sequence[str]:
        """Ids of open messages whose lane is none of `lanes`, in order, those behind the id `after`. A message of
        which something is `sending` is left out."""

    async def sends_for_other_lanes(self, lanes: Sequence[str]) -> bool:
        """Is some recipient `sending` whose lane is none of `lanes`?"""

    async def export_message(self, message_id: str) -> TransferredMessage | None:
        """A message as `import_message` takes it; None: it isn't here, or it has finished. Raises Unreadable."""

    async def import_message(self, moved: TransferredMessage) -> None:
        """Write a message that another store exported. A second call with the same message changes nothing."""

    async def hold_unreadable(self, message_id: str, why: str) -> bool:
        """Hold what waits of a message that can't be read, with the note `held: WHY`. False: nothing of it waited."""

    async def delete_transferred(self, message_id: str) -> None:
        """Delete a message that another store has imported, unless something of it is `sending` here."""


class Suppressions(Protocol):
    """Addresses that must not be mailed. Every call that changes something is durable when it returns. Each raises
    StoreError. Addresses are given as `policy.suppression.hash_of` has them."""

    async def hash_key(self) -> bytes:
        """What addresses are hashed with."""

    async def add(self, rows: Sequence[Suppression]) -> Sequence[Suppression]:
        """Add them, some hundred in a transaction. Returns those that are new or changed, as they are now: of a known
        event the newest time and the longest life stay; what an operator adds replaces what one added before."""

    async def remove(self, hashes: Sequence[int]) -> Sequence[int]:
        """Remove these addresses, whatever the cause. Returns the keys of their entries."""

    async def listing(self, query: SuppressionQuery) -> Sequence[Suppression]:
        """Newest first."""

    async def erase(self, hashed: int, address: str) -> int:
        """Forget an address, also where a reason quotes it; it goes on being suppressed. Returns how many entries
        changed."""

    async def blank_readable(self) -> None:
        """Forget the addresses of all entries but those that were added by hand."""

    async def prune(self, now: float) -> Sequence[int]:
        """Delete some of the entries that no longer count. Returns their keys."""


class Limits(Protocol):
    """What limits count. `Queue.put` writes it with each message. It raises StoreError."""

    async def prune(self, before: float, requests_before: float, *, most: int) -> None:
        """Delete some of the admissions that count before then, and of those beyond the newest `most` entries; and some
        idempotency keys of messages that were accepted before `requests_before`."""


class KnownRequests(Protocol):
    """The requests of all store files that gave an idempotency key."""

    async def find(self, key: bytes, since: float) -> KnownRequest | None:
        """The message accepted since then with that key (`IdempotencyKey.key`). Raises StoreError."""


class Store(Queue, Log, Protocol):
    """What every store implements. Only one whose relay has several files implements `Transfer` besides."""

    async def close(self) -> None:
        """Write what was begun, then let go of the files. Later calls raise StoreError."""
