"""`explain` says which upstream is first in a lane that prefers the fastest, and why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from relay.store.sqlite import files
from tests.doctor.readyz import Readyz
from tests.support.relay import command, write_config

CODE = b"From: a@auth.example.com\r\nTo: u@gmail.com\r\nSubject: hi\r\n\r\nhello\r\n"
LANES = {
    "otp": {"upstreams": ["one", "two"], "retry": ["1s"], "expires": "10m", "prefer": "fastest"},
    "bulk": {"upstreams": ["two"], "retry": ["1m"], "expires": "2d"},
}


def upstream(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "tls": "none"}


def stated(p95_ms: float, state: str = "up") -> dict[str, Any]:
    figures = {"provider": "gmail", "to": "delivered", "p95_ms": p95_ms, "samples": 30}
    return {"state": state, "p95": [figures, {**figures, "provider": "gmx", "p95_ms": 1.0}, {"junk": 1}]}


@pytest.mark.parametrize(
    ("one", "two", "line"),
    [
        (
            stated(4200.0),
            stated(1900.0),
            "two first: the fastest to gmail (p95 to the delivered event: two 1.9 s of 30, one 4.2 s of 30)",
        ),
        (
            stated(4200.0),
            stated(1900.0, "down"),
            "one first: the fastest to gmail (p95 to the delivered event: one 4.2 s of 30)",
        ),
        ({"state": "up"}, {"state": "up"}, "one first: the relay learns which upstream is the fastest to gmail"),
    ],
)
async def test_explain_shows_the_order_that_a_running_relay_has_learnt(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any], line: str
) -> None:
    ready = {"lanes": {"otp": {"upstreams": {"one": one, "two": two}}}}
    async with Readyz(200, json.dumps(ready)) as port:
        http = {"address": f"127.0.0.1:{port}"}
        configured = write_config(tmp_path, {"one": upstream(9), "two": upstream(10)}, lanes=LANES, http=http)
        descriptor = files.lock(tmp_path / "relay.db")
        try:
            text = await command("explain", "-c", configured, "-", given=CODE)
        finally:
            os.close(descriptor)
    assert f"prefer     {line}" in text.out.splitlines()


async def test_explain_without_a_relay_says_that_it_learns_and_of_other_lanes_nothing(tmp_path: Path) -> None:
    configured = write_config(tmp_path, {"one": upstream(9), "two": upstream(10)}, lanes=LANES)
    code = await command("explain", "-c", configured, "--json", "-", given=CODE)
    assert code.document["prefer"] == {
        "provider": "gmail", "order": ["one", "two"], "why": "learning", "to": "sent", "p95": {}, "explored": 0.05,
    }  # fmt: skip
    text = await command("explain", "-c", configured, "-", given=CODE.replace(b"gmail.com", b"example.net"))
    assert "is the fastest to the mailbox providers without a name of their own\n" in text.out
    bulk = await command("explain", "-c", configured, "--json", "-", "--from", "x@example.org", given=CODE[24:])
    assert bulk.document["prefer"] is None
