"""The store in memory does what every store must."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from relay.store.base import Store
from tests.store.build import NOW
from tests.store.contract import StoreContract
from tests.store.memory import MemoryStore


class TestMemory(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MemoryStore(now=lambda: NOW)
        yield store
        await store.close()
