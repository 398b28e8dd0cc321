"""Addresses that must not be mailed: in memory, asked at the final dot and before each try. Pure.

An address is here as a keyed hash of 62 bits, whose last two bits are the cause, in sorted arrays: a million of them
take 20 MB, and a question some microseconds.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from relay.config.model import Lane

Cause = Literal["bounce", "complaint", "manual", "unsubscribe"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
"""in the order of their numbers, the last two bits of a key"""
KEY_BYTES = 32
CHUNK = 2_048
"""entries in one set of arrays: an insertion moves so many at most twice"""
_MASK = 3
_MOST_SECONDS = 2**32 - 1
_MOST_DETAILS = 2**16 - 1
_DETAIL_CHARS = 120
_HASH = re.compile(r"h:([0-9a-f]{16})")
_STATUS = re.compile(r"(?<![\d.])5\.\d{1,3}\.\d{1,3}(?![\d.])")
_ADDRESS = re.compile(r"[^\s<>@,;:()\"']+@[^\s<>@,;()\"']+")
_SENDERS = frozenset({"5.1.7", "5.1.8"})
"""RFC 3463: these speak of the sender's address"""


class Entry(NamedTuple):
    """An address with one cause. Times are whole seconds since the epoch."""

    key: int
    at: int
    until: int | None
    """it counts until then; None: until it is removed"""
    detail: str
    """a bounce's enhanced code, the operator's reason; else empty"""

    @property
    def cause(self) -> Cause:
        return CAUSES[self.key & _MASK]


class BadAddress(NamedTuple):
    """An upstream refused a recipient for good, because of its address."""

    lane: str
    address: str
    code: str
    """enhanced, such as 5.1.1"""
    upstream: str
    at: float


def hash_of(address: str, key: bytes) -> int:
    """The 62 bits that stand for an address, whatever its case; two bits are free for the cause. `h:` and 16
    hexadecimal digits, as an erased address is shown, stand for themselves."""
    if (shown := _HASH.fullmatch(address)) is not None:
        return int.from_bytes(bytes.fromhex(shown[1]), "big", signed=True) & ~_MASK
    from hashlib import blake2b  # here, for the commands that read: it loads OpenSSL

    digest = blake2b(canonical(address).encode("utf-8", "replace"), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) & ~_MASK


def shown_hash(key: int) -> str:
    """`h:` and 16 hexadecimal digits, in the place of an address that isn't known any more."""
    return f"h:{(key & ~_MASK & (2**64 - 1)):016x}"


def key_of(hashed: int, cause: Cause) -> int:
    """The key of an address, as `hash_of` has it, with this cause."""
    return hashed | CAUSES.index(cause)


def canonical(address: str) -> str:
    """The form in which addresses are compared: case-folded, an internationalised domain as its A-label."""
    local, at, domain = address.casefold().rpartition("@")
    if not domain.isascii():
        with suppress(UnicodeError):  # no name of DNS: it is compared as it is
            domain = domain.encode("idna").decode("ascii")
    return f"{local}{at}{domain}"


def spellings(address: str) -> list[str]:
    """An address as it is given, and with its domain as an A-label and as a U-label, where those differ."""
    folded, a_label = address.casefold(), canonical(address)
    local, at, domain = a_label.rpartition("@")
    u_label = a_label
    if "xn--" in domain:
        with suppress(UnicodeError):
            u_label = f"{local}{at}{domain.encode().decode('idna')}"
    return [folded, *dict.fromkeys(one for one in (a_label, u_label) if one != folded)]


def bad_address_code(enhanced: str | None) -> str | None:
    """The enhanced code of a refused RCPT if it says that the recipient's address is bad; else None."""
    if enhanced is None or not enhanced.startswith("5.1.") or enhanced in _SENDERS:
        return None
    return enhanced


def detail_of(cause: Cause, reason: str) -> str:
    """What of a stored reason is given to apps: no address, ASCII, one short line."""
    if cause == "bounce":
        found = _STATUS.search(reason)
        return found[0] if found is not None else ""
    return without_addresses(reason) if cause == "manual" else ""


def without_addresses(text: str) -> str:
    """A text as one short line of ASCII in which no address is left."""
    line = _ADDRESS.sub("(address)", " ".join(text.split())).encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in line)[:_DETAIL_CHARS].strip()


def why(entry: Entry) -> str:
    """The reason as an app gets it: `bounced permanently on 2026-11-28 (5.1.1)`."""
    day = datetime.fromtimestamp(entry.at, UTC).date().isoformat()
    match entry.cause:
        case "bounce":
            return f"bounced permanently on {day}" + (f" ({entry.detail})" if entry.detail else "")
        case "complaint":
            return f"complained on {day}"
        case "unsubscribe":
            return f"unsubscribed on {day}"
        case "manual":
            return entry.detail or f"by the operator on {day}"


def counts(entry: Entry, lane: Lane, now: float) -> bool:
    """Does it count for that lane now (seconds since the epoch)?"""
    if lane.suppress == "none" or (entry.until is not None and now >= entry.until):
        return False
    match entry.cause:
        case "manual":
            return True
        case "bounce":
            return lane.suppress_for_s is None or now < entry.at + lane.suppress_for_s
        case "complaint" | "unsubscribe":
            return lane.suppress == "all"


