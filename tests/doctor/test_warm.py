"""Numbers of warm sessions that don't suit an upstream: by configuration, documentation, and by trying."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.config.model import Config
from relay.doctor import upstreams, warm
from relay.doctor.finding import Finding
from tests.doctor.readyz import Readyz
from tests.doctor.test_sessions import held, readyz
from tests.support.relay import upstream_keys, write_config
from tests.support.script import Script
from tests.support.upstream import BySession, Upstream

NOWHERE = {"host": "127.0.0.1", "port": 1, "tls": "none"}
OTP = {"otp": {"upstreams": ["esp"], "expires": "10m"}}
BULK = {"bulk": {"upstreams": ["esp"], "expires": "2d"}}


def config_with(folder: Path, esp: dict[str, Any], sessions: dict[str, object], **keys: object) -> Config:
    keys = {"lanes": OTP, "default_lane": "otp", "rules": [], **keys}
    return load(write_config(folder, {"esp": {**esp, "sessions": sessions}}, **keys), {}).config


def checked(config: Config) -> list[Finding]:
    lanes = [name for name, lane in config.lanes.items() if lane.express]
    return list(warm.check("esp", config, lanes, {}))


@pytest.mark.parametrize(
    ("sessions", "lanes", "said"),
    [
        ({}, OTP | BULK, None),
        ({"warm": 2}, OTP | BULK, None),
        ({"warm": 4, "max": 4}, OTP, None),
        ({"warm": 0}, BULK, None),
        ({"warm": 0}, OTP | BULK, "warm: 0: no session is kept open, so codes of lane otp often wait for a new one"),
        ({"warm": 4, "max": 4}, OTP | BULK, "warm: 4 of 4 sessions (sessions.max) are kept for codes: lane bulk has"),
    ],
)
def test_a_number_that_does_not_suit_the_lanes_is_a_warning(
    tmp_path: Path, sessions: dict[str, object], lanes: dict[str, Any], said: str | None
) -> None:
    found = checked(config_with(tmp_path, NOWHERE, sessions, lanes=lanes, default_lane=next(iter(lanes))))
    assert [(one.id, one.status) for one in found] == ([] if said is None else [("upstream-warm", "warn")])
    assert all(one.text.startswith(str(said)) and one.hint for one in found)


@pytest.mark.parametrize(
    ("preset", "sessions", "hint"),
    [
        ("postmark", {}, None),
        ("postmark", {"warm": 10}, None),
        ("postmark", {"warm": 12, "max": 20}, "set sessions.warm: 10"),
        ("postmark", {"max": 40}, "set sessions.max: 10"),
        ("sendgrid", {"warm": 12, "max": 20}, None),  # documents no small number
    ],
)
def test_more_than_the_provider_documents_is_a_warning(
    tmp_path: Path, preset: str, sessions: dict[str, object], hint: str | None
) -> None:
    found = checked(config_with(tmp_path, {"preset": preset, "password": "hunter2"}, sessions))
    assert [one.hint for one in found] == ([] if hint is None else [hint])
    assert all(f"{preset} documents 10 at most" in one.text for one in found)


@pytest.mark.parametrize("stated", [2, 5])
async def test_a_fixed_number_that_the_running_relay_can_not_keep_is_a_warning(tmp_path: Path, stated: int) -> None:
    async with Upstream() as upstream, Readyz(200, readyz(stated, "configured; the upstream allows 2")) as port:
        http = {"address": f"127.0.0.1:{port}"}
        config = config_with(tmp_path, upstream_keys(upstream), {"warm": 5}, http=http)
        with held(config):
            found = [one for one in await upstreams.check(config, time.time()) if one.id == "upstream-warm"]
    assert len(upstream.sessions) == 1  # none is tried beside a relay
    texts = ["warm: 5, but the running relay keeps 2 for lane otp (configured; the upstream allows 2)"]
    assert [one.text for one in found] == (texts if stated == 2 else [])


async def test_without_a_relay_so_many_sessions_are_opened_and_closed(tmp_path: Path) -> None:
    async with Upstream(auth={"relay": "hunter2"}) as upstream:
        config = config_with(tmp_path, upstream_keys(upstream), {"warm": 4})
        found = [one for one in await upstreams.check(config, time.time()) if one.id == "upstream-warm"]
        await upstream.wait_until(lambda: upstream.open == 0)
    assert [one.text for one in found] == ["warm: 4 sessions can be open at once, as lane otp asks for"]
    assert upstream.peak == 4
    assert {verb for session in upstream.sessions for verb in session.verbs} == {"EHLO", "AUTH", "RSET", "QUIT"}


async def test_sessions_that_are_refused_are_counted_and_no_credential_is_shown(tmp_path: Path) -> None:
    refusal = "421 4.7.0 too many connections of hunter2-password"
    script: Script = {"greeting": BySession([None, None, refusal, refusal, refusal])}
    async with Upstream(auth={"relay": "hunter2-password"}, script=script) as upstream:
        config = config_with(tmp_path, upstream_keys(upstream), {"warm": 5})
        (found,) = [one for one in await upstreams.check(config, time.time()) if one.id == "upstream-warm"]
    assert found.status == "warn"
    assert found.text == (
        "warm: 5 for lane otp, but only 2 sessions could be opened at once: "
        "greeting: 421 4.7.0 too many connections of ***"
    )
    assert found.hint == "set sessions.warm: 2, or ask the upstream for more"


async def test_one_session_and_a_number_that_follows_bursts_are_not_tried(tmp_path: Path) -> None:
    for sessions in ({}, {"warm": 1}):
        async with Upstream() as upstream:
            found = await upstreams.check(config_with(tmp_path, upstream_keys(upstream), dict(sessions)), time.time())
        assert len(upstream.sessions) == 1
        assert "upstream-warm" not in {one.id for one in found}


async def test_a_large_number_is_tried_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "MOST_OPENED", 3)
    async with Upstream() as upstream:
        await upstreams.check(config_with(tmp_path, upstream_keys(upstream), {"warm": 9}), time.time())
    assert len(upstream.sessions) == 3
