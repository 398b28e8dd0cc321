"""Delivery by ESPs' HTTP APIs: real connections to strict mocks of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.store.model import Selection
from tests.delivery.harness import config, delivering, outcomes
from tests.support.api import (
    ApiServer,
    Bomb,
    CloseBefore,
    Endless,
    Hang,
    Raw,
    Redirect,
    Reply,
    Request,
    Reset,
    Slow,
    StopReading,
)  # fmt: skip
from tests.support.esps import VENDORS, Esp
from tests.support.upstream import Upstream

CODE = (
    b"From: Acme <login@example.com>\r\nTo: u@example.net\r\nSubject: Your code is 482913, for ten minutes\r\n"
    b"Message-ID: <1@example.com>\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\n\r\nYour code is 482913.\r\n"
)
RAW = ("ses", "mailgun", "sparkpost", "mandrill")


def api(name: str, url: str, **more: Any) -> dict[str, Any]:
    """An upstream that is this ESP's API."""
    access: dict[str, Any] = {"kind": name, "url": url, "key": VENDORS[name].KEY}
    keys: dict[str, Any] = {"via": "api", "username": {"scaleway": SCALEWAY}.get(name)}
    return {**keys, "api": access, **more}


SCALEWAY = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("name", sorted(set(VENDORS) - {"ses", "graph"}))
async def test_a_code_goes_by_the_api_of_each_esp(tmp_path: Path, name: str) -> None:
    async with ApiServer(esp := Esp(name)) as server:
        async with delivering(tmp_path, config({"esp": api(name, server.url)})) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert (esp.faults, server.faults) == ([], [])
        [mail] = esp.mails
        assert mail.recipients == ("u@example.net",)
        [recipient] = view["recipients"]
        assert recipient["state"] == "sent"
        assert mail.ids["u@example.net"] in recipient["reply"]


async def test_a_later_code_finds_the_connection_open(tmp_path: Path) -> None:
    async with (
        ApiServer(Esp("resend")) as server,
        delivering(tmp_path, config({"resend": api("resend", server.url)})) as bench,
    ):
        for _ in range(3):
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert view["recipients"][0]["attempts"][0]["session"] == "warm"
        assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(500, {"message": "oops"}), "refused"),
        (Reply(503, b"<html>"), "refused"),
        (Reply(429, {"name": "rate_limit_exceeded"}, headers=[("Retry-After", "7")]), "deferred"),
        (Reply(401, {"name": "missing_api_key"}), "refused"),
        (Reply(403, {"name": "invalid_api_key"}), "refused"),
        (Reply(302, b"", headers=[("Location", "https://evil.example.com/")]), "refused"),
    ],
    ids=["500", "503", "429", "401", "403", "302"],
)
async def test_what_is_no_fault_of_the_mail_goes_to_the_next_upstream(
    tmp_path: Path, reply: Reply, outcome: str
) -> None:
    async with ApiServer(reply) as server, Upstream() as smtp:
        settings = config({"api": api("postmark", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert outcomes(view) == [("api", outcome), ("smtp", "sent")]
        assert len(server.requests) == 1


async def test_a_4xx_that_names_the_recipient_bounces_it(tmp_path: Path) -> None:
    refusal = Reply(422, {"ErrorCode": 406, "Message": "You tried to send to recipient(s) that are inactive."})
    async with ApiServer(refusal) as server, Upstream() as smtp:
        settings = config({"api": api("postmark", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert outcomes(view) == [("api", "refused")]
        assert view["recipients"][0]["state"] == "bounced"


@pytest.mark.parametrize("lost", [CloseBefore(), Reset(), Reply(504), Hang()], ids=["closed", "reset", "504", "hangs"])
async def test_an_answer_that_is_lost_is_ambiguous_and_the_policy_decides(tmp_path: Path, lost: Any) -> None:
    async with ApiServer(lost) as server, Upstream() as smtp:
        settings = config({"api": api("postmark", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert outcomes(view) == [("api", "ambiguous"), ("smtp", "sent")]


async def test_an_ambiguous_recipient_is_held_where_the_lane_says_so(tmp_path: Path) -> None:
    async with ApiServer(CloseBefore()) as server, Upstream() as smtp:
        settings = config({"api": api("postmark", server.url), "smtp": smtp}, on_ambiguous="hold")
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE), "ambiguous")
        assert outcomes(view) == [("api", "ambiguous")]


async def test_a_body_that_the_provider_stops_reading_is_no_commit(tmp_path: Path) -> None:
    large = CODE + b"x" * 70 + b"\r\n"
    large += (b"y" * 76 + b"\r\n") * 40_000
    async with ApiServer(StopReading(1_000), receive_buffer_bytes=4_096) as server, Upstream() as smtp:
        settings = config({"api": api("mailgun", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=large))
        assert outcomes(view) == [("api", "abandoned"), ("smtp", "sent")]


@pytest.mark.parametrize("name", ["resend", "brevo"])
async def test_a_lost_answer_is_asked_for_again_with_the_same_key(tmp_path: Path, name: str) -> None:
    esp = Esp(name)
    seen: list[Request] = []

    def once_lost(request: Request) -> Any:
        reply = esp(request)
        seen.append(request)
        return CloseBefore() if len(seen) == 1 else reply

    async with ApiServer(once_lost) as server, Upstream() as smtp:
        settings = config({"api": api(name, server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert outcomes(view) == [("api", "ambiguous"), ("api", "sent")]
        assert len(esp.mails) == len(esp.repeats) == 1
        assert seen[0].body == seen[1].body
        assert esp.faults == server.faults == []


async def test_it_is_asked_again_after_a_restart_and_before_any_other(tmp_path: Path) -> None:
    esp = Esp("resend")
    async with Upstream() as smtp:
        async with ApiServer(lambda request: (esp(request), CloseBefore())[1]) as server:
            settings = config({"smtp": smtp, "api": api("resend", server.url)}, retry=(60.0,))
            async with delivering(tmp_path, settings, on_disk=True) as bench:
                id_ = await bench.send("u@example.net", content=CODE, upstreams=("api", "smtp"))
                view = await bench.ended(id_, "deferred")
                assert outcomes(view) == [("api", "ambiguous")] * 2
            port = server.port
        async with ApiServer(esp, port=port) as server:
            settings = config({"smtp": smtp, "api": api("resend", server.url)}, retry=(60.0,))
            async with delivering(tmp_path, settings, recover=True) as bench:
                await bench.delivery.act("retry", Selection(ids=(id_,)))
                view = await bench.ended(id_)
        assert outcomes(view)[-1] == ("api", "sent")
        assert len(esp.mails) == 1
        assert smtp.messages == []


NONSENSE = {
    "a body without end": Endless(),
    "a redirect": Redirect("http://127.0.0.1:1/"),
    "no JSON": Reply(200, b"\xff{"),
    "a compressed bomb": Bomb(),
    "a drop at a time": Slow(b"{}" * 100, 0.1),
    "no HTTP": Raw(b"220 mail.example.com ESMTP\r\n"),
    "many interim answers": Raw(b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    "two lengths": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}"),
}


@pytest.mark.parametrize("bad", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_ends_in_a_decision(tmp_path: Path, bad: Any) -> None:
    async with ApiServer(bad) as server, Upstream() as smtp:
        settings = config({"api": api("postmark", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert outcomes(view)[-1] == ("smtp", "sent")


def test_every_vendor_is_tried() -> None:
    assert set(VENDORS) == {*RAW, "graph", "postmark", "sendgrid", "resend", "brevo", "mailjet", "scaleway", "leadpush"}
