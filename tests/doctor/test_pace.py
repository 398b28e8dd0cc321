"""The time to expect for a code: by round trips, measured over real sockets that answer late."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.config.model import Config
from relay.doctor import upstreams
from relay.doctor.finding import About, Finding
from relay.doctor.pace import Pace, finding, of_api, round_trips
from relay.upstream.sessions.kept import Opening
from tests.doctor.readyz import Readyz
from tests.doctor.test_sessions import held, readyz
from tests.support.api import ApiServer, Reply
from tests.support.relay import upstream_keys, write_config
from tests.support.script import Script
from tests.support.tls import Certificates
from tests.support.upstream import DEFAULT_EXTENSIONS, Delay, Upstream
from tests.upstream.test_transaction import CONTENT, MODES, Server, transaction

PLACE = {"host": "mx.example.net"}
TEXT = re.compile(
    r"(?:API: )?a code takes about ([\d.]+) ms over a kept (?:session|connection) "
    r"\((\d) round trips? of ([\d.]+) ms\), ([\d.]+) ms over a new one"
)
LATENCY_S = 0.03


def lanes_with(objective: dict[str, object] | None = None, **keys: object) -> dict[str, Any]:
    otp = {"upstreams": ["esp"], "expires": "10m", **({"objective": objective} if objective else {}), **keys}
    return {"otp": otp, "bulk": {"upstreams": ["esp"], "expires": "2d"}}


def config_with(folder: Path, esp: dict[str, Any], lanes: dict[str, Any] | None = None, **keys: object) -> Config:
    return load(write_config(folder, {"esp": esp}, lanes=lanes or lanes_with(), **keys), {}).config


async def expected(config: Config) -> Finding:
    (found,) = [one for one in await upstreams.check(config, time.time()) if one.id == "upstream-otp-time"]
    return found


@pytest.mark.parametrize("name", MODES)
def test_a_transaction_takes_as_many_round_trips_as_are_said(name: str) -> None:
    running, server, turns = transaction(MODES[name], "a@example.net"), Server(250, [250], 354, 250), 0
    out = running.begin()
    while not running.done:
        if running.wants_content:
            out += b"".join(running.send_content([CONTENT]))
        turns += 1
        out = b"".join([running.receive(reply) for reply in server.feed(out)])
    assert round_trips(MODES[name]) == turns


@pytest.mark.parametrize(
    ("extensions", "trips"),
    [
        ([*DEFAULT_EXTENSIONS, "CHUNKING"], 1),
        (DEFAULT_EXTENSIONS, 2),
        (["CHUNKING", "SIZE"], 4),
        (["SIZE"], 4),
    ],
)
async def test_what_an_upstream_offers_decides_how_many_round_trips_a_code_takes(
    tmp_path: Path, extensions: list[str], trips: int
) -> None:
    async with Upstream(extensions, latency_s=LATENCY_S) as upstream:
        found = await expected(config_with(tmp_path, upstream_keys(upstream)))
    said = TEXT.match(found.text)
    assert said is not None, found.text
    kept, number, each, new = map(float, said.groups())
    assert (found.status, number) == ("ok", trips)
    assert each >= 1000 * LATENCY_S - 1
    assert kept >= trips * (each - 1)
    assert new > kept


async def test_an_api_takes_one_round_trip_and_is_asked_nothing(tmp_path: Path, certificates: Certificates) -> None:
    async with ApiServer(Reply(), tls=certificates.good) as server:
        api = {"kind": "resend", "url": server.url, "key": "hunter2"}
        found = await expected(config_with(tmp_path, {"via": "api", "api": api, "ca_file": str(certificates.ca_file)}))
    said = TEXT.match(found.text)
    assert said is not None, found.text
    assert (found.status, said[2], server.requests) == ("ok", "1", [])


@pytest.mark.parametrize(
    ("opening", "secured", "round_trip_ms"),
    [
        (Opening(connect=20.0, tls=25.0), True, 20.0),
        (Opening(connect=90.0, tls=25.0), True, 25.0),  # a look-up of the name was in it
        (Opening(connect=20.0), False, 20.0),
    ],
)
def test_the_quicker_of_connecting_and_tls_is_near_a_round_trip(
    opening: Opening, secured: bool, round_trip_ms: float
) -> None:
    pace = of_api(opening, secured=secured)
    assert (pace.round_trip_ms, pace.opening_ms) == (round_trip_ms, opening.connect + opening.tls)


@pytest.mark.parametrize(
    ("within", "kept", "status"),
    [("1s", True, "ok"), ("100ms", True, "ok"), ("40ms", True, "warn"), ("100ms", False, "warn"), ("1s", False, "ok")],
)
def test_a_time_over_the_objective_of_a_lane_is_a_warning(tmp_path: Path, within: str, kept: bool, status: str) -> None:
    config = config_with(tmp_path, PLACE, lanes_with({"within": within, "share": "99%"}))
    pace = Pace(round_trips=2, round_trip_ms=25.0, opening_ms=260.0)
    found = finding(About("upstream", "esp"), config, pace, ["otp"], api=False, kept=kept)
    assert found.text.startswith(
        "a code takes about 50 ms over a kept session (2 round trips of 25 ms), 310 ms over a new one"
    )
    assert (found.status, "over the objective of lane otp" in found.text) == (status, status == "warn")


@pytest.mark.parametrize(("warm", "stated", "status"), [("auto", 2, "ok"), ("auto", 0, "warn"), (0, None, "warn")])
async def test_without_kept_sessions_the_time_over_a_new_one_is_what_counts(
    tmp_path: Path, warm: object, stated: int | None, status: str
) -> None:
    slow: Script = {"greeting": Delay(0.5)}  # a command and its reply take a millisecond or so
    async with Upstream(script=slow) as upstream, Readyz(200, readyz(stated or 0, "on demand")) as port:
        esp = upstream_keys(upstream, sessions={"warm": warm})
        lanes = lanes_with({"within": "400ms", "share": "99%"})
        config = config_with(tmp_path, esp, lanes, http={"address": f"127.0.0.1:{port}"})
        if stated is None:
            found = await expected(config)
        else:
            with held(config):
                found = await expected(config)
    assert found.status == status, found.text


async def test_an_upstream_of_bulk_lanes_alone_has_no_time_for_codes(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        lanes = {"bulk": {"upstreams": ["esp"], "expires": "2d"}}
        config = config_with(tmp_path, upstream_keys(upstream), lanes, rules=[])
        found = await upstreams.check(config, time.time())
    assert "upstream-otp-time" not in {one.id for one in found}
