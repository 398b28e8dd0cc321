"""What the files give away: nothing of a finished message, with a key nothing of a waiting one, and addresses only if
they are to be told."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.__main__ import main
from relay.config.files import read_store_keys
from relay.mail.envelope import Envelope, Recipient
from relay.store.addresses import Hashed
from relay.store.base import Store, StoreError, StoreSealed
from relay.store.codec import Codec, Plain, Sealed, key_id
from relay.store.model import Selection, Settlement
from relay.store.sqlite.maintenance import check_keys
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.rows import PART_BYTES
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import CONTENT, NOW, attempt, claim, exported, ids, message, on_writer, settled
from tests.store.contract import StoreContract

OLD, NEW, OTHER = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
_codes = itertools.count(700_000_000_001, 7)


async def opened(path: Path, *keys: bytes) -> SqliteStore:
    return await open_store(path, now=lambda: NOW, codec=Sealed(keys, "secrets/store") if keys else Plain())


class TestSealedStore(StoreContract):
    """A store that encrypts does what every store must."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await opened(tmp_path / "relay.db", NEW)
        yield store
        await store.close()


# The codec


@given(content=st.binary(max_size=300))
def test_what_was_encrypted_is_decrypted_under_its_name_with_its_key_and_not_otherwise(content: bytes) -> None:
    codec = Sealed([NEW, OLD], "f")
    stored = codec.seal(content, "01A/0")
    assert codec.open(stored, "01A/0", codec.key_id) == content
    for name, key in (("01A/1", key_id(NEW)), ("01B/0", key_id(NEW)), ("01A/0", key_id(OLD))):
        with pytest.raises(ValueError, match=r"^damaged"):
            codec.open(stored, name, key)


@given(content=st.binary(max_size=60), data=st.data())
def test_a_changed_or_shortened_content_is_told_from_a_whole_one(content: bytes, data: st.DataObject) -> None:
    codec = Sealed([NEW], "f")
    stored = codec.seal(content, "01A/0")
    at = data.draw(st.integers(0, len(stored) - 1))
    changed = stored[:at] + bytes([stored[at] ^ data.draw(st.integers(1, 255))]) + stored[at + 1 :]
    for wrong in (changed, stored[:at]):
        with pytest.raises(ValueError, match=r"^damaged"):
            codec.open(wrong, "01A/0", codec.key_id)


def test_the_same_content_never_looks_the_same() -> None:
    codec = Sealed([NEW], "f")
    seen = {codec.seal(CONTENT, name) for name in ("01A/0", "01A/0", "01A/1", "01B/0")}
    assert len(seen) == 4
    assert len({len(stored) for stored in seen}) == 1


def test_the_first_key_encrypts_and_every_one_decrypts() -> None:
    before, after = Sealed([OLD], "f"), Sealed([NEW, OLD], "f")
    assert after.open(before.seal(CONTENT, "n"), "n", before.key_id) == CONTENT
    assert (before.key_id, after.key_id) == (key_id(OLD), key_id(NEW))


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        (Sealed([NEW], "secrets/store"), "^encrypted with key [0-9a-f]{8}, which secrets/store doesn't hold$"),
        (Plain("relay.db.key is missing"), "^encrypted with key [0-9a-f]{8}, and relay.db.key is missing$"),
    ],
)
def test_a_key_that_is_not_there_is_named_by_its_id(codec: Codec, says: str) -> None:
    stored = Sealed([OLD], "f").seal(CONTENT, "n")
    for read in (lambda: codec.open(stored, "n", key_id(OLD)), lambda: codec.check(key_id(OLD))):
        with pytest.raises(ValueError, match=says):
            read()


def test_a_codec_shows_no_key_when_printed_and_reaches_a_worker_whole() -> None:
    codec = Sealed([NEW, OLD], "f")
    assert repr(codec) == "Sealed(<2 keys of f>)"
    there = pickle.loads(pickle.dumps(codec))
    assert there.open(codec.seal(CONTENT, "n"), "n", codec.key_id) == CONTENT


# Contents in the files


def code() -> bytes:
    return b"code-%d" % next(_codes)


