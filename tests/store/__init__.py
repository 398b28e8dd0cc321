"""The store. What any implementation must do stands in `contract`, whose assertions tell what they compared."""

import pytest

pytest.register_assert_rewrite(
    "tests.store.build", "tests.store.contract", "tests.store.contract_log", "tests.store.contract_queue"
)
