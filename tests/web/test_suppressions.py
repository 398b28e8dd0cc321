"""`/api/suppressions` and `/api/erase` over real files: who may change what, pages, bad input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from relay.clock import Clock
from relay.observe.metrics import Metrics
from relay.policy.suppression import BadAddress, Change, Suppressions
from relay.service.suppressions import SuppressionKeeper
from relay.store.sqlite.store import SqliteStore
from relay.store.suppressions import Suppression, SuppressionQuery, WantedSuppression
from relay.supervise import Supervisor
from relay.web.backend import Backend
from tests.support.relay import until
from tests.web.conftest import TOKEN, serve

PATH = "/api/suppressions"
DAY = 86_400.0


class Lanes:
    """The rest of a relay, as the keeper uses it, and what its workers were told."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.clock, self.suppressions = store, Clock(), Suppressions()
        self.supervisor = Supervisor(lambda name, error: None)
        self.told: list[Change] = []
        lane = SimpleNamespace(express=True, suppress="hard", suppress_for_s=7 * DAY)
        self.log = SimpleNamespace(addresses="full", trouble=lambda *_: None)
        self.config = SimpleNamespace(
            lanes={"otp": lane, "bulk": SimpleNamespace(express=False, suppress="all", suppress_for_s=None)},
            log=self.log,
            store=store.state.path,
        )

    async def load_suppressions(self, path: Any) -> None:
        from relay.store.sqlite.suppressions import load

        self.suppressions.begin(*load(path))

    def notify(self, _kind: str, change: Change) -> None:
        self.told.append(change)


@pytest.fixture
def lanes(store: SqliteStore) -> Lanes:
    return Lanes(store)


@pytest.fixture
async def keeper(lanes: Lanes) -> AsyncIterator[SuppressionKeeper]:
    made = SuppressionKeeper(cast(Any, lanes), cast(Any, lanes), cast(Any, lanes))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def url(backend: Backend, keeper: SuppressionKeeper) -> AsyncIterator[str]:
    server, base = await serve(replace(backend, suppressions=keeper), TOKEN)
    yield base
    await server.stop()


@pytest.fixture
async def api() -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_what_is_posted_is_listed_counts_at_once_and_is_told_to_workers(
    api: aiohttp.ClientSession, url: str, lanes: Lanes
) -> None:
    lane = lanes.config.lanes["otp"]
    for life in ("30d", None):
        body = {"address": "Bob@example.net", "reason": "left us", "for": life}
        async with api.post(url + PATH, json=body) as answer:
            assert (answer.status, (await answer.json())["changed"]) == (200, ["Bob@example.net"])
        assert lanes.suppressions.why("bob@example.net", lane, lanes.clock.now()) == "left us"
    async with api.get(f"{url}{PATH}?address=BOB@example.net") as answer:
        (entry,) = await answer.json()
    assert entry == {**entry, "address": "Bob@example.net", "cause": "manual", "reason": "left us", "until": None}
    async with api.delete(f"{url}{PATH}?address=bob@example.net") as answer:
        assert (answer.status, (await answer.json())["changed"]) == (200, ["bob@example.net"])
    assert lanes.suppressions.why("bob@example.net", lane, lanes.clock.now()) is None
    assert [(len(one.added), len(one.removed)) for one in lanes.told] == [(1, 0), (1, 0), (0, 1)]
    async with api.delete(f"{url}{PATH}?address=bob@example.net") as answer:
        assert answer.status == 404


