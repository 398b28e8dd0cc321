"""SIGHUP and SIGTERM under way: nothing that runs is dropped, nothing that was taken is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.app import BULK, OTP, QUEUED, Talk, letter
from tests.support.processes import workers
from tests.support.relay import (
    RelayProcess,
    command,
    get,
    metrics,
    post,
    time_line,
    until,
    until_logged,
    upstream_keys,
    write_config,
)
from tests.support.upstream import Delay, Hang, Upstream


async def reloaded(relay: RelayProcess, *, success: bool = True) -> None:
    """SIGHUP, and its outcome, which line and metric tell alike."""
    line = f"event=reloaded success={str(success).lower()}"
    before = relay.stderr.count(line)
    relay.send(signal.SIGHUP)

    async def said() -> bool:
        return relay.stderr.count(line) > before

    await until(said)
    assert (await metrics(relay)).value("relay_config_reload_success") == float(success)


def changed(config: Path, **keys: Any) -> None:
    """The configuration with these top-level keys."""
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **keys}))


async def test_a_reload_changes_what_it_can_and_drops_nothing(tmp_path: Path) -> None:
    async with Upstream() as old, Upstream() as new:
        config = write_config(tmp_path, {"old": old}, workers=1)
        keys = yaml.safe_load(config.read_text())
        async with RelayProcess(config) as relay, Talk(relay.smtp) as session, Talk(relay.smtp) as inside:
            await inside.envelope(BULK, "inside@example.net")
            inside.send(b"Subject: in the middle\r\n")
            lanes = {**keys["lanes"], "fresh": {"upstreams": ["new"], "retry": ["1s"], "expires": "10m"}}
            rule = {"name": "fresh-rule", "match": {"recipient": "*@fresh.example"}, "lane": "fresh"}
            changed(
                config,
                listen=[*keys["listen"], {"address": f"unix:{tmp_path}/more.sock"}],
                upstreams={**keys["upstreams"], "new": upstream_keys(new)},
                lanes=lanes,
                rules=[rule, *keys["rules"]],
                limits={"message_size": "5KB"},
            )
            await reloaded(relay)

            # The session in the middle of DATA goes on, and its message is routed by the rules of now.
            inside.send(b"\r\nbody\r\n.\r\n")
            found = QUEUED.fullmatch(await inside.reply())
            assert found
            await time_line(relay, found[1], "sent")
            # The session at rest goes on too, and knows the new rule, lane, upstream and limit.
            fresh = await session.submit(letter(), BULK, "user@fresh.example")
            shown = await time_line(relay, fresh, "sent")
            assert (shown["lane"], shown["rule"], shown["recipients"][0]["upstream"]) == ("fresh", "fresh-rule", "new")
            assert (await session.ask(f"MAIL FROM:<{BULK}> SIZE=5001")).startswith("552")
            async with Talk(f"{tmp_path}/more.sock") as app:
                await time_line(relay, await app.submit(letter(), OTP, "user@example.net"), "sent")
            assert (await metrics(relay)).value("relay_upstream_up", upstream="new") == 1

            # And back: what is gone is gone, what is left goes on.
            changed(config, **keys)
            config.write_text(yaml.safe_dump(keys))
            await reloaded(relay)
            with pytest.raises(OSError):
                async with Talk(f"{tmp_path}/more.sock"):
                    pass
            again = await session.submit(letter(), BULK, "user@fresh.example")
            assert (await time_line(relay, again, "sent"))["lane"] == "bulk"
            assert await relay.terminate() == 0


async def test_a_reload_that_fails_keeps_the_old_configuration_running(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=0)
        good = config.read_text()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            busy = f"127.0.0.1:{taken.getsockname()[1]}"
            broken: dict[str, Any] = {
                "no_such_key": {"no_such_key": 1},
                "key_file": {"dkim": [{"domain": "example.com", "keys": [{"selector": "s", "key_file": "none.pem"}]}]},
                busy: {"rules": [], "listen": [*yaml.safe_load(good)["listen"], {"address": busy}]},
            }
            async with RelayProcess(config) as relay, Talk(relay.smtp) as session:
                for named, keys in broken.items():
                    changed(config, **keys)
                    await reloaded(relay, success=False)
                    refusal = [line for line in relay.stderr.splitlines() if "event=reload_refused" in line][-1]
                    assert named in refusal
                    assert re.search(rf"{config}:[0-9]+:[0-9]+: [a-z_]+", refusal)
                    assert "Traceback" not in relay.stderr
                    shown = await time_line(relay, await session.submit(letter(), OTP, "user@example.net"), "sent")
                    assert (shown["lane"], shown["rule"]) == ("otp", "auth-sender")
                    config.write_text(good)
                config.write_text("- not\n a: [mapping")
                await reloaded(relay, success=False)
                config.unlink()
                await reloaded(relay, success=False)
                config.write_text(good)
                await reloaded(relay)
                await time_line(relay, await session.submit(letter(), OTP, "user@example.net"), "sent")


async def test_a_reload_with_mail_under_way_sends_each_message_once(tmp_path: Path) -> None:
    async with Upstream(script={"dot": lambda moment: Delay(0.2)}) as slow:
        config = write_config(tmp_path, {"slow": slow}, workers=1)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            several = [f"user{n}@example.net" for n in range(40)]
            ids = []
            for n, to in enumerate(several):
                ids.append(await app.submit(letter(), (OTP, BULK)[n % 2], to))
                if n % 10 == 5:
                    await reloaded(relay)
            for message_id in ids:
                await time_line(relay, message_id, "sent", within_s=20)
            assert sorted(to for one in slow.messages for to in one.recipients) == sorted(several)


async def test_mail_of_a_lane_that_is_gone_goes_by_the_default_lane(tmp_path: Path) -> None:
    async with Upstream() as good, Upstream(script={"mail": "451 4.3.0 later"}) as bad:
        lanes = {
            "gone": {"upstreams": ["bad"], "retry": ["30s"], "expires": "10m"},
            "bulk": {"upstreams": ["good"], "retry": ["1s"], "expires": "2d"},
        }
        rule = {"name": "all", "match": {"recipient": "*"}, "lane": "gone"}
        config = write_config(tmp_path, {"good": good, "bad": bad}, lanes=lanes, rules=[rule], workers=0)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                message_id = await app.submit(letter(), BULK, "user@example.net")
            await time_line(relay, message_id, "deferred")
            changed(config, lanes={"bulk": lanes["bulk"]}, rules=[])
            await reloaded(relay)
            relay.send(signal.SIGHUP)
            await post_retry(relay)
            shown = await time_line(relay, message_id, "sent")
            assert shown["recipients"][0]["upstream"] == "good"


async def post_retry(relay: RelayProcess) -> None:
    """The message's old step was 30 s away."""
    assert (await post(relay, "/api/queue/retry", {"all": True})).status == 200


