"""What Amazon SNS asks a webhook to fetch: from a folder or over TLS, once, and never from elsewhere."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from relay.feedback import sns
from relay.feedback.receive import Answer
from relay.feedback.settings import WebhookSettings
from relay.feedback.sns import SnsClient
from tests.feedback.rooms import Room, room
from tests.providers.signers import CERTIFICATE_URL, NOW, TOPIC, by_sns, certificate, sns_message
from tests.support.tls import make_certificates

SUBSCRIBE = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=a-token"


class Amazon(AbstractResolver):
    """A TLS server in the place of Amazon's, and where every name leads."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[], web.Response] = lambda: web.Response(body=certificate())
        self.trouble: list[str] = []
        self.confirmed = asyncio.Event()
        self._certificates = make_certificates(folder)
        self._port = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert (host, port) == ("sns.us-east-1.amazonaws.com", 443)
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=family, proto=0, flags=0)
        ]  # fmt: skip

    async def close(self) -> None:
        pass

    def connector(self) -> aiohttp.BaseConnector:
        context = self._certificates.client_context()
        context.check_hostname = False
        return aiohttp.TCPConnector(resolver=self, ssl=context)

    def client(self) -> SnsClient:
        return SnsClient(
            lambda what, error: self.trouble.append(f"{what} {error!r}"), self.confirmed.set, connector=self.connector
        )

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return self.answer()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        context: ssl.SSLContext = self._certificates.good.server_context()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self._port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
async def amazon(tmp_path: Path) -> AsyncIterator[Amazon]:
    made = Amazon(tmp_path)
    async with made.serving():
        yield made


@asynccontextmanager
async def receiving(folder: Path, amazon: Amazon, certificates: Path | None = None) -> AsyncIterator[Room]:
    async with room(folder, sns=amazon.client()) as here:
        here.now = NOW
        settings = WebhookSettings("ses", (), (TOPIC,), None if certificates is None else str(certificates))
        here.webhooks.upstreams = {"ses": settings}
        yield here


async def notify(here: Room, **more: str) -> Answer:
    signed = by_sns(sns_message({"eventType": "Delivery"}, **more), {}, NOW)
    return await here.take(signed.posted.body, "ses", {"x-amz-sns-topic-arn": TOPIC})


async def confirm(here: Room, topic: str = TOPIC) -> int:
    more = {"Type": "SubscriptionConfirmation", "SubscribeURL": SUBSCRIBE, "Token": "a-token", "TopicArn": topic}
    return (await notify(here, **more)).status


async def test_a_certificate_is_fetched_once(tmp_path: Path, amazon: Amazon) -> None:
    async with receiving(tmp_path, amazon) as here:
        assert [(await notify(here)).status for _ in range(3)] == [200] * 3
        assert (await here.take(sns_message({"eventType": "Delivery"}), "ses")).status == 401  # unsigned
    assert amazon.asked == ["/" + CERTIFICATE_URL.rpartition("/")[2]]
    assert not amazon.trouble


async def test_a_certificate_in_the_folder_is_not_fetched(tmp_path: Path, amazon: Amazon) -> None:
    (tmp_path / CERTIFICATE_URL.rpartition("/")[2]).write_bytes(certificate())
    async with receiving(tmp_path, amazon, tmp_path) as here:
        assert (await notify(here)).status == 200
    assert amazon.asked == []


FAILURES: dict[str, Callable[[], web.Response]] = {
    "redirect": lambda: web.Response(status=302, headers={"Location": "https://sns.us-east-1.amazonaws.com/other.pem"}),
    "error": lambda: web.Response(status=500, body=certificate()),
    "too large": lambda: web.Response(body=certificate() + b" " * 64_000),
    "a portal's page": lambda: web.Response(text="<html>log in first</html>"),
    "nothing": lambda: web.Response(),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=list(FAILURES))
async def test_a_certificate_that_cannot_be_had_is_503_and_asked_for_again(
    tmp_path: Path, amazon: Amazon, failure: Callable[[], web.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, amazon.answer = amazon.answer, failure
    async with receiving(tmp_path, amazon) as here:
        assert [(await notify(here)).status for _ in range(2)] == [503, 503]
        assert len(amazon.asked) == 1  # not at each request
        assert len(amazon.trouble) == 1
        assert "SimpleNotificationService" not in amazon.trouble[0]
        amazon.answer = right
    monkeypatch.setattr(sns, "FAILED_FOR_S", 0.0)
    amazon.answer = failure
    (tmp_path / "again").mkdir()
    async with receiving(tmp_path / "again", amazon) as here:
        assert (await notify(here)).status == 503
        amazon.answer = right
        assert (await notify(here)).status == 200


async def test_a_subscription_of_a_listed_topic_is_confirmed_and_no_other(
    tmp_path: Path, amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sns, "CONFIRM_AGAIN_S", (0.01, 0.01, 60.0))
    async with receiving(tmp_path, amazon) as here:
        assert await confirm(here, "arn:aws:sns:us-east-1:999999999999:foreign") == 401
        assert (await notify(here)).status == 200
        answers = [web.Response(status=403), web.Response(status=302, headers={"Location": "/"}), web.Response()]
        amazon.answer = lambda: answers.pop(0)
        assert await confirm(here) == 200
        async with asyncio.timeout(10):
            await amazon.confirmed.wait()
        assert amazon.asked[1:] == [SUBSCRIBE.removeprefix("https://sns.us-east-1.amazonaws.com")] * 3
        assert len(amazon.trouble) == 2
        assert "a-token" not in str(amazon.trouble)
        assert here.tables() == {}
