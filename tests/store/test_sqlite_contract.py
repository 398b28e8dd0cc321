"""The SQLite store does what every store must."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store.base import Store
from relay.store.sqlite.store import open_store
from tests.store.build import NOW
from tests.store.contract import StoreContract


class TestSqlite(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await open_store(tmp_path / "relay.db", now=lambda: NOW)
        yield store
        await store.close()