@pytest.mark.fresh
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)], ids=["SIGTERM", "SIGINT"])
async def test_a_drain_finishes_what_is_under_way_and_ends_with_0(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    async with Upstream(script={"dot": lambda moment: Delay(0.6)}) as slow:
        config = write_config(tmp_path, {"slow": slow}, workers=workers)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app, Talk(relay.smtp) as inside, Talk(relay.smtp) as idle:
                await inside.envelope(OTP, "inside@example.net")
                inside.send(b"Subject: in the middle\r\n")
                message_id = await app.submit(letter(), OTP, "user@example.net")
                await slow.wait_until(lambda: any("MAIL" in session.verbs for session in slow.sessions))
                relay.send(number)
                # The one at rest is told; the one inside DATA may finish.
                assert (await idle.reply()).startswith("421 4.3.2")
                inside.send(b"\r\nbody\r\n.\r\n")
                found = QUEUED.fullmatch(await inside.reply())
                assert found
                with pytest.raises(OSError):
                    async with Talk(relay.smtp):
                        pass
            assert await relay.wait() == 0
        assert [one.recipients for one in slow.messages][:1] == [("user@example.net",)]
        shown = (await command("log", message_id, "-c", config, "--json")).document
        assert shown["recipients"][0]["state"] == "sent"
        # Whether the last one still left or waits for the next start: it is not lost.
        last = (await command("log", found[1], "-c", config, "--json")).document["recipients"][0]["state"]
        assert last in ("sent", "queued")
        assert children_gone(relay)


def children_gone(relay: RelayProcess) -> bool:
    return not os.path.exists(f"/proc/{relay.pid}")


HANGS: dict[str, Any] = {
    "before the envelope's answer": {"mail": Hang()},
    "behind the dot": {"dot": Hang()},
}


@pytest.mark.parametrize("where", HANGS)
async def test_a_drain_that_is_cut_short_ends_with_0_and_what_is_unsent_stays_queued(
    tmp_path: Path, where: str
) -> None:
    async with Upstream(script=HANGS[where]) as upstream:
        config = write_config(tmp_path, {"one": upstream}, shutdown="500ms", workers=1)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                ids = [await app.submit(letter(), sender, "user@example.net") for sender in (OTP, BULK)]
            await upstream.wait_until(lambda: sum("MAIL" in one.verbs for one in upstream.sessions) == 2)
            if where == "behind the dot":
                await upstream.wait_until(lambda: len(upstream.transfers) == 2)
            began = time.monotonic()
            assert await relay.terminate() == 0
            assert time.monotonic() - began < 10
            assert "Traceback" not in relay.stderr
            # What an upstream may have is said, once a message, in the log on stderr and in the store's.
            unknown = ids if where == "behind the dot" else []
            assert sorted(re.findall(r"event=ambiguous id=(\w+) .* upstream=one", relay.stderr)) == sorted(unknown)
        waiting = (await command("queue", "-c", config, "--json")).objects
        assert sorted(one["id"] for one in waiting) == sorted(ids)
        for message_id in ids:
            view = (await command("log", "-c", config, "--json", message_id)).document
            outcomes = [attempt["outcome"] for attempt in view["recipients"][0]["attempts"]]
            assert outcomes == (["ambiguous"] if message_id in unknown else [])
        upstream.set_script({})
        async with RelayProcess(config) as relay:
            for message_id in ids:
                await time_line(relay, message_id, "sent")
            assert await relay.terminate() == 0


async def test_a_drain_behind_a_reload_keeps_to_its_time(tmp_path: Path) -> None:
    """The lanes that the reload retired hold a session that hangs."""
    async with Upstream(script={"dot": Hang()}) as upstream:
        config = write_config(tmp_path, {"one": upstream}, shutdown="500ms", workers=1)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                ids = [await app.submit(letter(), sender, "user@example.net") for sender in (OTP, BULK)]
            await upstream.wait_until(lambda: bool(upstream.transfers))
            await reloaded(relay)
            assert await relay.terminate(10) == 0
        upstream.set_script({})
        async with RelayProcess(config) as relay:
            for message_id in ids:
                await time_line(relay, message_id, "sent")


async def test_while_it_drains_it_says_that_it_is_not_ready(tmp_path: Path) -> None:
    async with Upstream(script={"dot": lambda moment: Delay(1.5)}) as slow:
        config = write_config(tmp_path, {"slow": slow}, workers=0)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                await app.submit(letter(), OTP, "user@example.net")
            assert (await get(relay, "/readyz")).status == 200
            relay.send(signal.SIGTERM)

            async def is_not_ready() -> bool:
                return (await get(relay, "/readyz")).status == 503

            await until(is_not_ready, within_s=1.4)
            assert (await get(relay, "/readyz")).document["reasons"] == ["draining"]
            assert (await get(relay, "/healthz")).status == 200
            assert await relay.wait() == 0


async def test_messages_acknowledged_while_the_relay_is_told_to_stop_are_never_lost(tmp_path: Path) -> None:
    acknowledged: list[str] = []

    async def submit(relay: RelayProcess, n: int) -> None:
        try:
            async with Talk(relay.smtp) as app:
                for m in range(10_000):
                    await app.submit(letter(), (OTP, BULK)[n % 2], f"user{n}-{m}@example.net")
                    acknowledged.append(f"user{n}-{m}@example.net")
        except (OSError, AssertionError):
            return

    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=1)
        async with RelayProcess(config) as relay:
            apps = [asyncio.create_task(submit(relay, n)) for n in range(4)]
            await asyncio.sleep(0.5)
            assert await relay.terminate() == 0
            await asyncio.wait_for(asyncio.gather(*apps), 20)
        async with RelayProcess(config) as relay:

            async def is_empty() -> bool:
                return not (await get(relay, "/api/queue")).document["lanes"]

            await until(is_empty)
    arrived = [to for one in upstream.messages for to in one.recipients]
    assert acknowledged
    assert set(acknowledged) <= set(arrived)
    assert len(arrived) == len(set(arrived))


