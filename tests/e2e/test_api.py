"""The real relay with ESPs' HTTP APIs as upstreams: killed, reloaded, without a network to them, and what it tells."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from tests.support.api import ApiServer, CloseBefore, Hang, Reply, Taken
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.esps import VENDORS, Esp
from tests.support.relay import RelayProcess, command, get, time_line, until_logged, write_config
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

TO = "u@example.net"


def api(name: str, url: str, certificates: Certificates | None = None, **more: Any) -> dict[str, object]:
    """How the configuration names an ESP's API."""
    access: dict[str, Any] = {"kind": name, "url": url, "key": VENDORS[name].KEY}
    ca_file = {} if certificates is None else {"ca_file": str(certificates.ca_file)}
    return {"via": "api", "api": access, **ca_file, **more}


def code(text: str = "Your code is 482913.", sender: str = OTP) -> bytes:
    return letter(text, sender=sender).replace(b"someone@example.net", TO.encode())


async def test_a_code_and_bulk_mail_go_by_an_api_over_tls(tmp_path: Path, certificates: Certificates) -> None:
    async with ApiServer(esp := Esp("mailgun"), tls=certificates.good) as server:
        config = write_config(tmp_path, {"mailgun": api("mailgun", server.url, certificates)}, workers=1)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            ids = [await app.submit(code(sender=sender), sender, TO) for sender in (OTP, BULK)]
            for id_ in ids:
                view = await time_line(relay, id_, "sent")
                [recipient] = view["recipients"]
                assert recipient["reply"].startswith("250 2.0.0 Ok: queued as <")
        assert [mail.recipients for mail in esp.mails] == [(TO,), (TO,)]
        assert (esp.faults, server.faults) == ([], [])


async def test_a_relay_killed_before_the_answer_asks_the_same_api_again_with_the_same_key(tmp_path: Path) -> None:
    async with ApiServer([Taken(esp := Esp("resend"), Hang()), esp]) as server, Upstream() as other:
        upstreams: dict[str, Any] = {"other": other, "resend": api("resend", server.url)}
        lanes = {
            "otp": {"upstreams": ["resend", "other"], "retry": ["200ms"], "expires": "10m"},
            "bulk": {"upstreams": ["other"], "retry": ["1s"], "expires": "2d"},
        }
        config = write_config(tmp_path, upstreams, lanes=lanes)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                id_ = await app.submit(code(), OTP, TO)
            await server.wait_for(1)
            relay.send(signal.SIGKILL)
            await relay.wait()
        async with RelayProcess(config) as relay:
            view = await time_line(relay, id_, "sent")
        [recipient] = view["recipients"]
        assert recipient["upstream"] == "resend"
        first, second = server.requests
        assert first.body == second.body
        assert first.header("idempotency-key") == second.header("idempotency-key")
        assert len(esp.mails) == len(esp.repeats) == 1
        assert other.messages == []


async def test_neither_key_nor_code_is_in_log_metrics_or_answers(tmp_path: Path) -> None:
    """The ESP quotes both."""
    key = VENDORS["postmark"].KEY
    quoting = Reply(422, {"ErrorCode": 300, "Message": f"Invalid 'TextBody': Your code is 482913. Token {key}"})
    async with ApiServer([quoting, Reply(401, {"ErrorCode": 10, "Message": f"No {key} here, 482913"})]) as server:
        config = write_config(tmp_path, {"postmark": api("postmark", server.url)})
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                ids = [await app.submit(code(), OTP, TO) for _ in range(2)]
            await time_line(relay, ids[0], "bounced", "deferred")
            await until_logged(relay, "upstream_down")
            shown = [
                *[
                    (await get(relay, path)).body
                    for path in ("/metrics", "/readyz", *(f"/api/messages/{i}" for i in ids))
                ],
                (await command("log", "-c", config, ids[0])).out,
            ]
            ps = await asyncio.create_subprocess_exec("ps", "axww", stdout=asyncio.subprocess.PIPE)
            shown.append((await ps.communicate())[0].decode())
        shown.append(relay.stderr)
        for text in shown:
            assert key not in text
            assert "482913" not in text


async def test_a_reload_with_another_key_uses_it_for_the_next_code(tmp_path: Path) -> None:
    async with ApiServer(Esp("resend")) as server:
        wrong = api("resend", server.url)
        wrong["api"] = {"kind": "resend", "url": server.url, "key": "re_wrong_key_000000"}
        config = write_config(tmp_path, {"resend": wrong})
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            id_ = await app.submit(code(), OTP, TO)
            await until_logged(relay, "upstream_down")
            write_config(tmp_path, {"resend": api("resend", server.url)})
            relay.send(signal.SIGHUP)
            await time_line(relay, id_, "sent")


async def test_smtp_takes_over_where_the_api_cant_be_reached(tmp_path: Path) -> None:
    async with ApiServer(CloseBefore()) as server, Upstream() as smtp:
        await server.pause()
        both = {**api("resend", server.url), "via": "auto", "host": smtp.host, "port": smtp.port, "tls": "none"}
        config = write_config(tmp_path, {"resend": both})
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                view = await time_line(relay, await app.submit(code(), OTP, TO), "sent")
            assert view["recipients"][0]["attempts"][-1]["outcome"] == "sent"
            await until_logged(relay, "upstream_way_down")
            health = (await get(relay, "/readyz")).document["lanes"]["otp"]["upstreams"]["resend"]
            assert (health["state"], health["reason"]) == ("up", "API: connect: connection refused")


async def test_a_lane_that_holds_what_is_ambiguous_holds_nothing_that_the_api_can_tell(tmp_path: Path) -> None:
    async with ApiServer([Taken(esp := Esp("resend"), Hang()), esp]) as server:
        lanes = {
            "otp": {"upstreams": ["resend"], "retry": ["200ms"], "expires": "10m", "on_ambiguous": "hold"},
            "bulk": {"upstreams": ["resend"], "retry": ["1s"], "expires": "2d"},
        }
        config = write_config(tmp_path, {"resend": api("resend", server.url)}, lanes=lanes)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                id_ = await app.submit(code(), OTP, TO)
            await server.wait_for(1)
            relay.send(signal.SIGKILL)
            await relay.wait()
        async with RelayProcess(config) as relay:
            await time_line(relay, id_, "sent")
        assert len(esp.mails) == 1
