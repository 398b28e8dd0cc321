"""What an operator types and sees: `log`, `queue` and `report`, beside a running relay and without one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import RelayProcess, Said, command, get, metrics, post, time_line, until, write_config
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class World:
    """`ids`: sent, bounced and deferred ones in both lanes, by `lane state`, oldest first."""

    relay: RelayProcess
    config: Path
    upstream: Upstream
    ids: dict[str, str] = field(default_factory=dict)

    async def send(self, sender: str, to: str) -> str:
        async with Talk(self.relay.smtp) as app:
            return await app.submit(letter(sender=sender, subject="Your code: 482913"), sender, to)

    async def run(self, *arguments: str) -> Said:
        return await command(*arguments, "-c", self.config)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("operator")
    script: Any = {"rcpt": {"bounce@*": "550 5.1.1 no", "later@*": "451 4.2.0 later"}}
    async with Upstream(script=script) as upstream:
        lanes = {
            "otp": {"upstreams": ["one"], "retry": ["1h"], "expires": "50m"},
            "bulk": {"upstreams": ["one"], "retry": ["1h"], "expires": "2d"},
        }
        # The commands find a running relay by the configuration, so its HTTP address is a path.
        http = {"address": f"unix:{directory}/http.sock"}
        config = write_config(directory, {"one": upstream}, lanes=lanes, http=http, workers=1)
        async with RelayProcess(config) as relay:
            world = World(relay, config, upstream)
            for lane, sender in (("otp", OTP), ("bulk", BULK)):
                for to, state in (("user", "sent"), ("bounce", "bounced"), ("later", "deferred")):
                    message_id = await world.send(sender, f"{to}@{lane}.example.net")
                    world.ids[f"{lane} {state}"] = message_id
                    await reached(world, message_id, state)
            yield world


async def reached(world: World, message_id: str, *states: str) -> Any:
    """The message once it is in one of the states."""
    found: Any = None

    async def is_there() -> bool:
        nonlocal found
        found = await api(world, f"/api/messages/{message_id}")
        return found["recipients"][0]["state"] in states

    await until(is_there)
    return found


async def api(world: World, path: str) -> Any:
    connector = aiohttp.UnixConnector(world.relay.http_address.removeprefix("unix:"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://relay{path}") as answer:
        assert answer.status == 200
        return await answer.json()


def of_apps(world: World, rows: list[Any]) -> list[str]:
    """Their ids, bounces of the relay's own left out."""
    return [row["id"] for row in rows if row["id"] in world.ids.values()]


EVERY = ("bulk deferred", "bulk bounced", "bulk sent", "otp deferred", "otp bounced", "otp sent")
FILTERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lane": (("--lane", "otp"), ("otp deferred", "otp bounced", "otp sent")),
    "state": (("--state", "deferred"), ("bulk deferred", "otp deferred")),
    "to": (("--to", "User@bulk.EXAMPLE.net"), ("bulk sent",)),
    "two": (("--lane", "bulk", "--state", "bounced"), ("bulk bounced",)),
    "since": (("--since", "1h"), EVERY),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_log_lists_newest_first_by_its_filters(world: World, name: str) -> None:
    filters, expected = FILTERS[name]
    said = await world.run("log", *filters, "--json")
    assert (said.code, said.err) == (0, "")
    assert of_apps(world, said.objects) == [world.ids[key] for key in expected]
    assert "482913" not in said.out


async def test_log_for_people_shows_the_same(world: World) -> None:
    shown = await world.run("log", "--lane", "otp")
    assert [line.split()[0] for line in shown.out.splitlines() if line.split()[0] in world.ids.values()] == [
        world.ids[key] for key in ("otp deferred", "otp bounced", "otp sent")
    ]
    assert "482913" not in shown.out


async def test_log_keeps_to_its_limit(world: World) -> None:
    assert len((await world.run("log", "--limit", "2", "--json")).objects) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--to", "nobody@example.net"), 1),
        (("01ARZ3NDEKTSV4RRFFQ69G5FAV",), 1),
        (("--state", "lost"), 2),
    ],
)
async def test_log_ends_with_1_for_none_found_and_2_for_what_it_does_not_know(
    world: World, arguments: tuple[str, ...], code: int
) -> None:
    said = await world.run("log", *arguments)
    assert said.code == code
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


async def test_log_and_the_api_tell_the_same(world: World) -> None:
    message_id = world.ids["bulk bounced"]
    assert (await world.run("log", message_id, "--json")).document == await api(world, f"/api/messages/{message_id}")


