"""`via: auto`, TLS and pauses of HTTP APIs, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.store.model import Queued
from tests.delivery.harness import Bench, config, delivering, outcomes, until, warm
from tests.delivery.test_api import CODE, api
from tests.delivery.test_suppressing import suppress, suppressed
from tests.support.api import ApiServer, CloseBefore, Reply, Taken
from tests.support.esps import Esp, ses
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

INLINE = CODE.replace(
    b"\r\n\r\n", b'\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary="x"\r\n\r\n--x\r\n\r\n'
).replace(b"482913.\r\n", b"482913.\r\n--x\r\nContent-Type: image/png\r\nContent-ID: <1>\r\n\r\nx\r\n--x--\r\n")


def both(name: str, url: str, smtp: Upstream, **more: Any) -> dict[str, Any]:
    """An upstream that is this ESP's API and its SMTP server."""
    return {**api(name, url), "via": "auto", "host": smtp.host, "port": smtp.port, "tls": "none", **more}


async def sent(bench: Bench, content: bytes = CODE, *to: str) -> dict[str, Any]:
    return await bench.ended(await bench.send(*(to or ("u@example.net",)), content=content))


async def test_a_plain_mail_goes_by_the_api_and_all_else_by_smtp(tmp_path: Path) -> None:
    async with ApiServer(esp := Esp("resend")) as server, Upstream() as smtp:
        async with delivering(tmp_path, config({"resend": both("resend", server.url, smtp)})) as bench:
            await sent(bench)
            await sent(bench, INLINE)
            # Bob is in To, and not in the envelope: the API would send it to Bob.
            await sent(bench, CODE.replace(b"To: u@example.net", b"To: u@example.net, bob@example.net"))
        assert len(esp.mails) == 1
        assert len(smtp.messages) == 2
        assert esp.faults == []


async def test_several_recipients_go_in_one_request_and_the_rest_of_the_envelope_as_bcc(tmp_path: Path) -> None:
    async with ApiServer(esp := Esp("resend")) as server, Upstream() as smtp:
        settings = config({"resend": both("resend", server.url, smtp, recipients=1)})
        async with delivering(tmp_path, settings) as bench:
            content = CODE.replace(b"To: u@example.net", b"To: u@example.net\r\nCc: Bob <bob@example.net>")
            view = await sent(bench, content, "u@example.net", "bob@example.net", "archive@example.com")
        [mail] = esp.mails
        assert [one.address for one in mail.bcc] == ["archive@example.com"]
        assert [one["state"] for one in view["recipients"]] == ["sent"] * 3


async def test_smtp_serves_while_the_api_is_down_and_the_api_again_once_it_is_back(tmp_path: Path) -> None:
    async with ApiServer(esp := Esp("resend")) as server, Upstream() as smtp:
        async with delivering(tmp_path, config({"resend": both("resend", server.url, smtp)})) as bench:
            await until(lambda: warm(bench))
            await server.pause()
            server.reset_connections()
            await sent(bench)
            await until(lambda: _upstream(bench).api.circuit.state != "closed")
            view = await sent(bench)
            assert outcomes(view) == [("resend", "sent")]
            assert _upstream(bench).circuit.state == "closed"
            await server.resume()
            await until(lambda: _upstream(bench).api.circuit.state == "closed")
            await sent(bench)
        assert len(smtp.messages) == 2
        assert len(esp.mails) == 1


def _upstream(bench: Bench) -> Any:
    [one] = bench.delivery.lane("otp").upstreams
    return one


async def test_the_smtp_of_the_same_esp_isnt_asked_after_a_lost_answer_of_its_api(tmp_path: Path) -> None:
    async with ApiServer(CloseBefore()) as server, Upstream() as smtp, Upstream() as other:
        settings = config({"postmark": both("postmark", server.url, smtp), "other": other})
        async with delivering(tmp_path, settings) as bench:
            view = await sent(bench)
        assert outcomes(view) == [("postmark", "ambiguous"), ("other", "sent")]
        assert smtp.messages == []


