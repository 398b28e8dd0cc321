"""The feedback process dies, comes back, is reloaded and stopped: no event is lost, and no code waits for it."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import ssl
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.test_feedback import event, submit
from tests.support.processes import children
from tests.support.relay import RelayProcess, metrics, time_line, until, upstream_keys, write_config
from tests.support.tls import make_certificates
from tests.support.upstream import Received, Upstream

PASSWORDS = {"RELAY_TEST_PASSWORD": "an-upstreams-password", "RELAY_TEST_HOOK": "hook:s3cret"}
HOOK = {"kind": "postmark", "secret": "${RELAY_TEST_HOOK}"}


def configured(directory: Path, esp: Upstream, webhook: Mapping[str, object] | None = HOOK, **keys: object) -> Path:
    upstream = upstream_keys(esp) | {"username": "account", "password": "${RELAY_TEST_PASSWORD}"}
    if webhook is not None:
        upstream["webhook"] = dict(webhook)
    return write_config(directory, {"postmark": upstream}, **keys)


def upstream() -> Upstream:
    return Upstream(auth={"account": PASSWORDS["RELAY_TEST_PASSWORD"]})


def relay_of(config_file: Path) -> RelayProcess:
    return RelayProcess(config_file, PASSWORDS)


def basic(secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode(), "Content-Type": "application/json"}


async def post(url: str, body: bytes, secret: str = "hook:s3cret", connector: Any = None) -> int:
    timeout = aiohttp.ClientTimeout(total=25)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.post(url, data=body, headers=basic(secret)) as answer,
    ):
        return answer.status


def hook(relay: RelayProcess) -> str:
    return f"http://{relay.http_address}/webhooks/postmark"


def feedback_of(relay: RelayProcess) -> int | None:
    """The process id; None: there is none."""
    for child in children(relay.pid):
        if Path(f"/proc/{child}/comm").read_text().strip() == "feedback":
            return child
    return None


async def kinds(relay: RelayProcess, message_id: str) -> list[str]:
    line = await time_line(relay, message_id, "sent")
    return [one["kind"] for one in line["recipients"][0]["events"]]


def delivered(received: Received, number: int = 1) -> bytes:
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return event("Delivery", received, "ann@example.org", DeliveredAt=at, MessageID=f"id-{number}")


async def test_it_is_killed_and_comes_back_while_codes_go_on(tmp_path: Path) -> None:
    async with upstream() as esp, relay_of(configured(tmp_path, esp)) as relay:
        message_id = await submit(relay, "ann@example.org")
        (received,) = await esp.wait_for(1)
        await time_line(relay, message_id, "sent")
        assert await post(hook(relay), delivered(received, 1)) == 200
        first = feedback_of(relay)
        assert first is not None
        os.kill(first, signal.SIGKILL)  # right after the 200
        other = await submit(relay, "bob@example.org")
        await time_line(relay, other, "sent")

        async def accepted() -> bool:
            status = await post(hook(relay), delivered(received, 2))
            assert status in {200, 503}
            return status == 200

        await until(accepted)
        assert feedback_of(relay) not in {None, first}
        assert await kinds(relay, message_id) == ["accepted", "sent", "delivered", "delivered"]
        seen = await metrics(relay)
        assert seen.value("relay_tasks_restarted_total", task="feedback") == 1
        assert seen.value("relay_recipients_total", lane="otp", upstream="postmark", outcome="sent") == 2


async def test_no_event_is_lost_when_all_of_the_relay_is_killed(tmp_path: Path) -> None:
    async with upstream() as esp:
        config_file = configured(tmp_path, esp)
        async with relay_of(config_file) as relay:
            message_id = await submit(relay, "ann@example.org")
            (received,) = await esp.wait_for(1)
            await time_line(relay, message_id, "sent")
            body = delivered(received)
            assert await post(hook(relay), body) == 200
            process = feedback_of(relay)
            await relay.kill()

            async def is_gone() -> bool:
                return not Path(f"/proc/{process}").exists()

            await until(is_gone)
        async with relay_of(config_file) as relay:
            assert await kinds(relay, message_id) == ["accepted", "sent", "delivered"]
            assert await post(hook(relay), body) == 200
            assert await kinds(relay, message_id) == ["accepted", "sent", "delivered"]


async def test_it_holds_no_password_and_cannot_write_mail(tmp_path: Path) -> None:
    async with upstream() as esp, relay_of(configured(tmp_path, esp)) as relay:
        message_id = await submit(relay, "ann@example.org")
        (received,) = await esp.wait_for(1)
        await time_line(relay, message_id, "sent")
        assert await post(hook(relay), delivered(received)) == 200
        process = feedback_of(relay)
        assert process is not None
        if os.geteuid() == 0:  # its /proc is root's only: it can't be traced
            given = Path(f"/proc/{process}/environ").read_bytes() + Path(f"/proc/{process}/cmdline").read_bytes()
            assert not [one for one in PASSWORDS.values() if one.encode() in given]
            modes = open_modes(process)
            assert modes[tmp_path / "relay.db"] == {os.O_RDONLY}
            assert os.O_RDWR in modes[tmp_path / "relay-events.db"]
        assert await relay.terminate() == 0
        assert not Path(f"/proc/{process}").exists()


def open_modes(process: int) -> dict[Path, set[int]]:
    """How a process has its files open."""
    found: dict[Path, set[int]] = {}
    for entry in Path(f"/proc/{process}/fd").iterdir():
        path = Path(os.readlink(entry))
        if not path.is_absolute() or not path.exists() or not stat.S_ISREG(path.stat().st_mode):
            continue
        flags = next(
            int(line.split()[1], 8)
            for line in Path(f"/proc/{process}/fdinfo/{entry.name}").read_text().splitlines()
            if line.startswith("flags:")
        )
        found.setdefault(path, set()).add(flags & os.O_ACCMODE)
    return found


async def test_a_reload_adds_removes_and_changes_webhooks(tmp_path: Path) -> None:
    async with upstream() as esp, relay_of(configured(tmp_path, esp, None)) as relay:
        message_id = await submit(relay, "ann@example.org")
        (received,) = await esp.wait_for(1)
        await time_line(relay, message_id, "sent")
        assert feedback_of(relay) is None
        assert await post(hook(relay), b"{}") == 404

        async def answers(webhook: Mapping[str, object] | None, statuses: dict[str, int], number: int) -> None:
            """After a reload, each secret gets its status."""
            configured(tmp_path, esp, webhook)
            relay.send(signal.SIGHUP)
            body = b"{}" if webhook is None else delivered(received, number)

            async def reached() -> bool:
                return {one: await post(hook(relay), body, one) for one in statuses} == statuses

            await until(reached)

        await answers(HOOK, {"hook:s3cret": 200, "hook:new": 401}, 1)
        process = feedback_of(relay)
        assert process is not None
        await answers({**HOOK, "secret": ["hook:new", "hook:s3cret"]}, {"hook:s3cret": 200, "hook:new": 200}, 2)
        await answers({**HOOK, "secret": "hook:new"}, {"hook:s3cret": 401, "hook:new": 200}, 3)
        assert feedback_of(relay) == process
        await answers(None, {"hook:s3cret": 404, "hook:new": 404}, 4)

        async def is_gone() -> bool:
            return feedback_of(relay) is None

        await until(is_gone)
        assert (await kinds(relay, message_id))[2:] == ["delivered"] * 3


async def test_a_listener_of_its_own_answers_webhooks_only(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    address = f"unix:{tmp_path}/hooks"
    files = {"cert_file": str(certificates.good.cert_file), "key_file": str(certificates.good.key_file)}
    async with upstream() as esp:
        config_file = configured(tmp_path, esp, webhooks={"address": address, **files})
        async with relay_of(config_file) as relay:
            message_id = await submit(relay, "ann@example.org")
            (received,) = await esp.wait_for(1)
            await time_line(relay, message_id, "sent")
            trusted = certificates.client_context()
            assert await post(
                "https://localhost/webhooks/postmark", delivered(received, 1), connector=to_unix(tmp_path, trusted)
            ) == 200  # fmt: skip
            assert await post(hook(relay), delivered(received, 2)) == 200
            assert await kinds(relay, message_id) == ["accepted", "sent", "delivered", "delivered"]
            async with aiohttp.ClientSession(connector=to_unix(tmp_path, trusted)) as session:
                for path in ("/metrics", "/api/messages", "/", "/healthz", "/webhooks/other"):
                    async with session.post(f"https://localhost{path}", data=b"{}") as answer:
                        assert answer.status == 404, path
                    async with session.get(f"https://localhost{path}") as answer:
                        assert answer.status in {404, 405}, path
            # Its last webhook goes: what still posts is answered.
            configured(tmp_path, esp, None, webhooks={"address": address, **files})
            relay.send(signal.SIGHUP)

            async def is_unknown() -> bool:
                status = await post("https://localhost/webhooks/postmark", b"{}", connector=to_unix(tmp_path, trusted))
                return status == 404

            await until(is_unknown)


def to_unix(directory: Path, trusted: ssl.SSLContext) -> aiohttp.BaseConnector:
    return _TlsUnixConnector(str(directory / "hooks"), trusted)


class _TlsUnixConnector(aiohttp.TCPConnector):
    """TLS over a Unix socket."""

    def __init__(self, path: str, trusted: ssl.SSLContext) -> None:
        super().__init__(ssl=trusted)
        self._path = path

    async def _wrap_create_connection(self, *args: Any, **given: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_connection(
            args[0], self._path, ssl=given["ssl"], server_hostname=given.get("server_hostname") or "localhost"
        )
