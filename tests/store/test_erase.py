"""An address is forgotten in finished mail, wherever a message may have it; waiting mail and its neighbours stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.mail.envelope import Recipient
from relay.store.model import RecipientUpdate, Settlement
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, attempt, message, on_writer

GONE = "Bob.Möller@example.net"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    yield opened
    await opened.close()


async def finished(store: SqliteStore, new: Any, reply: str = "550 5.1.1 no") -> str:
    await store.put(new, claimed=True)
    updates = tuple(RecipientUpdate(at, "bounced", "one", reply) for at, _ in enumerate(new.envelope.recipients))
    await store.settle(Settlement(new.id, updates, (attempt(0, reply=reply),)))
    return str(new.id)


async def dump(store: SqliteStore) -> str:
    """Everything that the file's rows say."""
    return "\n".join(await on_writer(store, lambda connection: list(connection.iterdump())))


async def test_it_is_gone_as_recipient_as_sender_and_in_what_is_quoted(store: SqliteStore) -> None:
    to = message(GONE, "other@example.net")
    to = to._replace(
        envelope=to.envelope._replace(recipients=(Recipient(GONE, None, f"rfc822;{GONE}"), *to.envelope.recipients[1:]))
    )
    by = message("good@example.net")
    by = by._replace(envelope=by.envelope._replace(sender=GONE.upper()))
    about = message("good@example.net", subject=f"New user {GONE}", message_id=f"<1.{GONE}>")
    quoted = message("good@example.net")
    for new in (to, by, about):
        await finished(store, new)
    await finished(store, quoted, f"550 5.1.1 forwarded to <{GONE}>: no such user")
    kept = await finished(store, message("eve@example.net"))
    assert GONE in await dump(store)
    assert await store.erase_address(GONE) == 4
    text = (await dump(store)).casefold()
    assert GONE.casefold() not in text
    assert "eve@example.net" in text
    shown: Any = await store.get(kept)
    assert shown["recipients"][0]["address"] == "eve@example.net"
    assert await store.erase_address(GONE) == 0


@pytest.mark.parametrize("given", ["bob@bücher.example", "BOB@xn--bcher-kva.example"])
async def test_an_internationalised_domain_is_found_in_both_spellings(store: SqliteStore, given: str) -> None:
    for address in ("bob@bücher.example", "bob@xn--bcher-kva.example"):
        await finished(store, message(address))
    assert await store.erase_address(given) == 2


async def test_waiting_mail_keeps_its_addresses(store: SqliteStore) -> None:
    waiting = message(GONE)
    await store.put(waiting, claimed=False)
    assert await store.erase_address(GONE) == 0
    shown: Any = await store.get(waiting.id)
    assert shown["recipients"][0]["address"] == GONE
    await store.settle(Settlement(waiting.id, (RecipientUpdate(0, "bounced", "one", "550 no"),)))
    assert await store.erase_address(GONE) == 1
