"""The set of suppressed addresses in memory: the same as a dictionary, but small; and which entry counts for a lane."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.policy.suppression import (
    CAUSES,
    CHUNK,
    Change,
    Entry,
    Suppressions,
    SuppressionSet,
    bad_address_code,
    canonical,
    detail_of,
    hash_of,
    key_of,
    shown_hash,
    why,
)

KEY = b"k" * 32
DAY = 86_400
AT = 1_795_824_000  # 2026-11-28
EVERY_HASH = st.integers(-(2**61), 2**61 - 1).map(lambda number: number * 4)
FEW_HASHES = st.integers(-3, 3).map(lambda number: number * 4) | EVERY_HASH
ENTRIES = st.builds(
    lambda hashed, cause, at, until, detail: Entry(key_of(hashed, cause), at, until, detail),
    FEW_HASHES,
    st.sampled_from(CAUSES),
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(1, 2**32 - 1),
    st.sampled_from(["", "5.1.1", "asked for it"]),
)


class LikeADictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.set, self.model = SuppressionSet(), dict[int, Entry]()

    @rule(first=EVERY_HASH, count=st.sampled_from([1, CHUNK - 1, CHUNK, 2 * CHUNK + 1]))
    def load(self, first: int, count: int) -> None:
        """What a start does."""
        keys = sorted({*self.model, *(first + 4 * number for number in range(count) if first + 4 * number < 2**63)})
        self.model = {key: self.model.get(key, Entry(key, 7, None, "5.1.1")) for key in keys}
        self.set = SuppressionSet()
        self.set.extend([(one.key, one.at, one.until or 0, one.detail) for one in self.model.values()])

    @rule(entry=ENTRIES)
    def add(self, entry: Entry) -> None:
        self.set.add(entry)
        self.model[entry.key] = entry

    @rule(start=FEW_HASHES, count=st.sampled_from([10, 3 * CHUNK]))
    def add_neighbours(self, start: int, count: int) -> None:
        for number in range(count):
            entry = Entry((start + number) % 2**62, AT, None, "")
            self.set.add(entry)
            self.model[entry.key] = entry

    @rule(entry=ENTRIES)
    def remove(self, entry: Entry) -> None:
        assert self.set.remove(entry.key) == (self.model.pop(entry.key, None) is not None)

    @rule()
    def remove_most(self) -> None:
        for key in list(self.model)[5:]:
            assert self.set.remove(key)
            del self.model[key]

    @rule(hashed=FEW_HASHES)
    def find(self, hashed: int) -> None:
        expected = [self.model[hashed + cause] for cause in range(4) if hashed + cause in self.model]
        assert list(self.set.find(hashed)) == expected

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        assert len(self.set) == len(self.model)
        for key in itertools.islice(reversed(self.model), 3):
            assert self.model[key] in self.set.find(key & ~3)


TestLikeADictionary = LikeADictionary.TestCase
TestLikeADictionary.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


ADDRESSES = 200_000


def test_an_address_takes_less_than_a_hundred_bytes() -> None:
    """So a million of them take less than 100 MB."""
    import tracemalloc

    tracemalloc.start()
    try:
        held = SuppressionSet()
        for start in range(0, ADDRESSES, 10 * CHUNK):
            held.extend([(4 * at, AT, 0, "5.1.1") for at in range(start, min(start + 10 * CHUNK, ADDRESSES))])
        size_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held) == ADDRESSES
    assert size_bytes < 100 * ADDRESSES
    assert [entry.key for entry in held.find(4 * 77_777)] == [4 * 77_777]


def lane(suppress: str, for_s: float | None = None) -> Any:
    return SimpleNamespace(suppress=suppress, suppress_for_s=for_s)


def suppressions(*entries: Entry) -> Suppressions:
    made = Suppressions()
    made.begin(KEY, SuppressionSet())
    made.apply(Change(added=entries))
    return made


def entry(cause: Any, until: int | None = None, detail: str = "", address: str = "bob@example.net") -> Entry:
    return Entry(key_of(hash_of(address, KEY), cause), AT, until, detail)


BOUNCED = "bounced permanently on 2026-11-28 (5.1.1)"


@pytest.mark.parametrize(
    ("found", "lane_", "after_s", "reason"),
    [
        (entry("bounce", detail="5.1.1"), lane("hard"), 1, BOUNCED),
        (entry("bounce", detail="5.1.1"), lane("all"), 1, BOUNCED),
        (entry("bounce", detail="5.1.1"), lane("none"), 1, None),
        (entry("bounce"), lane("hard"), 1, "bounced permanently on 2026-11-28"),
        (entry("bounce"), lane("hard", 7 * DAY), 7 * DAY - 1, "bounced permanently on 2026-11-28"),
        (entry("bounce"), lane("hard", 7 * DAY), 7 * DAY, None),
        (entry("bounce", until=AT + DAY), lane("hard", 7 * DAY), DAY, None),
        (entry("bounce", until=AT + 9 * DAY), lane("hard", 7 * DAY), 8 * DAY, None),
        (entry("complaint"), lane("hard"), 1, None),
        (entry("complaint"), lane("all", 7 * DAY), 900 * DAY, "complained on 2026-11-28"),
        (entry("unsubscribe"), lane("hard"), 1, None),
        (entry("unsubscribe"), lane("all"), 1, "unsubscribed on 2026-11-28"),
        (entry("manual", detail="left us"), lane("hard", DAY), 900 * DAY, "left us"),
        (entry("manual"), lane("all"), 1, "by the operator on 2026-11-28"),
        (entry("manual"), lane("none"), 1, None),
        (entry("manual", until=AT + DAY), lane("hard"), DAY + 1, None),
        (entry("bounce", address="eve@example.net"), lane("all"), 1, None),
    ],
)
def test_a_lane_says_which_causes_count_and_for_how_long(
    found: Entry, lane_: Any, after_s: int, reason: str | None
) -> None:
    assert suppressions(found).why("Bob@Example.NET", lane_, AT + after_s) == reason


def test_one_cause_that_counts_is_enough() -> None:
    both = suppressions(entry("bounce", until=AT + 1), entry("complaint"))
    assert both.why("bob@example.net", lane("all"), AT + 2) == "complained on 2026-11-28"
    assert both.why("bob@example.net", lane("hard"), AT + 2) is None


def test_a_change_that_comes_while_the_file_is_read_is_not_lost() -> None:
    made, bounced, complained = Suppressions(), entry("bounce"), entry("complaint")
    made.apply(Change(added=[bounced]))
    made.apply(Change(removed=[complained.key]))
    read = SuppressionSet()
    read.add(complained)
    made.begin(KEY, read)
    assert made.why("bob@example.net", lane("hard"), AT) is not None
    made.apply(Change(removed=[bounced.key]))
    assert made.why("bob@example.net", lane("all"), AT) is None


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("Bob@Example.NET", "bob@example.net"),
        ("ÄNNE@Example.net", "änne@example.net"),
        ("bob@BÜCHER.example", "bob@xn--bcher-kva.example"),
        ("postmaster", "postmaster"),
        ("bob@" + "ü" * 70 + ".example", "bob@" + "ü" * 70 + ".example"),
    ],
)
def test_an_address_is_compared_without_case_and_by_its_a_label(address: str, same: str) -> None:
    assert canonical(address) == same
    assert hash_of(address, KEY) == hash_of(same, KEY)
    assert hash_of(shown_hash(hash_of(address, KEY)), KEY) == hash_of(same, KEY)
    assert hash_of(address, b"other") != hash_of(address, KEY)


@pytest.mark.parametrize(
    ("code", "is_bad"),
    [
        ("5.1.0", True), ("5.1.1", True), ("5.1.2", True), ("5.1.3", True), ("5.1.6", True), ("5.1.10", True),
        ("5.1.7", False), ("5.1.8", False), ("5.2.1", False), ("5.6.0", False), ("5.7.1", False), ("4.1.1", False),
        (None, False),
    ],
)  # fmt: skip
def test_only_an_enhanced_code_about_the_recipients_address_suppresses(code: str | None, is_bad: bool) -> None:
    assert bad_address_code(code) == (code if is_bad else None)


@pytest.mark.parametrize(
    ("cause", "reason", "detail"),
    [
        ("bounce", "smtp; 550 5.1.1 <bob@example.net>: no such user", "5.1.1"),
        ("bounce", "from 10.5.1.1.2: unknown", ""),
        ("complaint", "abuse by bob@example.net", ""),
        ("manual", "asked by bob@example.net,\r\n on  the ☎", "asked by (address), on the ?"),
        ("manual", "x" * 900, "x" * 120),
    ],
)
def test_an_app_gets_one_ascii_line_in_which_no_address_is(cause: Any, reason: str, detail: str) -> None:
    assert detail_of(cause, reason) == detail
    assert "@" not in why(entry(cause, detail=detail))