def holding(folder: Path, *secrets: bytes) -> dict[str, list[bytes]]:
    """The files below the folder that hold one of these, and which."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = {name: [secret for secret in secrets if secret in content] for name, content in contents.items()}
    return {name: secrets for name, secrets in found.items() if secrets}


SIZES = [60, 2_000, 30_000, 1_500_000]


def filled(secret: bytes, size: int) -> bytes:
    return (secret + b" " + os.urandom(150)) * (1 + size // (len(secret) + 151))


@pytest.mark.parametrize("size", SIZES)
async def test_a_finished_message_is_in_no_file_of_a_store_that_was_closed(tmp_path: Path, size: int) -> None:
    store = await opened(tmp_path / "relay.db")
    finished, waiting = code(), code()
    new, other = message(content=filled(finished, size)), message(content=filled(waiting, size))
    await store.put(new, claimed=True)
    await store.put(other, claimed=False)
    await store.settle(settled(new.id))
    await store.close()
    assert not holding(tmp_path, finished)
    assert holding(tmp_path, waiting)


@pytest.mark.parametrize("how", ["dropped", "superseded", "moved away", "expired"])
async def test_no_end_of_a_message_leaves_it_behind(tmp_path: Path, how: str) -> None:
    store = await opened(tmp_path / "relay.db")
    finished = code()
    new = message(content=filled(finished, 3000), supersede_key="k")
    await store.put(new, claimed=False)
    match how:
        case "dropped":
            await store.act("drop", Selection(), NOW)
        case "superseded":
            await store.supersede("k", message().id, NOW)
        case "moved away":
            await store.delete_transferred(new.id)
        case _:
            await store.settle(settled(new.id, "expired"))
    await store.close()
    assert not holding(tmp_path, finished)


async def test_among_many_messages_of_all_sizes_none_that_is_finished_is_left(tmp_path: Path) -> None:
    """SQLite moves rows between pages as they come and go; none of the places they were in may keep them."""
    store = await opened(tmp_path / "relay.db")
    finished, waiting = [], []
    sizes = itertools.cycle([60, 900, 2_500, 3_500, 4_200, 9_000, 300, 25_000])
    for turn, size in zip(range(400), sizes, strict=False):
        secret = code()
        new = message(f"{turn}@example.net", content=secret + os.urandom(size) + secret)
        await store.put(new, claimed=True)
        waiting.append((new.id, secret))
        if turn % 4:
            message_id, secret = waiting.pop(turn * 7 % len(waiting))
            await store.settle(settled(message_id))
            finished.append(secret)
    await store.close()
    assert not holding(tmp_path, *finished)
    assert {secret for found in holding(tmp_path, *(s for _, s in waiting)).values() for secret in found} == {
        secret for _, secret in waiting
    }


@pytest.mark.parametrize("size", SIZES)
async def test_with_a_key_a_message_is_in_no_file_of_a_running_store(tmp_path: Path, size: int) -> None:
    store = await opened(tmp_path / "relay.db", NEW)
    secret = code()
    new = message(content=filled(secret, size))
    await store.put(new, claimed=False)
    assert holding(tmp_path, secret) == {}
    (queued,) = await claim(store)
    assert queued.content == new.content
    bounce = code()
    await store.settle(Settlement(new.id, settled(new.id, "bounced").updates, bounces=(message(content=bounce),)))
    assert holding(tmp_path, secret, bounce) == {}
    assert [each.content for each in await claim(store)] == [bounce]
    assert (tmp_path / "relay.db-wal").stat().st_size > 0
    assert holding(tmp_path, secret, bounce) == {}
    await store.close()


async def test_what_a_killed_relay_left_in_its_log_goes_when_the_next_one_ends(tmp_path: Path) -> None:
    store = await opened(tmp_path / "relay.db")
    finished = code()
    new = message(content=finished)
    await store.put(new, claimed=True)
    await store.settle(settled(new.id))
    left = tmp_path / "left"
    left.mkdir()
    for name in ("relay.db", "relay.db-wal"):
        (left / name).write_bytes((tmp_path / name).read_bytes())
    await store.close()
    assert holding(left, finished)
    again = await opened(left / "relay.db")
    await again.close()
    assert not holding(left, finished)


# Keys that come and go


async def test_encryption_can_be_turned_on_while_mail_waits(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path)
    before = message(content=b"in clear" * 100_000)
    await store.put(before, claimed=False)
    await store.close()
    store = await opened(path, NEW)
    after = message(content=b"encrypted")
    await store.put(after, claimed=False)
    assert {each.content for each in await claim(store)} == {before.content, after.content}
    assert not holding(tmp_path, b"encrypted")
    await store.close()


async def test_a_new_key_is_put_before_the_old_one_and_the_old_one_goes_with_its_mail(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path, OLD)
    first = message(content=b"1")
    await store.put(first, claimed=False)
    await store.close()
    store = await opened(path, NEW, OLD)
    second = message(content=b"2")
    await store.put(second, claimed=False)
    assert {each.content for each in await claim(store)} == {b"1", b"2"}
    await store.settle(settled(first.id))
    await store.close()
    store = await opened(path, NEW)
    await store.recover(NOW)
    assert [each.content for each in await claim(store, NOW + 1)] == [b"2"]
    await store.close()


@pytest.mark.parametrize(
    ("keys", "says"), [((), "and there is no key for it"), ((OTHER,), "which secrets/store doesn't hold")]
)
async def test_a_store_with_mail_that_cannot_be_read_is_not_opened_and_left_as_it_is(
    tmp_path: Path, keys: Iterable[bytes], says: str
) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path, OLD)
    new = message()
    await store.put(new, claimed=False)
    await store.close()
    before = path.read_bytes()
    with pytest.raises(
        StoreSealed, match=rf"^{path}: waiting mail is encrypted with key {key_id(OLD)}, {says}$"
    ) as caught:
        await opened(path, *keys)
    assert isinstance(caught.value, StoreError)
    assert path.read_bytes() == before
    store = await opened(path, OLD)
    assert [each.content for each in await claim(store)] == [new.content]
    await store.settle(settled(new.id))
    await store.close()
    await (await opened(path, *keys)).close()  # nothing waits that needs the key


async def test_a_command_without_the_key_acts_on_mail_and_reads_none(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path, OLD)
    new = message()
    await store.put(new, claimed=False)
    await store.close()
    store = await open_store(path, now=lambda: NOW)
    assert await claim(store) == []
    view: Any = await store.get(new.id)
    assert view["recipients"][0]["state"] == "held"
    assert f"its content is encrypted with key {key_id(OLD)}, and there is no key for it" in view["notes"][0]["text"]
    assert await store.act("drop", Selection(), NOW) == [new.id]
    await store.close()


async def test_a_damaged_content_is_held_with_a_note_and_not_sent(tmp_path: Path) -> None:
    store = await opened(tmp_path / "relay.db", NEW)
    new = message()
    await store.put(new, claimed=False)

    def damage(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE body SET content = zeroblob(length(content))")

    await on_writer(store, damage)
    assert await claim(store) == []
    view: Any = await store.get(new.id)
    assert view["recipients"][0]["state"] == "held"
    assert view["notes"][0]["text"] == "held: its content is damaged, or another message's"
    await store.close()


@pytest.mark.parametrize(("here", "there"), [((), (NEW,)), ((OLD,), (NEW,)), ((NEW,), (NEW,)), ((OLD,), ())])
async def test_a_message_moves_between_files_with_keys_of_their_own(
    tmp_path: Path, here: tuple[bytes, ...], there: tuple[bytes, ...]
) -> None:
    source, target = await opened(tmp_path / "here.db", *here), await opened(tmp_path / "there.db", *there)
    new = message(content=filled(code(), PART_BYTES + 10))
    await source.put(new, claimed=False)
    await target.import_message(await exported(source, new.id))
    await source.delete_transferred(new.id)
    (queued,) = await claim(target)
    assert queued.content == new.content
    await source.close()
    await target.close()


# The schema before


def first_version(path: Path) -> None:
    added = ("booked_at", "holder", "lease_until", "deaths", "urged", "repeat_at", "repeat_until", "repeat_key")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE admission; DROP TABLE idempotency;"
            "DROP TRIGGER recipient_event; DROP TABLE event; DROP TABLE suppression;"
            "DROP INDEX recipient_suspect; DROP INDEX recipient_urged;"
            + "".join(f"ALTER TABLE recipient DROP COLUMN {name};" for name in added)
            + "DROP INDEX message_parts;"
            "ALTER TABLE message DROP COLUMN trace;"
            "ALTER TABLE attempt DROP COLUMN via;"
            "ALTER TABLE message DROP COLUMN part_of; ALTER TABLE message DROP COLUMN places;"
            "ALTER TABLE message DROP COLUMN detected; ALTER TABLE message DROP COLUMN body_key;"
            "DROP TABLE setting; PRAGMA user_version = 1;"
        )


async def test_a_store_of_the_first_version_is_read_as_it_is_and_taken_over_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path)
    new = message()
    await store.put(new, claimed=False)
    await store.close()
    first_version(path)
    reader = Reader.open(path)
    assert ids(reader.search(Selection(to="user@example.net"))) == [new.id]
    reader.close()
    check_keys(path, Plain())
    store = await opened(path, NEW)
    assert [each.content for each in await claim(store)] == [new.content]
    await store.close()


# Addresses

HASHED = Hashed(b"salt")
BOB = "bob.o'neil@Example.NET"
H = HASHED.address(BOB)

TEXTS = [
    (BOB, "250 2.0.0 OK 1234", "250 2.0.0 OK 1234"),
    (BOB, f"550 5.1.1 <{BOB}>: user unknown", f"550 5.1.1 <{H}>: user unknown"),
    (BOB, f"550 {BOB.lower()} unknown", f"550 {H} unknown"),
    (BOB, f"550 {BOB}: unknown.", f"550 {H}: unknown."),
    (BOB, "550 5.1.1 <BOB.O'Neil>: user unknown", f"550 5.1.1 <{H}>: user unknown"),
    (BOB, "451 try bob.o'neil. Later", f"451 try {H}. Later"),
    (BOB, "550 bob.o'neilson is another", "550 bob.o'neilson is another"),
    (BOB, "450 to=<ann@example.org>, relay", f"450 to=<{HASHED.address('ann@example.org')}>, relay"),
    (BOB, "551 rfc822;ann@example.org", f"551 rfc822;{HASHED.address('ann@example.org')}"),
    (BOB, 'no "ann b"@example.org.', f"no {HASHED.address(chr(34) + 'ann b' + chr(34) + '@example.org')}."),
    (BOB, "no ann@[192.0.2.1] here", f"no {HASHED.address('ann@[192.0.2.1]')} here"),
    (BOB, "no jürgen@bücher.example", f"no {HASHED.address('jürgen@bücher.example')}"),
    ("250@example.net", "250 2.0.0 OK", "250 2.0.0 OK"),
    ("ok@example.net", "250 2.0.0 ok", "250 2.0.0 ok"),
    ("4917012345@example.net", "550 4917012345 unknown", f"550 {HASHED.address('4917012345@example.net')} unknown"),
    ("", "550 5.1.1 <>: never mind @ all", "550 5.1.1 <>: never mind @ all"),
    ("postmaster", "550 postmaster", "550 postmaster"),
    (H, f"550 5.1.1 <{H}>: user unknown", f"550 5.1.1 <{H}>: user unknown"),
]


@pytest.mark.parametrize(("known", "text", "hidden"), TEXTS)
def test_addresses_in_a_text_are_hashed_and_nothing_else_is_changed(known: str, text: str, hidden: str) -> None:
    assert HASHED.text(text, known) == hidden
    assert HASHED.text(hidden, known) == hidden


LOCAL = st.text("abcdefghijkXYZ0189.+_-'=", min_size=3, max_size=20).filter(lambda text: text[0] not in ".+-'=_")


@given(local=LOCAL, around=st.text(" <>:;,()[]\"'.abc", max_size=12))
def test_no_known_address_is_left_in_a_text(local: str, around: str) -> None:
    known = f"{local}@example.net"
    for text in (f"550 {around}{known}{around}", f"550 {around} <{known.upper()}> {around}"):
        assert known.casefold() not in HASHED.text(text, known).casefold()


def test_a_hash_has_the_domain_and_not_the_case_and_is_another_in_another_store() -> None:
    assert HASHED.address("User@Example.net") == HASHED.address("user@example.NET")
    assert HASHED.address("user@example.net").endswith("@example.net")
    assert "user" not in HASHED.address("user@example.net")
    assert HASHED.address("user@example.net") != Hashed(b"other").address("user@example.net")
    assert HASHED.address(H) == H
    assert HASHED.address("") == ""
    assert len(HASHED.address("postmaster")) == len("h:") + 16


def test_a_long_text_is_searched_in_a_time_that_grows_with_it() -> None:
    """A search that is quadratic takes minutes for this, and runs into the suite's time limit."""
    assert HASHED.text("a" * 1_000_000 + "@", BOB) == "a" * 1_000_000 + "@"
    assert HASHED.text("a." * 500_000, BOB) == "a." * 500_000


