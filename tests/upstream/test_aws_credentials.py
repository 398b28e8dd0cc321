"""AWS credentials against metadata services and an STS that answer over real sockets; only the clock is the test's."""

from __future__ import annotations

import asyncio
import json
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from relay.providers.api import Answer, Credentials
from relay.supervise import Supervisor
from relay.upstream.http.aws import (
    LOCAL_WITHIN_S,
    PAUSES_S,
    STS_WITHIN_S,
    AwsCredentials,
    CredentialsUnavailable,
)
from relay.upstream.http.fetch import Fetch, FetchFailed

START = 1_790_000_000.0
HOUR = 3_600.0
SECRETS = ("own-secret", "own-token", "secret-of-", "session-of-")
ROLE_ARN = "arn:aws:iam::123456789012:role/mail"


class Heard(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Time:
    """A clock that stands still until it is moved, and sleeps by it."""

    def __init__(self) -> None:
        self.now = START
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, waker))
        await waker

    def wake(self) -> None:
        """End the sleeps that are over."""
        for at, waker in self._sleepers:
            if at <= self.now and not waker.done():
                waker.set_result(None)
        self._sleepers = [one for one in self._sleepers if not one[1].done()]

    async def pass_(self, seconds: float) -> None:
        """Move on from the end of one sleep to that of the next, as the keeper's loop sees it. What it does between
        two sleeps is done at one moment."""
        end = self.now + seconds
        while True:
            await until(lambda: bool(self._sleepers))
            self.now = min(max(self.now, min(at for at, _ in self._sleepers)), end)
            if all(at > self.now for at, _ in self._sleepers):
                return
            self.wake()


async def settled() -> None:
    """Give what mustn't happen the time to happen."""
    for _ in range(3):
        await asyncio.sleep(0.005)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.001)


async def until_used(source: AwsCredentials, access_key_id: str) -> None:
    async with asyncio.timeout(10):
        while (await source.current()).access_key_id != access_key_id:
            await asyncio.sleep(0.001)


