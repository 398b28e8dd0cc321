"""Mail by HTTP through a real relay: what an app posts arrives, durable before 202; what can't be sent is refused."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

from tests.support.app import BULK, OTP, letter
from tests.support.relay import RelayProcess, get, metrics, time_line, until, until_logged, write_config
from tests.support.sending import ask, send, send_whole
from tests.support.upstream import Hang, Upstream

TO = "someone@example.net"
SIMPLE = {"from": OTP, "to": TO, "subject": "hi", "text": "Your code is 123456"}
RFC822 = {"Content-Type": "message/rfc822"}


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not [part.defects for part in message.walk() if part.defects]
    assert max(map(len, content.split(b"\r\n"))) <= 998
    return message


async def test_a_document_arrives_as_the_message_that_it_describes(tmp_path: Path) -> None:
    pdf = bytes(range(256)) * 500
    unsubscribe = f"<https://example.com/u?{'t' * 120}>"
    document = {
        "from": f'"Größe, \\"x\\"" <{OTP}>',
        "to": [f"Doe, Jane <{TO}>", "two@Example.net", "two@example.NET", "jörg@example.net"],
        "subject": "Ihr Code für heute " + "ä" * 200,
        "text": "Ihr Code: 123456\n.\nÄ" + "x" * 2000,
        "html": "<p>Ihr Code: <b>123456</b></p>",
        "headers": {"Reply-To": "Jürgen <reply@example.com>", "List-Unsubscribe": unsubscribe, "X-Relay-Topic": "a"},
        "attachments": [
            {"filename": "Übersicht.pdf", "content": base64.b64encode(pdf).decode(), "content_type": "application/pdf"},
            {"filename": "a.txt", "content": ""},
        ],
        "lane": "bulk",
    }
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream})) as relay:
        answer = await send(relay.http_address, document, {"X-Relay-Client": "203.0.113.7"})
        assert (answer.status, set(answer.document)) == (202, {"id"})
        found = await time_line(relay, answer.id, "sent")
        assert (found["lane"], found["rule"]) == ("bulk", "api")
        (received,) = upstream.messages
        assert received.sender == OTP
        assert sorted(received.recipients) == ["jörg@example.net", TO, "two@Example.net"]
        message = parsed(received.content)
        assert message["From"].addresses[0].display_name == 'Größe, "x"'
        raw_utf8 = [one.addr_spec.encode(errors="surrogateescape").decode() for one in message["To"].addresses]
        assert raw_utf8 == [TO, "two@Example.net", "jörg@example.net"]
        assert message["To"].addresses[0].display_name == "Doe, Jane"
        assert message["Subject"] == document["subject"]
        assert (message["Reply-To"], message["List-Unsubscribe"]) == ("Jürgen <reply@example.com>", unsubscribe)
        assert "with HTTP id" in message["Received"]
        assert message["Date"]
        assert message["Message-ID"]
        assert not [name for name in message if name.lower().startswith("x-relay")]
        plain, html = message.get_body(("plain",)), message.get_body(("html",))
        assert plain is not None
        assert html is not None
        assert plain.get_content().splitlines() == str(document["text"]).splitlines()
        assert html.get_content().strip() == document["html"]
        assert [(one.get_filename(), one.get_content()) for one in message.iter_attachments()] == [
            ("Übersicht.pdf", pdf),
            ("a.txt", b""),
        ]
        assert received.content.split(b"\r\n\r\n", 1)[1].isascii()
        # By a rule, without a lane of its own.
        found = await time_line(relay, (await send(relay.http_address, SIMPLE)).id, "sent")
        assert (found["lane"], found["rule"]) == ("otp", "auth-sender")
        assert parsed(upstream.messages[1].content).get_content().strip() == SIMPLE["text"]
        seen = await metrics(relay)
        assert seen.value("relay_messages_accepted_total", lane="bulk", rule="api") == 1
        assert not {word for word in ("someone", "Doe", "123456", "example.net") if word in relay.stderr}


async def test_a_whole_message_arrives_byte_for_byte_however_large(tmp_path: Path) -> None:
    large = letter("y" * 70 + "\r\n" + ("z" * 76 + "\r\n") * 50_000, extra="X-Relay-Client: own\r\n")
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=1, limits={"message_size": "4MB"})
        async with RelayProcess(config) as relay:
            place = relay.http_address
            first = await send_whole(
                place, letter(), {"X-Relay-Client": "c"}, from_=f"News <{BULK}>", to=[TO, "b@x.example"]
            )
            await time_line(relay, first.id, "sent")
            second = await send_whole(place, large, {"X-Relay-Client": "c"}, from_="", to="Jörg <jörg@x.example>")
            await time_line(relay, second.id, "sent")
            unix_lines = letter("one\r\ntwo").replace(b"\r\n", b"\n")
            third = await send_whole(place, unix_lines, from_=OTP, to=TO, lane="bulk")
            await time_line(relay, third.id, "sent")
            one, two, three = upstream.messages
            assert (one.sender, sorted(one.recipients)) == (BULK, ["b@x.example", TO])
            assert (two.sender, list(two.recipients)) == ("", ["jörg@x.example"])
            assert one.content.endswith(letter())
            assert two.content.endswith(letter("y" * 70 + "\r\n" + ("z" * 76 + "\r\n") * 50_000))
            assert three.content.endswith(letter("one\r\ntwo"))
            assert not list(tmp_path.glob("relay-spool/*"))
            assert (await send_whole(place, large + b"x" * 200_000, from_=BULK, to=TO)).error == (422, "too_large")
            many = [f"person{n:03}@x.example" for n in range(500)]
            assert (await send_whole(place, letter(), from_=BULK, to=many)).status == 202
            wrong: list[dict[str, str | list[str]]] = [
                {"to": TO}, {"from_": BULK}, {"from_": [BULK, BULK], "to": TO}, {"from_": BULK, "to": "x"},
                {"from_": BULK, "to": TO, "x": "1"}, {"from_": "a\r\nb@x.example", "to": TO},
            ]  # fmt: skip
            for parameters in wrong:
                assert (await send_whole(place, letter(), None, **parameters)).error == (422, "invalid")
            assert (await send_whole(place, b"", from_=BULK, to=TO)).error == (422, "invalid")
            assert (await send_whole(place, b"X-A: \0\r\n\r\n", from_=BULK, to=TO)).error == (422, "refused")
            await until(lambda: _is_empty(relay))
            assert sum(len(one.recipients) for one in upstream.transfers[3:]) == 500


async def _is_empty(relay: RelayProcess) -> bool:
    return bool((await get(relay, "/api/queue")).document["messages"] == [])


async def test_what_cant_be_sent_is_refused_with_a_sentence_and_nothing_is_stored(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(
            tmp_path, {"one": upstream}, http={"address": "127.0.0.1:0", "senders": ["*@auth.example.com"]}
        )
        async with RelayProcess(config) as relay:
            place = relay.http_address

            async def refused(document: object, **headers: str) -> tuple[int, str]:
                return (await send(place, document, headers)).error

            assert await refused(b"{") == (400, "unreadable")
            assert await refused(b"\xff{}") == (400, "unreadable")
            assert await refused(b"[" * 100_000) == (400, "unreadable")
            assert await refused(b'{"to": NaN}') == (400, "unreadable")
            assert await refused(b'{"to": "a@b.example", "to": "c@d.example"}') == (422, "invalid")
            assert await refused([]) == (422, "invalid")
            assert await refused({**SIMPLE, "lane": "no"}) == (422, "unknown_lane")
            assert await refused({**SIMPLE, "from": "x@evil.example"}) == (422, "sender_not_allowed")
            assert await refused(SIMPLE, **{"Idempotency-Key": "k" * 256}) == (422, "invalid")
            assert await refused({**SIMPLE, "headers": {"X-Relay-Idempotency-Key": "é"}}) == (422, "idempotency_key")
            many = [f"a{n}@example.net" for n in range(10_000)]
            assert await refused({**SIMPLE, "to": many}) == (422, "too_many_recipients")
            large = await send(place, {**SIMPLE, "text": "x" * 50_000_000})
            assert large.error == (413, "too_large")
            assert "message/rfc822" in large.message
            chunked = await ask(place, "POST", "/api/send", None, {**RFC822, "Content-Encoding": "gzip"})
            assert chunked.error == (415, "unsupported_type")
            assert (await ask(place, "GET", "/api/send", None, {})).error == (405, "method_not_allowed")
            not_utf8 = await ask(place, "POST", "/api/send?from=a@auth.example.com&to=%ff@x.example", letter(), RFC822)
            assert not_utf8.error == (422, "invalid")
            assert await refused({**SIMPLE, "attachments": [{"filename": "a", "content": "", "content_type": ""}]}) == (
                422, "invalid",
            )  # fmt: skip
            plain = await ask(place, "POST", "/api/send", b"x", {"Content-Type": "text/plain"})
            assert plain.error == (415, "unsupported_type")
            evil = {"Origin": "https://evil.example"}
            assert (await send(place, SIMPLE, evil)).error == (403, "forbidden")
            assert (await send(place, SIMPLE, {"Host": "evil.example"})).error == (403, "forbidden")
            assert (await send(place, SIMPLE, {"X-Relay-Client": "\x85"})).error == (422, "invalid")
            named = await send(place, {**SIMPLE, "subjekt": "123456"})
            assert named.message.startswith("subjekt: unknown field")
            assert (await get(relay, "/api/messages")).document == []
            assert upstream.transfers == []
            seen = await metrics(relay)
            for reason, least in {"syntax": 8, "recipients": 1, "size": 1, "sender": 1, "idempotency": 1}.items():
                assert seen.value("relay_messages_rejected_total", reason=reason) >= least, reason
            assert (await send(place, SIMPLE)).status == 202


async def test_a_repeated_request_has_its_answer_while_the_queue_is_full(tmp_path: Path) -> None:
    async with Upstream(script={"mail": "451 4.3.0 later"}) as upstream:
        config = write_config(tmp_path, {"one": upstream}, queue={"max_messages": 1})
        async with RelayProcess(config) as relay:
            first = await send(relay.http_address, SIMPLE, {"Idempotency-Key": "one"})
            await time_line(relay, first.id, "deferred")
            assert (await send(relay.http_address, SIMPLE)).error == (503, "unavailable")
            assert (await send(relay.http_address, SIMPLE, {"Idempotency-Key": "two"})).error == (503, "unavailable")
            assert (await send(relay.http_address, SIMPLE, {"Idempotency-Key": "one"})).id == first.id


async def test_limits_and_keys_answer_as_http_does(tmp_path: Path) -> None:
    lanes = {
        "otp": {"upstreams": ["one"], "retry": ["1h"], "expires": "10m", "limits": {"per_client": "2/1h"}},
        "bulk": {"upstreams": ["one"], "retry": ["1h"], "expires": "2d"},
    }
    both = {**SIMPLE, "html": "<p>123456</p>", "attachments": [{"filename": "x", "content": "eA=="}]}
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, lanes=lanes)
        async with RelayProcess(config) as relay:
            place, key = relay.http_address, {"Idempotency-Key": "order-1", "X-Relay-Client": "ann"}
            first = await send(place, both, key)
            assert (await send(place, both, key)).id == first.id
            for other in ({"text": "another"}, {"lane": "bulk"}, {"headers": {"X-A": "1"}}):
                assert (await send(place, {**both, **other}, key)).error == (409, "idempotency_key")
            assert (await send(place, SIMPLE, {"X-Relay-Client": "ann"})).status == 202
            limited = await send(place, SIMPLE, {"X-Relay-Client": "ann"})
            assert limited.error == (429, "limited")
            assert 3500 < int(limited.headers["retry-after"]) <= 3600
            assert limited.message.startswith("limit per_client of lane otp: try again in ")
            own = {**SIMPLE, "headers": {"x-relay-client": "bo"}}
            assert (await send(place, own, {"X-Relay-Client": "ann"})).status == 202
            await upstream.wait_for(3)
        async with RelayProcess(config) as relay:
            assert (await send(relay.http_address, both, key)).id == first.id
        assert len(upstream.transfers) == 3
        full = write_config(tmp_path, {"one": upstream}, queue={"min_free": "1000GiB"})
        async with RelayProcess(full) as relay:
            busy = await send(relay.http_address, SIMPLE)
            assert busy.error == (503, "unavailable")
            assert busy.headers["retry-after"] == "5"


async def test_requests_at_the_same_moment_with_one_key_send_one_mail(tmp_path: Path) -> None:
    # The large ones are hashed on a thread, and stored in a file: their keys are in use for longer.
    documents = [{**SIMPLE, "text": f"{n}\n" + "x\n" * (n % 2 * 200_000), "lane": "bulk"} for n in range(6)]
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream}, workers=1)) as relay:
        place, in_use = relay.http_address, 0
        for number, document in enumerate(documents):
            key = {"Idempotency-Key": f"order-{number}"}
            answers = await asyncio.gather(*(send(place, document, key) for _ in range(4)))
            (message_id,) = {one.id for one in answers if one.status == 202}
            for one in answers:
                if one.status != 202:
                    assert one.error == (409, "idempotency_key")
                    assert int(one.headers["retry-after"]) >= 1
                    in_use += 1
            # Once the key isn't in use any more, the answer is the first one's.
            assert (await send(place, document, key)).id == message_id
            await time_line(relay, message_id, "sent")
        assert in_use, "no two requests met"
        assert len((await get(relay, "/api/messages")).document) == len(documents)
        await until(lambda: _is_empty(relay))
        assert len(upstream.transfers) == len(documents)


async def test_without_a_spool_large_mail_is_503_and_counted_and_small_mail_is_taken(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream})) as relay:
        place, large = relay.http_address, "x\n" * 300_000
        for folder in tmp_path.glob("*spool*"):
            folder.rmdir()
        assert (await send(place, {**SIMPLE, "text": large})).error == (503, "unavailable")
        whole = await send_whole(place, letter(large.replace("\n", "\r\n")), from_=BULK, to=TO)
        assert whole.error == (503, "unavailable")
        assert int(whole.headers["retry-after"]) >= 1
        assert (await send(place, SIMPLE)).status == 202
        assert (await metrics(relay)).value("relay_messages_rejected_total", reason="store") == 2
        await until_logged(relay, "event=trouble where=spool")


async def test_what_was_answered_202_survives_a_kill_and_arrives_once(tmp_path: Path) -> None:
    async with Upstream(script={"mail": Hang()}) as upstream:
        config = write_config(tmp_path, {"one": upstream})
        async with RelayProcess(config) as relay:
            ids = [(await send(relay.http_address, {**SIMPLE, "to": f"a{n}@example.net"})).id for n in range(3)]
            big = letter(("z" * 76 + "\r\n") * 9_000, sender=OTP)
            ids.append((await send_whole(relay.http_address, big, from_=OTP, to="b@example.net")).id)
            await relay.kill()
        assert upstream.transfers == []
        upstream.set_script({})
        async with RelayProcess(config) as relay:
            for one in ids:
                await time_line(relay, one, "sent")
            assert sorted(one.recipients[0] for one in upstream.transfers) == [
                "a0@example.net", "a1@example.net", "a2@example.net", "b@example.net",
            ]  # fmt: skip


async def test_the_send_token_may_send_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "send").write_text("only-to-send\n")
    (tmp_path / "send").chmod(0o600)
    path = f"{tmp_path}/s.sock"
    http = {"address": "127.0.0.1:0", "token": "all", "send_token_file": "send", "send_address": f"unix:{path}"}
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream}, http=http)) as relay:
        place = relay.http_address
        sends, everything = {"Authorization": "Bearer only-to-send"}, {"Authorization": "Bearer all"}
        for where in (place, path):
            assert (await send(where, SIMPLE)).error == (401, "unauthorized")
            assert (await send(where, SIMPLE, {"Authorization": "Bearer only-to-sen"})).error == (401, "unauthorized")
            for authorization in (sends, everything):
                assert (await send(where, SIMPLE, authorization)).status == 202
            for method, other in (
                ("GET", "/api/send"), ("GET", "/api/messages"), ("POST", "/api/queue/drop"), ("GET", "/metrics"),
                ("POST", "/api/erase"), ("POST", "/api/send/"), ("PUT", "/api/send"), ("GET", "/"),
            ):  # fmt: skip
                headers = {"Content-Type": "application/json", **sends}
                assert (await ask(where, method, other, b"{}", headers)).status == 401, (where, method, other)
        assert (await ask(path, "GET", "/healthz", None, {})).status == 200
        for other in ("/api/messages", "/metrics", "/", "/readyz", "/webhooks/one"):
            assert (await ask(path, "GET", other, None, everything)).status == 404, other
        assert len(await upstream.wait_for(4)) == 4
        assert "only-to-send" not in relay.stderr
        await relay.terminate()
        assert not Path(path).exists()


async def test_a_unix_socket_of_its_own_needs_no_token(tmp_path: Path) -> None:
    path = f"{tmp_path}/s.sock"
    http = {"address": "127.0.0.1:0", "token": "all", "send_address": f"unix:{path}", "senders": "*@auth.example.com"}
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream}, http=http)):
        answer = await send(path, SIMPLE, {"Host": "whatever.example"})
        assert answer.status == 202
        assert (await send(path, {**SIMPLE, "from": BULK})).error == (422, "sender_not_allowed")
        assert (await send(path, SIMPLE, {"Sec-Fetch-Site": "cross-site"})).error == (403, "forbidden")
        (received,) = await upstream.wait_for(1)
        assert b"Received: from localhost (unix)" in received.content


async def test_a_body_that_ends_early_leaves_nothing_and_a_stop_waits_for_what_is_stored(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream})) as relay:
        host, _, port = relay.http_address.rpartition(":")
        for size in (10, 600_000):
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /api/send?from={OTP}&to={TO} HTTP/1.1\r\nHost: localhost\r\nContent-Type: message/rfc822\r\n"
            writer.write(f"{head}Content-Length: {size + 1}\r\n\r\n".encode() + b"x" * size)
            writer.write_eof()
            await reader.read()
            writer.close()
        assert (await get(relay, "/api/messages")).document == []
        assert not list(tmp_path.glob("relay-spool/*"))
        sending = [
            asyncio.create_task(send(relay.http_address, {**SIMPLE, "to": f"a{n}@x.example"})) for n in range(20)
        ]
        await sending[0]
        assert await relay.terminate() == 0
        answers = await asyncio.gather(*sending, return_exceptions=True)
        taken = {one.id for one in answers if not isinstance(one, BaseException) and one.status == 202}
        assert taken
    async with RelayProcess(write_config(tmp_path, {"one": upstream})) as relay:
        listed = {one["id"] for one in (await get(relay, "/api/messages")).document}
        assert taken <= listed