SENDER = "mallory.sender@auth.example.com"


def personal(name: str, **changed: Any) -> Any:
    recipients = (
        Recipient(f"{name}@example.net", orcpt=f"rfc822;{name}@example.net"),
        Recipient(f"{name.title()}.Second@example.org"),
    )
    envelope = Envelope(SENDER, recipients, envid=f"for-{name}")
    return message(envelope=envelope, subject=f"Hello {name}@example.net", content=b"-", **changed)


def refusals(new: Any) -> Settlement:
    first, second = (each.address for each in new.envelope.recipients)
    return Settlement(
        new.id,
        (
            *settled(new.id, "bounced", 0, reply=f"550 5.1.1 <{first.upper()}>: user unknown").updates,
            *settled(new.id, "sent", 1, reply=f"250 OK for {second.partition('@')[0]}").updates,
        ),
        (attempt(0, reply=f"550 5.1.1 <{first}>: user unknown"), attempt(1, reply=f"250 to <{second}> from {SENDER}")),
    )


@pytest.fixture
async def hashing(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await opened(tmp_path / "relay.db")
    await store.hash_addresses(wanted=True)
    yield store
    await store.close()


async def test_the_addresses_of_a_finished_message_are_in_no_file_and_found_all_the_same(
    hashing: SqliteStore, tmp_path: Path
) -> None:
    new = personal("gwendolyn")
    await hashing.put(new, claimed=True)
    shown: Any = await hashing.get(new.id)
    assert shown["recipients"][0]["address"] == "gwendolyn@example.net"
    await hashing.settle(refusals(new))
    shown = await hashing.get(new.id)
    assert [each["address"][18:] for each in shown["recipients"]] == ["@example.net", "@example.org"]
    assert "user unknown" in shown["recipients"][0]["reply"]
    assert "gwendolyn" not in str(shown).casefold()
    assert "mallory" not in str(shown)
    reader = Reader.open(tmp_path / "relay.db")
    for to in ("gwendolyn@example.net", "GWENDOLYN.second@Example.org", shown["recipients"][0]["address"]):
        for selection in (Selection(to=to), Selection(to=to, ids=(new.id,)), Selection(to=to, lane="otp", since=1)):
            assert ids(await hashing.search(selection)) == ids(reader.search(selection)) == [new.id]
    assert reader.search(Selection(to="someone@example.net")) == []
    reader.close()
    await hashing.close()
    assert not holding(tmp_path, b"gwendolyn", b"Gwendolyn", b"GWENDOLYN", b"mallory")


async def test_what_waits_keeps_its_addresses_until_its_last_recipient_is_finished(hashing: SqliteStore) -> None:
    new = personal("gwendolyn")
    await hashing.put(new, claimed=True)
    refused = refusals(new)
    await hashing.settle(Settlement(new.id, refused.updates[:1], refused.attempts[:1]))
    await hashing.unclaim(new.id)
    assert ids(await hashing.waiting(Selection(to="gwendolyn.second@example.org"))) == [new.id]
    (queued,) = await claim(hashing)
    assert queued.envelope == new.envelope
    await hashing.settle(Settlement(new.id, refused.updates[1:]))
    assert "gwendolyn" not in str(await hashing.get(new.id)).casefold()


@pytest.mark.parametrize("how", ["drop", "supersede"])
async def test_a_message_that_is_ended_by_others_is_hashed_too(hashing: SqliteStore, tmp_path: Path, how: str) -> None:
    new = personal("gwendolyn", supersede_key="k")
    await hashing.put(new, claimed=False)
    if how == "drop":
        await hashing.act("drop", Selection(to="gwendolyn@example.net"), NOW)
        await hashing.act("drop", Selection(), NOW)
    else:
        await hashing.supersede("k", message().id, NOW)
    await hashing.close()
    assert not holding(tmp_path, b"gwendolyn", b"Gwendolyn", b"mallory")


async def test_an_attempt_that_ends_after_its_message_is_hashed_too(hashing: SqliteStore) -> None:
    new = personal("gwendolyn")
    await hashing.put(new, claimed=True)
    await hashing.settle(refusals(new))
    late = attempt(0, n=2, reply="550 <gwendolyn@example.net> unknown")
    await hashing.settle(Settlement(new.id, attempts=(late,)))
    shown: Any = await hashing.get(new.id)
    assert len(shown["recipients"][0]["attempts"]) == 2
    assert "gwendolyn" not in str(shown).casefold()


async def until_hidden(store: SqliteStore) -> None:
    assert store.hashing is not None
    async with asyncio.timeout(5):
        await store.hashing


async def test_older_messages_are_hashed_when_it_is_turned_on_and_newer_ones_are_not_when_it_is_turned_off(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path)
    waiting = personal("waiting")
    await store.put(waiting, claimed=False)
    for number in range(60):
        new = personal(f"gwendolyn{number}")
        await store.put(new, claimed=True)
        await store.settle(refusals(new))
    await store.close()
    store = await opened(path)
    await store.hash_addresses(wanted=True)
    await until_hidden(store)
    assert "gwendolyn" not in str(await store.search(Selection(limit=100))).casefold()
    assert ids(await store.waiting(Selection(to="waiting@example.net"))) == [waiting.id]
    await store.hash_addresses(wanted=True)
    assert store.hashing is None  # done once
    await store.hash_addresses(wanted=False)
    new = personal("gwendolyn")
    await store.put(new, claimed=True)
    await store.settle(refusals(new))
    assert ids(await store.search(Selection(to="gwendolyn@example.net"))) == [new.id]
    assert len(await store.search(Selection(to="gwendolyn59@example.net"))) == 1
    assert "gwendolyn@example.net" in str(await store.get(new.id))
    await store.hash_addresses(wanted=True)
    await until_hidden(store)
    assert "gwendolyn" not in str(await store.get(new.id)).casefold()
    await store.close()


async def test_a_store_that_closes_does_not_wait_for_older_messages_to_be_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path)
    for number in range(60):
        new = personal(f"gwendolyn{number}")
        await store.put(new, claimed=True)
        await store.settle(refusals(new))
    monkeypatch.setattr("relay.store.sqlite.store.HASH_EVERY_S", 60.0)
    await store.hash_addresses(wanted=True)
    await store.close()
    monkeypatch.undo()
    store = await opened(path)
    await store.hash_addresses(wanted=True)
    await until_hidden(store)
    await store.close()
    assert not holding(tmp_path, b"gwendolyn", b"Gwendolyn")


# The command line


def test_a_key_is_made_for_its_owner_only_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secrets" / "store"
    assert main(["store", "key", "--out", str(path)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"store_key_file: {path}\n", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key,) = read_store_keys(path)
    assert len(key) == 32
    assert main(["store", "key", "--out", str(path)]) == 2
    assert capsys.readouterr().err == f"otp-relay: {path} exists; it is left as it is\n"
    assert read_store_keys(path) == (key,)
    assert main(["store", "key", "--out", str(path / "below")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