async def test_a_list_is_shown_in_pages(api: aiohttp.ClientSession, url: str) -> None:
    everybody = [f"user{number}@example.net" for number in range(450)]
    async with api.post(url + PATH, json=[{"address": one} for one in everybody]) as answer:
        assert (await answer.json())["changed"] == everybody
    found: list[str] = []
    page: Any = f"{url}{PATH}?cause=manual&limit=200"
    while page is not None:
        async with api.get(page) as answer:
            found += [entry["address"] for entry in await answer.json()]
            page = answer.links["next"]["url"] if "next" in answer.links else None
    assert sorted(found) == sorted(everybody)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"7", b'{"address": 7}', b'{"address": "bob"}', b'{"address": "b@x.test", "for": "soon"}',
        b'{"address": "b@x.test", "for": 30}', b'{"address": "b@x.test", "for": "1d", "until": "2030-01-01T00:00:00Z"}',
        b'{"address": "b@x.test", "until": 5}', b'{"address": "b@x.test", "reason": "a\\r\\nb"}',
        b'{"address": "b@x.test", "reason": ["a"]}', b'{"address": "b@x.test", "cause": "spite"}', b'{"reason": "a"}',
        b'["b@x.test"]', b'{"address": "*@x.test"}',
        b'{"address": "b@x.test", "until": "2020-01-01T00:00:00Z"}',
        b'{"address": "b@x.test", "cause": ["complaint"]}',
        b'{"address": "b@x.test", "reason": "' + b"x" * 501 + b'"}', b"[" * 100_000,
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_400_and_changes_nothing(
    api: aiohttp.ClientSession, url: str, body: bytes
) -> None:
    async with api.post(url + PATH, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400
    async with api.get(url + PATH) as answer:
        assert await answer.json() == []


@pytest.mark.parametrize("asked", ["cause=spite", "limit=0", "after=x", "after=1_99999999999999999999", "to=b@x.test"])
async def test_an_unknown_filter_is_400(api: aiohttp.ClientSession, url: str, asked: str) -> None:
    async with api.get(f"{url}{PATH}?{asked}") as answer:
        assert answer.status == 400


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 415),
        ("POST", {"Content-Type": "text/plain"}, 415),
        ("POST", {"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ("DELETE", {"Content-Type": "text/plain"}, 415),
        ("DELETE", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Content-Type": "application/json", "Authorization": "Bearer wrong"}, 401),
        ("DELETE", {"Authorization": "Bearer wrong"}, 401),
        ("GET", {"Authorization": "Bearer wrong"}, 401),
    ],
)
async def test_no_page_of_another_site_can_ask(
    api: aiohttp.ClientSession, url: str, method: str, headers: dict[str, str], status: int
) -> None:
    data = b'{"address": "b@x.test"}' if method == "POST" else None
    skip = ["Content-Type"]
    where = f"{url}{PATH}?address=b@x.test"
    async with api.request(method, where, data=data, headers=headers, skip_auto_headers=skip) as answer:
        assert answer.status == status


@pytest.mark.parametrize(("lane", "lasts_s"), [("otp", 7 * DAY), ("bulk", None), ("removed", None)])
async def test_a_bounce_of_an_express_lane_ends_with_its_suppress_for(
    keeper: SuppressionKeeper, store: SqliteStore, lane: str, lasts_s: float | None
) -> None:
    keeper.report(BadAddress(lane, "bob@example.net", "5.1.1", "one", 1_000_000.0))
    await keeper.stop()
    (row,) = await listed(keeper)
    assert (row.address, row.reason, row.upstream) == ("bob@example.net", "5.1.1", "one")
    assert row.until == (None if lasts_s is None else 1_000_000.0 + lasts_s)


async def test_an_event_that_comes_twice_changes_nothing_the_second_time(keeper: SuppressionKeeper) -> None:
    for is_new in (True, False):
        added = keeper.add("bob@example.net", "complaint", "abuse", upstream="one", at=5.0, lane="otp")
        assert await added is is_new


async def test_a_clock_that_is_ahead_makes_no_bounce_count_for_longer(keeper: SuppressionKeeper, lanes: Lanes) -> None:
    now = lanes.clock.now()
    await keeper.add("bob@example.net", "bounce", "5.1.1", at=now + 900 * DAY, lane="otp")
    (row,) = await listed(keeper)
    assert row.until is not None
    assert row.until <= lanes.clock.now() + 7 * DAY


async def test_once_hashed_addresses_are_asked_for_only_those_given_by_hand_are_readable(lanes: Lanes) -> None:
    for addresses, known in (("full", 2), ("hashed", 1)):
        lanes.log.addresses = addresses
        keeper = SuppressionKeeper(cast(Any, lanes), cast(Any, lanes), cast(Any, lanes))
        await keeper.start()
        await keeper.add("bob@example.net", "complaint", "abuse", at=5.0, lane="otp")
        await keeper.add_by_hand([WantedSuppression("eve@example.net")])

        async def is_known(keeper: SuppressionKeeper = keeper, known: int = known) -> bool:
            return sum(row.address is not None for row in await listed(keeper)) == known

        await until(is_known)
        await keeper.stop()


async def listed(keeper: SuppressionKeeper) -> list[Suppression]:
    return list(await keeper.listing(SuppressionQuery()))


def test_the_counters_begin_at_zero() -> None:
    metrics = Metrics()
    metrics.begin({"otp": ["one"]})
    names = {name: value for family in metrics.numbers() for name, _, value in family.samples}
    assert names["relay_suppressed_total"] == 0


async def test_an_address_that_was_erased_is_suppressed_without_being_kept(keeper: SuppressionKeeper) -> None:
    assert await keeper.add("bob@example.net", "complaint", "complained", unnamed=True)
    (row,) = await listed(keeper)
    assert row.address is None
    assert keeper.hash_of("bob@example.net") == row.key & ~3