async def test_what_takes_a_restart_is_said_at_each_reload_while_it_differs_from_what_runs(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=1)
        good = config.read_text()

        def ignored(relay: RelayProcess) -> list[str]:
            return re.findall(r"event=reload_ignored key=(\S+)", relay.stderr)

        async with RelayProcess(config) as relay:
            await until(lambda: worker_ready(relay, 1))
            changed(config, store="other.db", http={"address": "127.0.0.1:1"})
            for times in (1, 2):
                await reloaded(relay, success=False)
                assert ignored(relay) == ["store", "http"] * times
                for key in ("store", r"http\.address"):
                    assert re.search(rf'reason="{config}:[0-9]+:[0-9]+: {key}: takes a restart"', relay.stderr)
                assert "level=warning event=reloaded success=false ignored=store,http" in relay.stderr
            # A worker that begins now goes on with the file that it had.
            for pid in workers(relay.pid):
                os.kill(pid, signal.SIGKILL)
            await until(lambda: worker_ready(relay, 2))
            async with Talk(relay.smtp) as app:
                await time_line(relay, await app.submit(letter(), BULK, "user@example.net"), "sent")
            config.write_text(good)
            await reloaded(relay)
            assert ignored(relay) == ["store", "http"] * 2
            assert not list(tmp_path.glob("other*"))