async def test_queue_shows_what_waits(world: World) -> None:
    said = await world.run("queue", "--json")
    assert said.code == 0
    assert sorted(of_apps(world, said.objects)) == sorted([world.ids["otp deferred"], world.ids["bulk deferred"]])
    (waiting,) = (await world.run("queue", "--lane", "otp", "--json")).objects
    (recipient,) = waiting["recipients"]
    assert (recipient["state"], recipient["attempts"]) == ("deferred", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", recipient["next_at"])
    assert world.ids["bulk deferred"] in (await world.run("queue")).out


@pytest.mark.parametrize(("lane", "over_http"), [("otp", True), ("bulk", False)])
async def test_hold_release_retry_and_drop_on_a_running_relay(world: World, lane: str, over_http: bool) -> None:
    message_id = await world.send({"otp": OTP, "bulk": BULK}[lane], f"later@{lane}-acts.example.net")
    await reached(world, message_id, "deferred")

    async def act(action: str) -> list[str]:
        if over_http:
            status, document = await posted(world, f"/api/queue/{action}", {"ids": [message_id]})
            assert status == 200
        else:
            said = await world.run("queue", action, message_id, "--json")
            document = said.document
            assert said.code == (0 if document["changed"] else 1), said.err
        changed: list[str] = document["changed"]
        return changed

    assert await act("hold") == [message_id]
    await reached(world, message_id, "held")
    assert await act("retry") == []
    assert await act("release") == [message_id]
    await reached(world, message_id, "deferred")
    assert await act("retry") == [message_id]
    await reached(world, message_id, "deferred")
    assert await act("drop") == [message_id]
    dropped = await reached(world, message_id, "bounced")
    assert "operator" in dropped["recipients"][0]["reply"]
    assert await act("drop") == []


async def posted(world: World, path: str, body: object) -> tuple[int, Any]:
    connector = aiohttp.UnixConnector(world.relay.http_address.removeprefix("unix:"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://relay{path}", json=body) as answer,
    ):
        return answer.status, await answer.json()


async def test_an_action_takes_a_lane_or_all_and_never_everything_by_accident(world: World) -> None:
    message_id = await world.send(OTP, "later@lane.example.net")
    await reached(world, message_id, "deferred")
    said = await world.run("queue", "hold", "--lane", "otp", "--json")
    assert message_id in said.document["changed"]
    assert world.ids["bulk deferred"] not in said.document["changed"]
    assert message_id in (await world.run("queue", "release", "--all", "--json")).document["changed"]
    for wrong in ((), ("--all", "--lane", "otp"), ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "--all")):
        assert (await world.run("queue", "drop", *wrong)).code == 2
    assert (await world.run("queue", "drop", "01ARZ3NDEKTSV4RRFFQ69G5FAV")).code == 1
    assert (await world.run("queue", "drop", message_id)).code == 0


async def test_a_retry_sends_at_once_what_an_upstream_takes_again(world: World) -> None:
    message_id = await world.send(BULK, "later@again.example.net")
    await reached(world, message_id, "deferred")
    script: Any = {"rcpt": {"bounce@*": "550 5.1.1 no", "later@*.net": None}}
    before, world.upstream.playbook.script = world.upstream.playbook.script, script
    try:
        assert (await world.run("queue", "retry", message_id)).code == 0
        await reached(world, message_id, "sent")
    finally:
        world.upstream.playbook.script = before


async def test_report_counts_by_lane_upstream_and_provider(world: World) -> None:
    said = await world.run("report", "--json", "--since", "1h")
    assert said.code == 0
    report = said.document
    lanes = {line["lane"]: line for line in report["lanes"]}
    assert lanes["otp"]["states"]["sent"] >= 1
    assert lanes["otp"]["states"]["bounced"] >= 1
    assert set(lanes["otp"]["bands"]) == {"excellent", "good", "acceptable", "poor", "failed"}
    assert lanes["otp"]["bands"]["excellent"] >= 1
    for line in (*report["lanes"], *report["lines"]):
        assert {"lane", "upstream", "provider", "p50_ms", "p95_ms", "p99_ms"} <= set(line)
    groups = {(line["lane"], line["upstream"], line["provider"]) for line in report["lines"]}
    assert ("otp", "one", "otp.example.net") in groups
    assert await api(world, "/api/report?since=1h") | {"since": ""} == report | {"since": ""}
    assert "otp" in (await world.run("report")).out


async def test_everything_works_on_a_stopped_relay(tmp_path: Path) -> None:
    script: Any = {"rcpt": {"later@*": "451 4.2.0 later"}}
    async with Upstream(script=script) as upstream:
        lanes = {
            "otp": {"upstreams": ["one"], "retry": ["1h"], "expires": "50m"},
            "bulk": {"upstreams": ["one"], "retry": ["1h"], "expires": "2d"},
        }
        config = write_config(tmp_path, {"one": upstream}, lanes=lanes, workers=1)
        ids = {}
        async with RelayProcess(config) as relay:
            for name, sender in (("otp", OTP), ("bulk", BULK), ("otp dropped", OTP), ("bulk dropped", BULK)):
                async with Talk(relay.smtp) as app:
                    ids[name] = await app.submit(letter(sender=sender), sender, "later@example.net")
                await time_line(relay, ids[name], "deferred")
            assert await relay.terminate() == 0

        async def run(*arguments: str) -> Said:
            return await command(*arguments, "-c", config)

        assert {row["id"] for row in (await run("log", "--json")).objects} == set(ids.values())
        assert {row["id"] for row in (await run("queue", "--json")).objects} == set(ids.values())
        for name, message_id in ids.items():
            action = "drop" if name.endswith("dropped") else "hold"
            said = await run("queue", action, message_id, "--json")
            assert (said.code, said.document) == (0, {"changed": [message_id]}), said.err
        assert (await run("log", ids["otp dropped"], "--json")).document["recipients"][0]["state"] == "bounced"
        assert (await run("log", ids["bulk"], "--json")).document["recipients"][0]["state"] == "held"
        upstream.set_script({})
        async with RelayProcess(config) as relay:
            assert (await metrics(relay)).value("relay_queue_recipients", lane="otp", state="held") == 1
            answer = await post(relay, "/api/queue/release", {"all": True})
            assert sorted(answer.document["changed"]) == sorted([ids["otp"], ids["bulk"]])
            for name in ("otp", "bulk"):
                await time_line(relay, ids[name], "sent")
            assert (await get(relay, "/api/queue")).document["messages"] == []


async def test_the_commands_beside_no_store_say_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"one": {"host": "127.0.0.1", "port": 9, "tls": "none"}}, workers=0)
    for arguments in (["log"], ["queue"], ["report"], ["log", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]):
        said = await command(*arguments, "-c", config)
        assert said.code == 1, arguments
        assert len(said.err.splitlines()) == 1
        assert str(tmp_path / "relay.db") in said.err
    assert {path.name for path in tmp_path.iterdir()} == {"relay.yaml"}
