"""The sessions that an express lane keeps open: as configured, as a running relay has them, and in a burst."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.config.load import load
from relay.config.model import Config, Sessions
from relay.doctor import upstreams
from relay.doctor.finding import Finding
from relay.doctor.sessions import configured, running
from relay.store.sqlite import files
from relay.upstream.warm import WarmTarget
from tests.doctor.readyz import Readyz
from tests.support.relay import upstream_keys, write_config
from tests.support.upstream import DEFAULT_EXTENSIONS, Upstream

CHUNKING = [*DEFAULT_EXTENSIONS, "CHUNKING"]
NO_PIPELINING = [one for one in CHUNKING if one != "PIPELINING"]
NOWHERE = {"host": "127.0.0.1", "port": 1, "tls": "none"}


def config_with(folder: Path, upstream: dict[str, object], **keys: object) -> Config:
    return load(write_config(folder, {"esp": upstream}, **keys), {}).config


async def findings(config: Config, kind: str) -> list[Finding]:
    return [one for one in await upstreams.check(config, time.time()) if one.text.startswith(f"{kind}: ")]


@contextmanager
def held(config: Config) -> Iterator[None]:
    """The store is in use, as by a relay."""
    descriptor = files.lock(config.store)
    try:
        yield
    finally:
        os.close(descriptor)


def readyz(
    sessions: object, reason: object = "of the relay", lane: str = "otp", state: str = "up", is_open: object = 0
) -> str:
    warm = {"sessions": sessions, "reason": reason}
    health = {"state": state, "sessions": {"idle": is_open, "busy": 1, "opening": 9}, "warm": warm}
    return json.dumps({"ready": True, "lanes": {lane: {"upstreams": {"esp": health}}}})


@pytest.mark.parametrize(
    ("sessions", "text"),
    [
        ({}, "2 to 10 warm sessions (warm: auto, 1 and 1 ahead; more as bursts need them, up to sessions.max)"),
        ({"max": 2}, "2 warm sessions (warm: auto, and sessions.max is 2)"),
        ({"max": 1}, "1 warm session (warm: auto, and sessions.max is 1)"),
        ({"warm": 1}, "1 warm session (warm: 1)"),
        ({"warm": 3}, "3 warm sessions (warm: 3)"),
        ({"warm": 0}, "0 warm sessions (warm: 0, one is opened when there is mail)"),
    ],
)
def test_the_configuration_says_how_many_sessions_stay_open(sessions: dict[str, object], text: str) -> None:
    keys = Sessions.model_validate(sessions)
    shown = configured(keys)
    assert str(shown) == text
    target = WarmTarget(keys.warm, keys.max)
    assert shown.least == target.now(0.0, keys.max).sessions
    target.note(0.0, 1_000)
    assert shown.most == target.now(0.0, keys.max).sessions


@pytest.mark.parametrize(
    ("extensions", "depth", "text"),
    [
        (CHUNKING, 4, "carries up to 4 messages (sessions.depth), whole messages behind each other"),
        (DEFAULT_EXTENSIONS, 8, "carries up to 8 messages (sessions.depth), the next envelope behind the content"),
        (NO_PIPELINING, 4, "carries one message at a time (no PIPELINING)"),
        (CHUNKING, 1, "carries one message at a time (sessions.depth: 1)"),
    ],
)
async def test_a_burst_is_explained_by_what_the_upstream_offers(
    tmp_path: Path, extensions: list[str], depth: int, text: str
) -> None:
    async with Upstream(extensions) as upstream:
        config = config_with(tmp_path, upstream_keys(upstream, sessions={"depth": depth}))
        (found,) = await findings(config, "burst")
    assert (found.status, text in found.text) == ("ok", True)


async def test_each_express_lane_has_its_line_and_a_bulk_lane_has_none(tmp_path: Path) -> None:
    lanes = {
        "otp": {"upstreams": ["esp"], "expires": "10m"},
        "alerts": {"upstreams": ["other"], "expires": "10m"},
        "bulk": {"upstreams": ["bulky", "esp"], "expires": "2d"},
    }
    rules = [{"name": "page", "match": {"subject": "page*"}, "lane": "alerts", "upstreams": ["esp"]}]
    path = write_config(tmp_path, {"esp": NOWHERE, "other": NOWHERE, "bulky": NOWHERE}, lanes=lanes, rules=rules)
    found = await findings(load(path, {}).config, "sessions")
    assert [(one.subject, one.text.split()[2]) for one in found] == [
        ("esp", "otp"),
        ("esp", "alerts"),
        ("other", "alerts"),
    ]


async def test_an_upstream_of_bulk_lanes_alone_has_no_line_about_bursts(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        lanes = {"bulk": {"upstreams": ["esp"], "expires": "2d"}}
        config = config_with(tmp_path, upstream_keys(upstream), lanes=lanes, rules=[])
        found = await upstreams.check(config, time.time())
    assert [one.text.partition(" ")[0] for one in found] == ["greeting:", "TLS:", "AUTH:", "offers"]


async def test_a_running_relays_number_and_reason_stand_behind_the_configured_ones(tmp_path: Path) -> None:
    async with Readyz(503, readyz(7)) as port:
        config = config_with(tmp_path, NOWHERE, http={"address": f"127.0.0.1:{port}"})
        with held(config):
            (found,) = await findings(config, "sessions")
    assert (found.status, found.text.endswith("; the running relay 7 (of the relay)")) == ("ok", True)


@pytest.mark.parametrize(("warm", "status"), [("auto", "warn"), (0, "ok")])
async def test_an_upstream_that_lets_no_session_stay_open_is_a_warning(
    tmp_path: Path, warm: object, status: str
) -> None:
    async with Readyz(200, readyz(0, "on demand")) as port:
        keys = {**NOWHERE, "sessions": {"warm": warm}}
        config = config_with(tmp_path, keys, http={"address": f"127.0.0.1:{port}"})
        with held(config):
            (found,) = await findings(config, "sessions")
    assert (found.status, bool(found.hint)) == (status, status == "warn")
    assert found.text.endswith("; the running relay 0 (on demand)")


@pytest.mark.parametrize(
    "body",
    ["<html>", "[]", "{}", '{"lanes": []}', '{"lanes": {"otp": 1}}', '{"lanes": {"otp": {"upstreams": {"esp": 1}}}}',
     '{"lanes": {"otp": {"upstreams": {"esp": {"state": "up"}}}}}', readyz("3"), readyz(3, None)],
)  # fmt: skip
async def test_what_a_relay_does_not_state_is_left_out(tmp_path: Path, body: str) -> None:
    async with Readyz(200, body) as port:
        config = config_with(tmp_path, NOWHERE, http={"address": f"127.0.0.1:{port}"})
        with held(config):
            (found,) = await findings(config, "sessions")
    assert (found.status, "running relay" in found.text) == ("ok", False)


async def test_a_down_upstream_is_said_to_be_down(tmp_path: Path) -> None:
    async with Readyz(200, readyz(7, state="down", is_open=2)) as port:
        config = config_with(tmp_path, NOWHERE, http={"address": f"127.0.0.1:{port}"})
        with held(config):
            (found,) = await findings(config, "sessions")
    assert found.text.endswith("; for the running relay the upstream is down, and 3 are open")


@pytest.mark.parametrize(
    ("reply", "is_open", "status"),
    [
        ("421 4.7.0 too many connections", 4, "warn"),
        ("421 4.7.0 too many connections", "4", "warn"),  # the busy one counts
        ("554 5.7.1 go away", 4, "fail"),
    ],
)
async def test_an_upstream_that_has_all_the_sessions_it_allows_from_the_relay_is_no_failure(
    tmp_path: Path, reply: str, is_open: object, status: str
) -> None:
    async with Upstream(script={"greeting": reply}) as upstream, Readyz(200, readyz(7, is_open=is_open)) as port:
        config = config_with(tmp_path, upstream_keys(upstream), http={"address": f"127.0.0.1:{port}"})
        with held(config):
            found, _ = await upstreams.check(config, time.time())
    assert (found.status, reply in found.text) == (status, True)
    assert ("sessions of the running relay are open there" in found.text) == (status == "warn")


async def test_a_relay_on_another_store_is_not_asked(tmp_path: Path) -> None:
    async with Readyz(200, readyz(7)) as port:
        config = config_with(tmp_path, NOWHERE, http={"address": f"127.0.0.1:{port}"})
        (found,) = await findings(config, "sessions")
    assert "running relay" not in found.text


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:1", "systemd:http", "unix:nowhere.sock"])
def test_a_relay_that_can_not_be_asked_is_no_fault(tmp_path: Path, address: str) -> None:
    config = config_with(tmp_path, NOWHERE, http={"address": address, "token": "hunter2-token"})
    with held(config):
        assert running(config) == {}