async def worker_ready(relay: RelayProcess, times: int) -> bool:
    return relay.stderr.count("event=worker_ready") >= times


SIGNALS_EARLY = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))
            for _ in range(1000): pass

sys.meta_path.insert(0, Finder())
from relay.__main__ import main
sys.exit(main(["run", "-c", sys.argv[3]]))
"""
"""A relay to which a signal comes just when it imports this module."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "module", ["argparse", "relay.cli.run", "uvloop", "relay.config.load", "pydantic", "relay.service.app", "aiosmtpd"]
)
async def test_a_relay_that_is_stopped_while_it_begins_ends_with_0(
    tmp_path: Path, module: str, number: signal.Signals
) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SIGNALS_EARLY, module, str(int(number)), str(config), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    assert b"ready " not in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_second_signal_changes_nothing_up_to_the_last_moment(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=1)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            message_id = await app.submit(letter(), BULK, "user@example.net")
            await time_line(relay, message_id, "sent")
            relay.send(first)
            ended = asyncio.create_task(relay.wait())
            while not ended.done():
                # Not Popen's, which would take its exit code from asyncio.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(relay.pid, second)
                await asyncio.sleep(0.001)
            assert await ended == 0


@pytest.mark.parametrize(("sender", "workers"), [(OTP, 0), (BULK, 1)])
async def test_a_stop_is_logged_with_what_it_cut_short(tmp_path: Path, sender: str, workers: int) -> None:
    async with Upstream(script={"dot": Hang()}) as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=workers, shutdown="1s")
        async with RelayProcess(config) as relay:
            if workers:
                await until(lambda: worker_ready(relay, 1))
            async with Talk(relay.smtp) as app:
                await app.submit(letter(sender=sender), sender, "user@example.net")
            await upstream.wait_until(lambda: bool(upstream.transfers))
            relay.send(signal.SIGTERM)
            assert await relay.wait() == 0
            stops = re.findall(r"level=(\w+) event=(stopping|stopped)(.*)", relay.stderr)
    assert stops == [("info", "stopping", ""), ("warning", "stopped", " sessions_cut=0 deliveries_cut=1")]


async def test_mail_of_a_lane_that_a_reload_removes_is_logged_when_it_moves_to_the_default_lane(tmp_path: Path) -> None:
    async with Upstream(script={"mail": "451 4.3.0 later"}) as upstream:
        lane = {"upstreams": ["up"], "retry": ["1m"], "expires": "2d"}
        gone = [{"name": "all", "match": {"recipient": "*"}, "lane": "gone"}]
        config = write_config(tmp_path, {"up": upstream}, workers=0, lanes={"gone": lane, "bulk": lane}, rules=gone)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            await time_line(relay, await app.submit(letter(), BULK, "user@example.net"), "deferred")
            write_config(tmp_path, {"up": upstream}, workers=0, lanes={"bulk": lane}, rules=[])
            await reloaded(relay)
            await until_logged(relay, "level=warning event=adopted lane=bulk recipients=1")