class _Chunk:
    """Entries in the order of their keys, column by column."""

    __slots__ = ("ats", "details", "keys", "untils")

    def __init__(self, keys: Iterable[int], ats: Iterable[int], untils: Iterable[int], details: Iterable[int]) -> None:
        self.keys = array("q", keys)
        self.ats = array("I", ats)
        self.untils = array("I", untils)
        self.details = array("H", details)

    def columns(self) -> Sequence[array[int]]:
        return self.keys, self.ats, self.untils, self.details

    def split(self) -> _Chunk:
        """Keep the first half. Returns the second."""
        half = len(self.keys) // 2
        second = _Chunk(*(column[half:] for column in self.columns()))
        for column in self.columns():
            del column[half:]
        return second


class SuppressionSet:
    """Entries by key, at most one for each."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._firsts = array("q")
        """the first key of each chunk"""
        self._count = 0
        self._details = [""]
        self._detail_numbers = {"": 0}

    def __len__(self) -> int:
        return self._count

    def find(self, hashed: int) -> Iterator[Entry]:
        """The entries of an address (`hash_of`), of every cause."""
        if not self._count:
            return
        number = max(0, bisect_right(self._firsts, hashed) - 1)
        index = bisect_left(self._chunks[number].keys, hashed)
        while number < len(self._chunks):
            chunk = self._chunks[number]
            while index < len(chunk.keys):
                if chunk.keys[index] & ~_MASK != hashed:
                    return
                yield self._entry(chunk, index)
                index += 1
            number, index = number + 1, 0

    def add(self, entry: Entry) -> None:
        """Add it, or put it in the place of the one with the same key."""
        row = entry.key, *_packed(entry.at, entry.until), self._detail_number(entry.detail)
        if not self._chunks:
            self._append(_Chunk(*((value,) for value in row)))
            return
        number = max(0, bisect_right(self._firsts, entry.key) - 1)
        chunk = self._chunks[number]
        index = bisect_left(chunk.keys, entry.key)
        if index < len(chunk.keys) and chunk.keys[index] == entry.key:
            for column, value in zip(chunk.columns(), row, strict=True):
                column[index] = value
            return
        for column, value in zip(chunk.columns(), row, strict=True):
            column.insert(index, value)
        self._count += 1
        self._firsts[number] = chunk.keys[0]
        if len(chunk.keys) > 2 * CHUNK:
            second = chunk.split()
            self._chunks.insert(number + 1, second)
            self._firsts.insert(number + 1, second.keys[0])

    def remove(self, key: int) -> bool:
        """False: it wasn't there."""
        number = bisect_right(self._firsts, key) - 1
        if number < 0:
            return False
        chunk = self._chunks[number]
        index = bisect_left(chunk.keys, key)
        if index == len(chunk.keys) or chunk.keys[index] != key:
            return False
        for column in chunk.columns():
            del column[index]
        self._count -= 1
        if chunk.keys:
            self._firsts[number] = chunk.keys[0]
        else:
            del self._chunks[number], self._firsts[number]
        return True

    def extend(self, rows: Sequence[tuple[int, int, int, str]]) -> None:
        """Add rows in the order of their keys, all behind those that are here: key, at, until (0: none), detail."""
        for start in range(0, len(rows), CHUNK):
            keys, ats, untils, details = zip(*rows[start : start + CHUNK], strict=True)
            self._append(_Chunk(keys, ats, untils, [self._detail_number(detail) for detail in details]))

    def _append(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        self._firsts.append(chunk.keys[0])
        self._count += len(chunk.keys)

    def _entry(self, chunk: _Chunk, index: int) -> Entry:
        detail = self._details[chunk.details[index]]
        return Entry(chunk.keys[index], chunk.ats[index], chunk.untils[index] or None, detail)

    def _detail_number(self, detail: str) -> int:
        """A text's place in the list of all; beyond so many different ones a text is left out."""
        number = self._detail_numbers.get(detail)
        if number is None:
            if len(self._details) > _MOST_DETAILS:
                return 0
            number = self._detail_numbers[detail] = len(self._details)
            self._details.append(detail)
        return number


def _packed(at: int, until: int | None) -> tuple[int, int]:
    return min(max(at, 0), _MOST_SECONDS), 0 if until is None else min(max(until, 1), _MOST_SECONDS)


class Change(NamedTuple):
    """What changed in the store, for the copies in memory."""

    added: Sequence[Entry] = ()
    removed: Sequence[int] = ()
    """keys"""


class Suppressions:
    """One process's copy of the suppressed addresses. Empty until `begin`."""

    def __init__(self) -> None:
        self.entries = SuppressionSet()
        self.key = bytes(KEY_BYTES)
        self._early: list[Change] | None = []
        """changes that came before `begin`"""

    def begin(self, key: bytes, entries: SuppressionSet) -> None:
        """Ask these from now on, with the changes that came while they were being read. `key`: of the hashes."""
        self.key, self.entries = key, entries
        early, self._early = self._early or [], None
        for change in early:
            self.apply(change)

    def apply(self, change: Change) -> None:
        """Follow the store. A change that is known already changes nothing."""
        if self._early is not None:
            self._early.append(change)
            return
        for key in change.removed:
            self.entries.remove(key)
        for entry in change.added:
            self.entries.add(entry)

    def why(self, address: str, lane: Lane, now: float) -> str | None:
        """Why an address gets no mail of that lane now (seconds since the epoch), as an app may read it; None: it may
        be mailed."""
        if not self.entries or lane.suppress == "none":
            return None
        for entry in self.entries.find(hash_of(address, self.key)):
            if counts(entry, lane, now):
                return why(entry)
        return None


Report = Callable[[BadAddress], None]
"""Is given each bad address, once the outcome is durable; returns at once."""


def reply_text(reason: str) -> str:
    """The text behind 550, enhanced code first."""
    return f"5.7.1 suppressed: {reason}"
