"""The store in one SQLite file.

One connection writes, in groups (`group`); one reads lists and one reads contents, so that a long listing delays
neither a commit nor a claim. What they run stands in `sqlite_write`, `sqlite_operate` and `sqlite_read`, all about the
file in `sqlite_file`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from relay.store.addresses import Hashed
from relay.store.base import StoreDamaged, StoreError, Unreadable
from relay.store.codec import Codec, Plain
from relay.store.model import (
    BOOKED,
    Action,
    Booking,
    DeliveryRow,
    LaneCount,
    NewMessage,
    Queued,
    Recovered,
    Selection,
    Settlement,
    TransferredMessage,
)
from relay.store.sqlite import files, integrity, maintenance, operate, pseudonymise, schema, transfer
from relay.store.sqlite import write as sqlite_write
from relay.store.sqlite.group import Connection, GroupWriter, Operation, Tx
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.rows import PART_BYTES, BodyRange, Claimed, is_unreadable
from relay.supervise import Supervisor

T = TypeVar("T")

_ACT_MESSAGES = 50
_PRUNE_MESSAGES = 25
_HIDE_MESSAGES = 25
_STEP_RECIPIENTS = 200
"""In one transaction: these change by the thousand what must not hold up an express message."""
_HEAVY_BYTES = 200_000
"""What such an operation counts for in its group."""
_RECIPIENT_BYTES = 1_000
"""Likewise a recipient: writing one takes as long as this much content."""
_HIDE_EVERY_S = 0.02

_LOG = logging.getLogger(__name__)


async def open_store(path: Path, *, now: Callable[[], float], codec: Codec | None = None) -> SqliteStore:
    """Open the store at `path` for this process alone, making it (and its folder) if there is none.

    `now`: the relay's clock, for the time line's notes. `codec`: must be able to read all that waits; without one,
    contents are in clear, and it isn't asked whether others wait (for commands, which need no content). Raises
    StoreError: in use by another relay, unwritable, made by a newer version; StoreSealed: encrypted with another key;
    StoreDamaged: not a store, or broken. Then the file was left as it was.
    """
    path = files.absolute(path)
    lock = files.lock(path)
    async with AsyncExitStack() as undo:
        undo.callback(os.close, lock)
        try:
            schema.prepare(path)
            integrity.inspect(path)
            if codec is not None:
                maintenance.check_keys(path, codec)
            writing = await Connection.open("store writer", partial(schema.connect_writer, path))
            undo.push_async_callback(writing.close)
            next_body = await writing.run(partial(_begin, key_id=codec.key_id if codec is not None else None))
            lists = await Reader.open(path, "store lists")
            undo.push_async_callback(lists.close)
            contents = await Reader.open(path, "store contents")
            undo.push_async_callback(contents.close)
            size = await lists.size()
        except (sqlite3.Error, OSError) as error:
            raise files.explain(path, error) from error
        undo.pop_all()
    store = SqliteStore(path, lock, (writing, lists, contents), now, codec or Plain())
    store.begin(next_body, size)
    return store


async def open_reader(path: Path) -> Reader:
    """Read a store, beside a running relay or without one. Raises StoreError, StoreDamaged."""
    path = files.absolute(path)
    try:
        files.check(path)
    except (sqlite3.Error, OSError) as error:
        raise files.explain(path, error) from error
    return await Reader.open(path, "store reader")


class _Leaving(NamedTuple):
    """What another file is to take in, but for its content."""

    message: Mapping[str, Any]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    body: BodyRange
    size_bytes: int


def _leaving(connection: sqlite3.Connection, message_id: str) -> _Leaving | None:
    """None: nothing of it is to be sent. Raises Unreadable."""
    try:
        found = transfer.rows_of(connection, message_id)
        if found is None:
            return None
        message, rows = found
        body = BodyRange(int(message["body"]), int(message["parts"]), message["body_key"])
        return _Leaving(message, rows, body, int(message["size"]))
    except Exception as error:
        if not is_unreadable(error):
            raise
        raise Unreadable("its rows can't be read") from None


def _begin(connection: sqlite3.Connection, key_id: str | None) -> int:
    """Note the key that is used from now on. Returns the first id that `body` has free."""
    if key_id is not None:
        maintenance.note_key(connection, key_id)
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(id) FROM body), 0),"
        " coalesce((SELECT max(first + parts - 1) FROM loose_body), 0))"
    ).fetchone()
    return int(last) + 1


def _ended(task: str, error: BaseException | None) -> None:
    _LOG.error("event=task_restarted task=%s error=%s", task, type(error).__name__)


class SqliteStore:
    """`base.Store` in one file. A call that was cancelled: a `put` is either not written or left `queued`, a `claim`
    is given back, all else is written."""

    def __init__(
        self,
        path: Path,
        lock: int,
        connections: tuple[Connection, Reader, Reader],
        now: Callable[[], float],
        codec: Codec,
    ) -> None:
        self._path = path
        self._lock = lock
        writing, self._lists, self._contents = connections
        self._now = now
        self._codec = codec
        self._writer = GroupWriter(writing, explain=partial(files.explain, path), committed=self._committed)
        self._closed: asyncio.Task[None] | None = None
        self._next_body = 1
        self._messages = self._size_bytes = 0
        self._arriving: set[int] = set()
        """bodies that are being written before their message is"""
        self._hashed: Hashed | None = None
        self._hiding: asyncio.Task[None] | None = None
        self.supervisor = Supervisor(_ended)
        """of its background tasks; its owner may have another"""
        self._put_all = partial(sqlite_write.put_all, codec=codec)

    def begin(self, next_body: int, size: tuple[int, int]) -> None:
        self._next_body = next_body
        self._messages, self._size_bytes = size
        self._writer.follow_up(self._wipe)

    async def close(self) -> None:
        if self._closed is None:
            self._closed = asyncio.create_task(self._close(), name="store close")
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        if self._hiding is not None:
            self._hiding.cancel()
            await asyncio.gather(self._hiding, return_exceptions=True)
        try:
            await self._lists.close()
            await self._contents.close()
            await self._writer.close()  # the last one out: SQLite then moves its log into the file and removes it
        finally:
            os.close(self._lock)

    # What writes

    async def put(self, message: NewMessage, *, claimed: bool, booking: Booking = BOOKED) -> None:
        booked = booking if claimed else None
        body = self._place(message.content)
        if body.parts == 1:
            await self._put(message, body, booked)
            return
        self._arriving.add(body.first)
        try:
            for part in range(body.parts - 1):
                write = partial(sqlite_write.put_part, message=message, body=body, part=part, codec=self._codec)
                await self._write(write, size_bytes=PART_BYTES)
            await self._put(message, body, booked, written=body.parts - 1)
        except BaseException:
            self._writer.follow_up(self._wipe)
            raise
        finally:
            self._arriving.discard(body.first)

    def start_put(self, message: NewMessage, *, express: bool, booking: Booking = BOOKED) -> asyncio.Future[None]:
        if len(message.content) > PART_BYTES:
            return asyncio.ensure_future(self.put(message, claimed=True, booking=booking))
        return self._submit_put(message, self._place(message.content), booking, express=express).future

    async def _put(self, message: NewMessage, body: BodyRange, booking: Booking | None, *, written: int = 0) -> None:
        await self._submit_put(message, body, booking, express=booking is not None, written=written).result()

    def _submit_put(
        self, message: NewMessage, body: BodyRange, booking: Booking | None, *, express: bool, written: int = 0
    ) -> Operation[None]:
        def give_back(_: None) -> None:
            if booking is not None:
                self._writer.follow_up(partial(sqlite_write.unclaim, message_id=message.id))

        write = partial(
            sqlite_write.put, message=message, body=body, codec=self._codec, booking=booking, written=written
        )
        size_bytes = min(len(message.content), PART_BYTES) + _RECIPIENT_BYTES * len(message.providers)
        is_one = sqlite_write.is_one(message, body)
        together = (self._put_all, (message, body, booking)) if is_one else None
        operation = Operation(write, size_bytes=size_bytes, abandoned=give_back, together=together, is_one=is_one)
        return self._writer.submit(operation, express=express)

    async def claim(
        self, lane: str, now: float, *, messages: int, size_bytes: int, booking: Booking = BOOKED
    ) -> Sequence[Queued]:
        def give_back(claimed: Sequence[Claimed]) -> None:
            for each in claimed:
                self._writer.follow_up(partial(sqlite_write.unclaim, message_id=each.id))

        write = partial(
            sqlite_write.claim, lane=lane, now=now, messages=messages, size_bytes=size_bytes, booking=booking
        )
        claimed = await self._write(write, size_bytes=_HEAVY_BYTES, abandoned=give_back)
        loaded: list[Queued] = []
        failed: list[tuple[str, StoreError]] = []
        try:
            for each in claimed:
                try:
                    loaded.append(await self._load(each))
                except (Unreadable, StoreDamaged) as error:
                    _LOG.error("event=unreadable id=%s reason=%s", each.id, json.dumps(str(error)))
                    await self.hold_unreadable(each.id, str(error), in_hand=True)
                except StoreError as error:
                    failed.append((each.id, error))
            if failed and not loaded:
                raise failed[0][1]
        except BaseException:
            give_back(claimed)
            raise
        for message_id, trouble in failed:
            # A disk that fails in one place: this message waits for its next step, its neighbours go on.
            _LOG.error("event=unreadable id=%s reason=%s", message_id, json.dumps(str(trouble)))
            self._writer.follow_up(partial(sqlite_write.put_off, message_id=message_id))
        return loaded

    async def hold_unreadable(self, message_id: str, why: str, *, in_hand: bool = False) -> bool:
        """Hold a message that can't be read, with `why` as its note. `in_hand`: also what is `sending`. False: nothing
        of it waited."""
        write = partial(sqlite_write.put_aside, message_id=message_id, now=self._now(), why=why, in_hand=in_hand)
        return await self._write(write)

    async def _load(self, claimed: Claimed) -> Queued:
        return Queued(
            id=claimed.id,
            lane=claimed.lane,
            rule=claimed.rule,
            envelope=claimed.envelope,
            content=await self._contents.content(claimed.id, claimed.body, claimed.size_bytes, self._codec),
            accepted_at=claimed.accepted_at,
            expires_at=claimed.expires_at,
            due=claimed.due,
            upstreams=claimed.upstreams,
            supersede_key=claimed.supersede_key,
            suspect=claimed.suspect,
        )

    async def mark_final(self, message_id: str, positions: Sequence[int]) -> None:
        # Express: a session stands before its final dot meanwhile.
        await self._write(partial(sqlite_write.mark_final, message_id=message_id, positions=positions), express=True)

    async def settle(self, settlement: Settlement) -> None:
        bodies = [self._place(bounce.content) for bounce in settlement.bounces]
        now = self._now()
        write = partial(
            sqlite_write.settle,
            settlement=settlement,
            bodies=bodies,
            codec=self._codec,
            hashed=self._hashed,
            now=now,
        )
        size_bytes = _RECIPIENT_BYTES * len(settlement.updates) + sum(len(b.content) for b in settlement.bounces)
        is_departure = sqlite_write.is_departure(settlement, self._hashed)
        together = (sqlite_write.settle_all, settlement) if is_departure else None
        await self._writer.submit(Operation(write, size_bytes=size_bytes, together=together)).result()

    async def unclaim(self, message_id: str, due_at: float | None = None) -> None:
        await self._write(partial(sqlite_write.unclaim, message_id=message_id, due_at=due_at))

    async def recover(self, now: float, marking: Collection[str] = ()) -> Sequence[Recovered]:
        return await self._write(partial(operate.recover, now=now, marking=marking))

    async def supersede(self, key: str, before_id: str, now: float) -> Sequence[str]:
        supersede = partial(operate.supersede, key=key, before_id=before_id, now=now, hashed=self._hashed)
        return await self._write(supersede)

    async def retry_deferred(self, lane: str, now: float, *, only_urged: bool = False) -> int:
        hasten = partial(operate.retry_deferred, lane=lane, now=now, only_urged=only_urged)
        return await self._in_steps(hasten, _STEP_RECIPIENTS)

    async def adopt(self, lanes: Sequence[str], default: str) -> int:
        return await self._in_steps(partial(operate.adopt, lanes=lanes, default=default), _STEP_RECIPIENTS)

    async def act(self, action: Action, selection: Selection, now: float) -> Sequence[str]:
        ids = await self._lists.waiting_ids(selection)
        changed: list[str] = []
        for start in range(0, len(ids), _ACT_MESSAGES):
            some = ids[start : start + _ACT_MESSAGES]
            write = partial(operate.act, action=action, ids=some, selection=selection, now=now, hashed=self._hashed)
            changed += await self._write(write, size_bytes=_HEAVY_BYTES)
        return changed

    async def prune(self, before: float, *, limit: int) -> int:
        return await self._in_steps(partial(operate.prune, before=before), _PRUNE_MESSAGES, limit)

    async def _in_steps(self, apply: Callable[..., int], step: int, limit: int | None = None) -> int:
        """Apply it (to up to `limit` rows, in transactions of `step`) until it finds no more; how many it found."""
        done = 0
        while limit is None or done < limit:
            some = step if limit is None else min(step, limit - done)
            found = await self._write(partial(apply, limit=some), size_bytes=_HEAVY_BYTES)
            if not found:
                break
            done += found
        return done

    async def hash_addresses(self, *, wanted: bool) -> None:
        """From now on, are the addresses of messages that finish kept as hashes (`addresses`)? If so, those of
        messages that finished before are hashed too, bit by bit. Nothing leads back."""
        if self._hiding is not None:
            self._hiding.cancel()
            await asyncio.gather(self._hiding, return_exceptions=True)
            self._hiding = None
        self._hashed, older = await self._write(partial(pseudonymise.begin, wanted=wanted))
        if self._hashed is not None and older:
            self._hiding = self.supervisor.finish("hide_addresses", partial(self._hide_older, self._hashed))

    async def _hide_older(self, hashed: Hashed) -> None:
        after: str | None = ""
        try:
            while after is not None:
                hide = partial(pseudonymise.hide_older, hashed=hashed, after=after, limit=_HIDE_MESSAGES)
                after = await self._write(hide, size_bytes=_HEAVY_BYTES)
                await asyncio.sleep(_HIDE_EVERY_S)
        except StoreError as error:
            _LOG.warning("the store could not hash the addresses of older messages, the next start does: %s", error)

    # Between files of one relay

    async def messages_for_other_lanes(self, lanes: Sequence[str], *, limit: int, after: str = "") -> Sequence[str]:
        """Ids of open messages whose lane is none of these (another process's), behind the id `after`, in order. None
        of them is in a lane's hands."""
        return await self._lists.run(partial(transfer.messages_for_other_lanes, lanes=lanes, limit=limit, after=after))

    async def sends_for_other_lanes(self, lanes: Sequence[str]) -> bool:
        """Is something in a lane's hands whose lane is none of these?"""
        return await self._lists.run(partial(transfer.sends_for_other_lanes, lanes=lanes))

    async def export_message(self, message_id: str) -> TransferredMessage | None:
        """A message as another file takes it in; None: it isn't here, or nothing more of it is to be sent. Raises
        StoreError, Unreadable."""
        found = await self._lists.run(partial(_leaving, message_id=message_id))
        if found is None:
            return None
        content = await self._contents.content(message_id, found.body, found.size_bytes, self._codec)
        return TransferredMessage(message_id, found.message, found.rows, content)

    async def import_message(self, moved: TransferredMessage) -> None:
        """Write a message that another file exported; taking it in twice is the same as once."""
        body = self._place(moved.content)
        write = partial(transfer.import_message, moved=moved, body=body, codec=self._codec)
        await self._write(write, size_bytes=len(moved.content))

    async def delete_transferred(self, message_id: str) -> None:
        """Delete a message that another file has taken in."""
        await self._write(partial(transfer.delete_transferred, message_id=message_id), size_bytes=_HEAVY_BYTES)

    # What reads

    async def next_due(self, lane: str) -> float | None:
        return await self._contents.next_due(lane)

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        return await self._lists.get(message_id)

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return await self._lists.search(selection)

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        return await self._lists.waiting(selection)

    async def counts(self) -> Sequence[LaneCount]:
        return await self._lists.counts()

    def size(self) -> tuple[int, int]:
        return self._messages, self._size_bytes

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        return await self._lists.deliveries(since)

    # The parts of it

    async def _write(
        self,
        apply: Callable[[Tx], T],
        *,
        size_bytes: int = 0,
        express: bool = False,
        abandoned: Callable[[T], None] | None = None,
    ) -> T:
        operation = Operation(apply, size_bytes=size_bytes, abandoned=abandoned)
        return await self._writer.submit(operation, express=express).result()

    def _place(self, content: bytes) -> BodyRange:
        """A range of its own in `body`. Ids are given out here, not by SQLite, so that large ones lie together."""
        body = BodyRange(self._next_body, max(1, -(-len(content) // PART_BYTES)), self._codec.key_id)
        self._next_body += body.parts
        return body

    def _committed(self, tx: Tx) -> None:
        self._messages += tx.messages
        self._size_bytes += tx.size_bytes
        if tx.loose:
            self._writer.follow_up(self._wipe)

    def _wipe(self, tx: Tx) -> None:
        """One part in each transaction, until there is nothing to wipe."""
        tx.loose = sqlite_write.wipe(tx, self._arriving)