async def test_what_no_api_can_carry_bounces_and_touches_no_circuit(tmp_path: Path) -> None:
    async with ApiServer(Esp("resend")) as server:
        async with delivering(tmp_path, config({"resend": api("resend", server.url)})) as bench:
            view = await sent(bench, INLINE)
            assert _upstream(bench).circuit.state == "closed"
        [recipient] = view["recipients"]
        assert recipient["state"] == "bounced"
        assert recipient["reply"].startswith("554 5.6.1 ")
        assert server.requests == []


async def test_no_code_asks_during_retry_after(tmp_path: Path) -> None:
    throttled = Reply(429, {"name": "rate_limit_exceeded", "message": "slow down"}, headers=[("Retry-After", "1")])
    async with ApiServer([throttled, Esp("resend")]) as server, Upstream() as smtp:
        settings = config({"resend": api("resend", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            view = await sent(bench)
            assert outcomes(view) == [("resend", "deferred"), ("smtp", "sent")]
            for _ in range(3):
                assert outcomes(await sent(bench)) == [("smtp", "sent")]
            await until(lambda: bench.delivery.lane("otp").upstreams[0].circuit.state == "closed")
            assert outcomes(await sent(bench)) == [("resend", "sent")]
        assert server.requests[1].first_byte_at - server.requests[0].last_byte_at >= 1.0


async def test_an_api_over_tls_is_verified_by_the_ca_file(tmp_path: Path, certificates: Certificates) -> None:
    async with ApiServer(Esp("resend"), tls=certificates.good) as server:
        upstream = api("resend", server.url, ca_file=certificates.ca_file)
        async with delivering(tmp_path, config({"resend": upstream})) as bench:
            view = await sent(bench)
            assert view["recipients"][0]["state"] == "sent"


@pytest.mark.parametrize("which", ["expired", "wrong_host", "self_signed"])
async def test_a_wrong_certificate_gets_neither_key_nor_mail(
    tmp_path: Path, certificates: Certificates, which: str
) -> None:
    async with ApiServer(Esp("resend"), tls=getattr(certificates, which)) as server, Upstream() as smtp:
        upstream = api("resend", server.url, ca_file=certificates.ca_file)
        async with delivering(tmp_path, config({"resend": upstream, "smtp": smtp})) as bench:
            view = await sent(bench)
        assert view["recipients"][0]["upstream"] == "smtp"
        assert server.requests == []


async def sign(message: Queued, unsigned: frozenset[str], *, express: bool) -> Sequence[bytes]:
    return (b"DKIM-Signature: s1\r\n", message.content)


async def test_what_the_api_builds_anew_isnt_signed_and_smtp_is(tmp_path: Path) -> None:
    async with ApiServer(esp := Esp("resend")) as server, Upstream() as smtp:
        settings = config({"resend": both("resend", server.url, smtp)})
        async with delivering(tmp_path, settings, sign=sign) as bench:
            await sent(bench)
            await sent(bench, INLINE)
        assert "DKIM-Signature" not in [name for name, _ in esp.mails[0].headers]
        assert smtp.messages[0].content.startswith(b"DKIM-Signature: s1\r\n")


async def test_ses_gets_the_signed_message_byte_for_byte(tmp_path: Path) -> None:
    key_id, secret, region = ses.KEY.split()[:3]
    async with ApiServer(esp := Esp("ses")) as server:
        upstream = api("ses", server.url, headers={"X-SES-CONFIGURATION-SET": "codes"})
        upstream["api"] = {
            "kind": "ses",
            "url": server.url,
            "region": region,
            "access_key_id": key_id,
            "secret_access_key": secret,
        }
        async with delivering(tmp_path, config({"ses": upstream}), sign=sign) as bench:
            view = await sent(bench)
        assert (esp.faults, server.faults) == ([], [])
        [mail] = esp.mails
        assert mail.raw == b"DKIM-Signature: s1\r\n" + CODE
        assert mail.options["ConfigurationSetName"] == "codes"
        assert view["recipients"][0]["state"] == "sent"


async def test_a_header_of_the_upstream_becomes_the_apis_field(tmp_path: Path) -> None:
    async with ApiServer(esp := Esp("postmark")) as server:
        upstream = api("postmark", server.url, headers={"X-PM-Message-Stream": "codes", "X-Mailer": None})
        async with delivering(tmp_path, config({"postmark": upstream})) as bench:
            await sent(bench, CODE.replace(b"\r\n\r\n", b"\r\nX-Mailer: old\r\nX-App: 1\r\n\r\n", 1))
        [mail] = esp.mails
        assert mail.options["MessageStream"] == "codes"
        assert [name for name, _ in mail.headers] == ["X-App"]


async def test_a_drain_waits_for_the_answer(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def late(_request: Any) -> Reply:
        await release.wait()
        return Reply(200, {"id": "e1"})

    async with (
        ApiServer(late) as server,
        delivering(tmp_path, config({"resend": api("resend", server.url)}, final=10.0)) as bench,
    ):
        id_ = await bench.send("u@example.net", content=CODE)
        await server.wait_for(1)
        draining = asyncio.create_task(bench.delivery.drain(5.0))
        release.set()
        assert await draining == 0
        assert (await bench.view(id_))["recipients"][0]["state"] == "sent"


async def test_a_code_that_waits_for_a_connection_to_the_api_is_raced_by_smtp_and_sent_once(tmp_path: Path) -> None:
    """The API's kernel takes the connection, and its TLS never answers."""
    async with ApiServer(esp := Esp("resend")) as server, Upstream() as smtp:
        upstream = api("resend", server.url.replace("http:", "https:"))
        settings = config({"api": upstream, "smtp": smtp}, hedge=0.1, attempt=5.0)
        async with delivering(tmp_path, settings) as bench:
            view = await sent(bench)
        assert view["recipients"][0]["upstream"] == "smtp"
        assert len(smtp.messages) == 1
        assert esp.mails == []


async def test_no_race_begins_once_the_request_has_left(tmp_path: Path) -> None:
    async def late(request: Any) -> Any:
        await asyncio.sleep(0.5)
        return esp(request)

    esp = Esp("resend")
    async with ApiServer(late) as server, Upstream() as smtp:
        settings = config({"api": api("resend", server.url), "smtp": smtp}, hedge=0.1, attempt=5.0, final=5.0)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            view = await sent(bench)
        assert outcomes(view) == [("api", "sent")]
        assert smtp.messages == []


async def test_codes_that_wait_when_the_api_asks_for_a_pause_go_elsewhere(tmp_path: Path) -> None:
    throttled = Reply(429, {"name": "rate_limit_exceeded"}, headers=[("Retry-After", "30")])
    async with ApiServer(throttled) as server, Upstream() as smtp:
        settings = config({"api": api("resend", server.url, sessions={"warm": 1, "max": 1}), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            views = await asyncio.gather(*(sent(bench) for _ in range(6)))
        assert {view["recipients"][0]["upstream"] for view in views} == {"smtp"}
        assert len(server.requests) == 1


TWO = CODE.replace(b"To: u@example.net", b"To: gone@example.net\r\nCc: Bob <bob@example.net>")


async def test_where_the_api_names_one_recipient_the_others_still_get_it(tmp_path: Path) -> None:
    named = Reply(422, {"name": "validation_error", "message": "Invalid `to`: gone@example.net is no address"})
    async with ApiServer([named, esp := Esp("resend")]) as server:
        settings = config({"api": api("resend", server.url)}, retry=(0.05,))
        async with delivering(tmp_path, settings) as bench:
            id_ = await bench.send("gone@example.net", "bob@example.net", content=TWO)
            view = await bench.ended(id_)
        assert [one["state"] for one in view["recipients"]] == ["bounced", "sent"]
        [mail] = esp.mails
        assert mail.recipients == ("bob@example.net",)
        assert [one.address for one in mail.to] == ["bob@example.net"]


async def test_more_recipients_than_one_request_takes_go_elsewhere_as_a_whole(tmp_path: Path) -> None:
    people = [f"u{number}@example.net" for number in range(60)]
    async with ApiServer(Esp("resend")) as server, Upstream() as smtp:
        settings = config({"api": api("resend", server.url), "smtp": smtp})
        async with delivering(tmp_path, settings) as bench:
            await sent(bench, CODE.replace(b"u@example.net", b", ".join(one.encode() for one in people)), *people)
        assert server.requests == []
        [message] = smtp.messages
        assert len(message.recipients) == 60


async def test_a_repeat_keeps_its_key_when_a_recipient_is_suppressed_meanwhile(tmp_path: Path) -> None:
    """The API knows the first request, which had both: it tells that it can't say more, and sends nothing again."""
    suppressions = suppressed()
    async with ApiServer([Taken(esp := Esp("resend"), CloseBefore())] * 2 + [esp]) as server, Upstream() as smtp:
        settings = config({"api": api("resend", server.url), "smtp": smtp}, retry=(0.2,))
        async with delivering(tmp_path, settings, suppressions=suppressions) as bench:
            id_ = await bench.send("gone@example.net", "bob@example.net", content=TWO)
            await server.wait_for(2)
            suppress(suppressions, "gone@example.net")
            await server.wait_for(3)
            assert {one.header("idempotency-key") for one in server.requests} == {esp.mails[0].idempotency_key}
            view = await bench.view(id_)
        assert len(esp.mails) == 1
        assert all(one.mail_from.startswith("FROM:<>") for one in smtp.messages)  # the DSN
        assert view["recipients"][0]["state"] == "suppressed"


async def test_no_signature_covers_what_ses_writes_anew(tmp_path: Path) -> None:
    asked: list[frozenset[str]] = []

    async def noted(message: Queued, unsigned: frozenset[str], *, express: bool) -> Sequence[bytes]:
        asked.append(unsigned)
        return (message.content,)

    async with ApiServer(Esp("ses")) as server:
        access = {
            "kind": "ses",
            "url": server.url,
            "region": "eu-west-1",
            "access_key_id": "A",
            "secret_access_key": "B",
        }
        async with delivering(tmp_path, config({"ses": {"via": "api", "api": access}}), sign=noted) as bench:
            await bench.ended(await bench.send("u@example.net", content=CODE), "sent", "deferred")
    assert asked[0] == {"message-id", "date", "return-path"}


async def test_mail_for_smtp_doesnt_wait_for_it_while_it_is_down_and_another_upstream_is_up(tmp_path: Path) -> None:
    async with ApiServer(Esp("resend")) as server, Upstream() as smtp, Upstream() as other:
        upstreams: dict[str, Any] = {"resend": both("resend", server.url, smtp), "other": other}
        async with delivering(tmp_path, config(upstreams, attempt=10.0)) as bench:
            await smtp.pause()
            smtp.close_sessions(None)
            both_ways: Any = bench.delivery.lane("otp").upstreams[0]
            await until(lambda: both_ways.smtp.circuit.state != "closed")
            view = await sent(bench, INLINE)
            assert outcomes(view) == [("other", "sent")]


async def test_what_the_other_way_might_carry_later_doesnt_bounce(tmp_path: Path) -> None:
    async with ApiServer(Esp("resend")) as server, Upstream() as smtp:
        upstreams = {"resend": both("resend", server.url, smtp), "api": api("postmark", server.url)}
        async with delivering(tmp_path, config(upstreams)) as bench:
            await smtp.pause()
            smtp.close_sessions(None)
            both_ways: Any = bench.delivery.lane("otp").upstreams[0]
            await until(lambda: both_ways.smtp.circuit.state != "closed")
            id_ = await bench.send("u@example.net", content=INLINE)
            waiting = await bench.ended(id_, "deferred")
            assert outcomes(waiting) == [("api", "refused")]
            await smtp.resume()
            view = await bench.ended(id_)
            assert view["recipients"][0]["upstream"] == "resend"
