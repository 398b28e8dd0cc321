"""Keys that sign although they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.doctor.examine import examine
from tests.config.test_private_keys import configured
from tests.doctor.nameserver import NameServer


@pytest.mark.parametrize(("wrong", "statuses"), [({"p": 2}, ["warn"]), ({}, [])], ids=["damaged", "sound"])
async def test_a_damaged_key_that_still_signs_is_a_warning(
    tmp_path: Path, wrong: dict[str, int], statuses: list[str]
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    async with NameServer({}) as server:
        found = await examine(configured(tmp_path, key, **wrong), {}, server.address)
    damaged = [one for one in found if "is damaged" in one.text]
    assert [one.status for one in damaged] == statuses
    assert all((one.area, one.subject) == ("config", "dkim") for one in damaged)
    assert all(f"{tmp_path}/s1.pem is damaged, though it still signs" in one.text for one in damaged)