@dataclass
class Service:
    """IMDS, a container's service and STS at once. Each credentials are of another `serial`."""

    time: Time
    life_s: float = HOUR
    status: int = 200
    port: int = 0
    heard: list[Heard] = field(default_factory=list)
    serial: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def imds(self) -> dict[str, str]:
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    @property
    def container(self) -> dict[str, str]:
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/v1/credentials"}

    def sts(self, token_file: Path) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_STS": self.url,
            "AWS_ROLE_ARN": ROLE_ARN,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.heard.append(Heard(method, target, headers, body))
            await self.gate.wait()
            content = self.answer(self.heard[-1]).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n" % (self.status, len(content)))
            writer.write(b"Connection: close\r\n\r\n" + content)
            await writer.drain()
        writer.close()

    def answer(self, heard: Heard) -> str:
        if self.status != 200:
            return "own-secret"
        if heard.target == "/latest/api/token":
            return "imds-session" if heard.method == "PUT" else ""
        if heard.target.endswith("/security-credentials/"):
            return "mail-role"
        self.serial += 1
        key, secret, session = f"AKID{self.serial}", f"secret-of-{self.serial}", f"session-of-{self.serial}"
        end = datetime.fromtimestamp(self.time.now + self.life_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if heard.method == "POST":
            return (
                f"<R><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
                f"<SessionToken>{session}</SessionToken><Expiration>{end}</Expiration></Credentials></R>"
            )
        fields = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": session, "Expiration": end}
        return json.dumps({"Code": "Success", **fields})


@asynccontextmanager
async def service(time: Time, life_s: float = HOUR) -> AsyncIterator[Service]:
    it = Service(time, life_s)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    async with server:
        yield it
        it.gate.set()


def credentials_of(time: Time, environ: dict[str, str], lines: list[str] | None = None) -> AwsCredentials:
    ended: list[str] = [] if lines is None else lines
    supervisor = Supervisor(lambda name, error: ended.append(f"{name} ended: {error!r}"), (0.0,))
    return AwsCredentials(
        environ,
        "eu-west-1",
        supervisor,
        failed=ended.append,
        clock=time,
        sleep=time.sleep,
    )


@pytest.fixture
def time() -> Time:
    return Time()


def serials(found: list[Credentials]) -> set[str]:
    return {one.access_key_id for one in found}


async def test_an_instance_is_asked_for_a_session_and_its_roles_credentials(time: Time) -> None:
    async with service(time) as imds:
        source = credentials_of(time, imds.imds)
        assert await source.current() == Credentials(
            access_key_id="AKID1",
            secret_access_key="secret-of-1",
            session_token="session-of-1",
            region="eu-west-1",
        )
        path = "/latest/meta-data/iam/security-credentials/"
        assert [(one.method, one.target) for one in imds.heard] == [
            ("PUT", "/latest/api/token"),
            ("GET", path),
            ("GET", f"{path}mail-role"),
        ]
        assert "x-aws-ec2-metadata-token-ttl-seconds" in imds.heard[0].headers
        assert [one.headers.get("x-aws-ec2-metadata-token") for one in imds.heard[1:]] == ["imds-session"] * 2
        await source.close()


async def test_a_containers_token_file_is_read_for_each_renewal(time: Time, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with service(time) as pod:
        source = credentials_of(time, {**pod.container, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file)})
        source.start()
        await source.current()
        file.write_text("second")
        await time.pass_(HOUR)
        assert [one.headers["authorization"] for one in pod.heard[:2]] == ["first", "second"]
        await source.close()


async def test_a_containers_token_may_stand_in_the_environment(time: Time) -> None:
    async with service(time) as pod:
        source = credentials_of(time, {**pod.container, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Bearer xyz"})
        assert serials([await source.current()]) == {"AKID1"}
        assert [(one.target, one.headers["authorization"]) for one in pod.heard] == [("/v1/credentials", "Bearer xyz")]


async def test_the_web_identitys_token_file_is_read_for_each_renewal(time: Time, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first.jwt.x\n")
    async with service(time) as sts:
        source = credentials_of(time, sts.sts(file))
        source.start()
        assert (await source.current()).session_token == "session-of-1"
        file.write_text("second.jwt.x\n")
        await time.pass_(HOUR)
        forms = [parse_qs(one.body.decode()) for one in sts.heard[:2]]
        assert [form["WebIdentityToken"] for form in forms] == [["first.jwt.x"], ["second.jwt.x"]]
        assert [form["RoleArn"] for form in forms] == [[ROLE_ARN]] * 2
        assert (await source.current()).session_token != "session-of-1"
        await source.close()


async def test_many_callers_wait_for_one_fetch(time: Time) -> None:
    async with service(time) as pod:
        pod.gate.clear()
        source = credentials_of(time, pod.container)
        source.start()
        callers = [asyncio.create_task(source.current()) for _ in range(20)]
        await until(lambda: len(pod.heard) > 0)
        await settled()
        assert not [one for one in callers if one.done()]
        pod.gate.set()
        assert serials(await asyncio.gather(*callers)) == {"AKID1"}
        assert len(pod.heard) == 1
        await source.close()


async def test_a_caller_that_is_cancelled_ends_no_fetch_of_others(time: Time) -> None:
    async with service(time) as pod:
        pod.gate.clear()
        source = credentials_of(time, pod.container)
        first, second = (asyncio.create_task(source.current()) for _ in range(2))
        await until(lambda: len(pod.heard) > 0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        pod.gate.set()
        assert serials([await second]) == {"AKID1"}
        assert len(pod.heard) == 1


async def test_valid_credentials_are_there_at_once(time: Time) -> None:
    async with service(time) as pod:
        source = credentials_of(time, pod.container)
        await source.current()
    # Nothing listens any more.
    time.now += 0.79 * HOUR
    assert serials([await source.current() for _ in range(3)]) == {"AKID1"}


async def test_they_are_renewed_ahead_of_their_end_with_no_mail_to_send(time: Time) -> None:
    async with service(time) as pod:
        source = credentials_of(time, pod.container)
        source.start()
        await until(lambda: pod.serial == 1)
        await time.pass_(0.79 * HOUR)
        assert len(pod.heard) == 1
        await time.pass_(0.02 * HOUR)
        assert len(pod.heard) == 2
        assert serials([await source.current()]) == {"AKID2"}
        assert max(time.slept) <= 60, "a clock that is set meanwhile must be noticed"
        await source.close()


async def test_during_a_renewal_the_old_ones_are_used(time: Time) -> None:
    async with service(time) as pod:
        source = credentials_of(time, pod.container)
        source.start()
        await source.current()
        pod.gate.clear()
        time.now += 0.81 * HOUR
        time.wake()
        await until(lambda: len(pod.heard) == 2)
        assert serials([await source.current() for _ in range(3)]) == {"AKID1"}
        pod.gate.set()
        await until_used(source, "AKID2")
        assert len(pod.heard) == 2
        await source.close()


async def test_behind_failures_the_pauses_grow_and_the_old_ones_stay_in_use(time: Time) -> None:
    lines: list[str] = []
    async with service(time, life_s=12 * HOUR) as pod:
        source = credentials_of(time, pod.container, lines)
        source.start()
        await source.current()
        await time.pass_(9.6 * HOUR - 1)
        pod.status = 500
        time.slept.clear()
        await time.pass_(1 + sum(PAUSES_S) + PAUSES_S[-1])
        assert time.slept[-len(PAUSES_S) - 1 :] == pytest.approx([*PAUSES_S[1:], PAUSES_S[-1], PAUSES_S[-1]], abs=0.01)
        assert serials([await source.current()]) == {"AKID1"}
        assert lines == ["the container's credential service answered HTTP 500"]
        pod.status = 200
        await time.pass_(PAUSES_S[-1])
        assert serials([await source.current()]) == {"AKID2"}
        pod.status = 500
        await time.pass_(9.6 * HOUR)
        assert PAUSES_S[0] in time.slept[-3:], "behind a success the first pause is the shortest again"
        await source.close()


async def test_past_their_end_no_credentials_are_better_than_expired_ones(time: Time) -> None:
    async with service(time) as pod:
        source = credentials_of(time, pod.container)
        await source.current()
        pod.status = 500
        time.now += HOUR
        with pytest.raises(CredentialsUnavailable, match="HTTP 500"):
            await source.current()
        assert len(pod.heard) == 2


async def test_within_the_pause_a_failure_is_told_at_once_and_not_asked_again(time: Time) -> None:
    async with service(time) as pod:
        pod.status = 503
        source = credentials_of(time, pod.container)
        for _ in range(5):
            with pytest.raises(CredentialsUnavailable, match="HTTP 503"):
                await source.current()
        assert len(pod.heard) == 1
        pod.status = 200
        time.now += PAUSES_S[0]
        assert serials([await source.current()]) == {"AKID1"}


async def test_a_clock_that_is_set_back_prolongs_no_pause(time: Time) -> None:
    async with service(time) as pod:
        pod.status = 503
        source = credentials_of(time, pod.container)
        with pytest.raises(CredentialsUnavailable):
            await source.current()
        pod.status = 200
        time.now -= 24 * HOUR
        assert serials([await source.current()]) == {"AKID1"}


async def test_after_a_suspension_the_next_mail_starts_the_renewal(time: Time) -> None:
    """The keeper still sleeps then."""
    async with service(time) as pod:
        source = credentials_of(time, pod.container)
        source.start()
        await source.current()
        await settled()
        time.now += 0.9 * HOUR
        assert serials([await source.current()]) == {"AKID1"}
        await until_used(source, "AKID2")
        time.now += 2 * HOUR
        assert serials([await source.current()]) == {"AKID3"}
        await source.close()


async def test_a_failure_is_reported_again_once_it_is_another(time: Time) -> None:
    lines: list[str] = []
    async with service(time) as pod:
        source = credentials_of(time, pod.container, lines)
        for status in (500, 500, 403, 200, 403):
            pod.status = status
            with suppress(CredentialsUnavailable):
                await source.current()
            time.now += 2 * HOUR
    name = "the container's credential service answered HTTP"
    assert lines == [f"{name} 500", f"{name} 403", f"{name} 403"]


async def test_closing_tells_those_that_wait(time: Time) -> None:
    async with service(time) as pod:
        pod.gate.clear()
        source = credentials_of(time, pod.container)
        source.start()
        waiting = asyncio.create_task(source.current())
        await until(lambda: len(pod.heard) > 0)
        await source.close()
        with pytest.raises(CredentialsUnavailable, match="stopping"):
            await waiting
        with pytest.raises(CredentialsUnavailable, match="stopping"):
            await source.current()
        await source.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("aws ")]


async def test_closing_what_was_never_started_is_nothing(time: Time) -> None:
    await credentials_of(time, {}).close()


@pytest.mark.parametrize(("name", "shown"), [("none", "none"), ("no\r\nne", "no ne")])
async def test_a_missing_token_file_is_named_in_one_line(time: Time, tmp_path: Path, name: str, shown: str) -> None:
    async with service(time) as sts:
        with pytest.raises(CredentialsUnavailable) as caught:
            await credentials_of(time, sts.sts(tmp_path / name)).current()
        assert str(caught.value) == f"no such file: {tmp_path}/{shown}"
        assert sts.heard == []


UNFIT = [
    (b"own-token\xff", "there is no web identity token"),
    (b"own token", "there is no web identity token"),
    (b"", "there is no web identity token"),
    (b"own-token" * 10_000, "is larger than 64 KiB"),
]


@pytest.mark.parametrize(("content", "reason"), UNFIT, ids=["not ASCII", "two words", "empty", "too long"])
async def test_a_file_that_holds_no_token_is_never_sent(
    time: Time, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    async with service(time) as sts:
        with pytest.raises(CredentialsUnavailable, match=reason) as caught:
            await credentials_of(time, sts.sts(file)).current()
        assert "own" not in str(caught.value)
        assert sts.heard == []


async def test_where_nothing_listens_the_source_is_named(time: Time) -> None:
    async with service(time) as imds:
        environ = imds.imds
    with pytest.raises(
        CredentialsUnavailable, match=r"^the instance's metadata service: connect: connection refused$"
    ) as caught:
        await credentials_of(time, environ).current()
    assert caught.value.__cause__ is None


async def test_an_environment_that_names_a_source_by_halves_has_no_credentials(time: Time) -> None:
    lines: list[str] = []
    source = credentials_of(time, {"AWS_ACCESS_KEY_ID": "AKID"}, lines)
    source.start()
    with pytest.raises(CredentialsUnavailable, match="AWS_SECRET_ACCESS_KEY isn't"):
        await source.current()
    await source.close()
    assert lines == ["AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY isn't"]


async def test_keys_in_the_environment_are_used_for_ever(time: Time) -> None:
    source = credentials_of(time, {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "own-secret"})
    source.start()
    expected = Credentials(access_key_id="AKID", secret_access_key="own-secret", region="eu-west-1")
    assert await source.current() == expected
    await time.pass_(200)
    time.now += 10_000 * HOUR
    assert await source.current() == expected
    await source.close()


class Asked(NamedTuple):
    host: str
    within_s: float
    tls_context: ssl.SSLContext | None
    proxy: str | None


async def test_only_sts_is_asked_through_the_proxy(time: Time, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("own-token")
    asked: list[Asked] = []

    async def fetcher(
        what: Fetch, *, within_s: float, tls_context: ssl.SSLContext | None = None, proxy: str | None = None
    ) -> Answer:
        asked.append(Asked(urlsplit(what.url).hostname or "", within_s, tls_context, proxy))
        raise FetchFailed("the connection was refused")

    context = ssl.create_default_context()
    web = {"AWS_ROLE_ARN": ROLE_ARN, "AWS_WEB_IDENTITY_TOKEN_FILE": str(file)}
    for environ in (web, {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, {}):
        supervisor = Supervisor(lambda name, error: None)
        source = AwsCredentials(
            environ, "eu-west-1", supervisor, fetcher=fetcher, tls_context=context, proxy="http://proxy:1", clock=time
        )
        with pytest.raises(CredentialsUnavailable):
            await source.current()
    assert asked == [
        Asked("sts.eu-west-1.amazonaws.com", STS_WITHIN_S, context, "http://proxy:1"),
        Asked("169.254.170.2", LOCAL_WITHIN_S, None, None),
        Asked("169.254.169.254", LOCAL_WITHIN_S, None, None),
    ]


async def test_no_line_and_no_repr_shows_a_secret(
    time: Time, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text("own-token")
    lines: list[str] = []
    async with service(time) as sts:
        source = credentials_of(time, sts.sts(file), lines)
        source.start()
        shown = [repr(source), repr(await source.current()), str(await source.current())]
        shown += [repr(task) for task in asyncio.all_tasks()]
        sts.status = 400
        time.now += HOUR
        with pytest.raises(CredentialsUnavailable) as caught:
            await source.current()
        shown += [repr(caught.value), *traceback.format_exception(caught.value)]
        await source.close()
    assert len(sts.heard) == 2
    output = capfd.readouterr()
    everything = "".join((*lines, *shown, caplog.text, output.out, output.err))
    assert not [secret for secret in SECRETS if secret in everything]
