"""An upstream with several addresses, of which some lead nowhere; real sockets, only the look-up is a stand-in."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from relay.config.model import Upstream as Config
from relay.upstream.addresses import Addresses
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.connect import open_session
from relay.upstream.target import Target
from tests.support.tls import Certificates
from tests.support.upstream import Hang, Upstream
from tests.upstream.test_pool import config, eventually, pool, send

NAME = "mail.example"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"
really = socket.getaddrinfo


class Names:
    """What the system knows about names, and how often it was asked."""

    def __init__(self) -> None:
        self.addresses: Sequence[str] | OSError = ()
        self.asked = 0

    def __call__(self, host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host != NAME or options.get("flags") == socket.AI_NUMERICHOST:
            return really(host, port, *rest, **options)
        self.asked += 1
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return [found for one in self.addresses for found in really(one, port, *rest, **options)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    stand_in = Names()
    monkeypatch.setattr(socket, "getaddrinfo", stand_in)
    return stand_in


@contextmanager
def black_hole(host: str, port: int = 0) -> Iterator[int]:
    """An address that answers no SYN: its backlog is full. Yields the port."""
    with socket.create_server((host, port), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((host, port))
            waiting.append(one)
        try:
            yield port
        finally:
            for one in waiting:
                one.close()


def target(port: int, **keys: Any) -> Target:
    settings = Config.model_validate({"host": NAME, "port": port, "tls": "none", **keys})
    return Target.of("up", settings, "relay.example.com")


async def peer(to: Target, within_s: float = 8.0) -> str:
    """Opens a session and closes it; the address it went to."""
    session = await open_session(to, timeout_s=within_s)
    try:
        return str(session.transport_info("peername")[0])
    finally:
        session.abort()


async def test_a_first_address_that_is_a_black_hole_costs_less_than_the_deadline(names: Names) -> None:
    with black_hole(FIRST) as port:
        async with Upstream(host=SECOND, port=port):
            names.addresses = (FIRST, SECOND)
            assert await peer(target(port), within_s=8.0) == SECOND


async def test_the_one_that_served_is_tried_first_from_then_on(names: Names) -> None:
    async with Upstream(host=SECOND) as second, Upstream(host=FIRST, port=second.port) as first:
        names.addresses = (FIRST, SECOND)
        await first.pause()
        to = target(second.port)
        assert await peer(to) == SECOND
        await first.resume()
        assert [await peer(to) for _ in range(3)] == [SECOND] * 3
        await second.pause()
        assert [await peer(to) for _ in range(2)] == [FIRST] * 2


async def test_one_that_connects_and_says_nothing_is_the_last_to_be_tried_again(names: Names) -> None:
    async with (
        Upstream(host=FIRST, script={"greeting": Hang()}) as silent,
        Upstream(host=SECOND, port=silent.port),
    ):
        names.addresses = (FIRST, SECOND)
        to = target(silent.port)
        with pytest.raises(OpenFailed, match="no answer in time"):
            await peer(to, within_s=0.3)
        assert await peer(to) == SECOND


async def test_with_a_black_hole_before_it_an_upstream_stays_in_use(names: Names) -> None:
    with black_hole(FIRST) as port:
        async with Upstream(host=SECOND, port=port) as upstream:
            names.addresses = (FIRST, SECOND)
            settings = config(upstream, host=NAME)
            async with pool(settings) as one:
                assert (await send(one, await one.pool.acquire(within_s=3))).results[0].outcome == "sent"
                assert one.circuit.state == "closed"


async def test_a_name_is_looked_up_once_for_many_sessions(names: Names) -> None:
    async with Upstream() as upstream:
        names.addresses = ("127.0.0.1",)
        to = target(upstream.port)
        await asyncio.gather(*(peer(to) for _ in range(5)))
        await peer(to)
        assert names.asked == 1


async def test_a_look_up_that_fails_leaves_the_last_good_answer_in_use(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.upstream.addresses.FRESH_FOR_S", 0.0)
    async with Upstream() as upstream:
        names.addresses = ("127.0.0.1",)
        to = target(upstream.port)
        await peer(to)
        names.addresses = socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
        for _ in range(3):
            await peer(to)
        await eventually(lambda: names.asked >= 2)


async def test_an_old_answer_is_looked_up_again_in_the_background(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.upstream.addresses.FRESH_FOR_S", 0.0)
    async with Upstream() as upstream, Upstream(host=SECOND, port=upstream.port):
        names.addresses = ("127.0.0.1",)
        to = target(upstream.port)
        assert await peer(to) == "127.0.0.1"
        names.addresses = (SECOND,)
        assert await peer(to) == "127.0.0.1"
        await eventually(lambda: names.asked == 2)
        assert await peer(to) == SECOND


async def test_an_upstream_that_moved_is_found_once_the_old_address_refuses(names: Names) -> None:
    async with Upstream(host=SECOND) as upstream:
        names.addresses = (FIRST,)
        to = target(upstream.port)
        with pytest.raises(OpenFailed, match="connection refused"):
            await peer(to)
        names.addresses = (SECOND,)

        async def found() -> str | None:
            try:
                return await peer(to)
            except OpenFailed:
                return None

        async with asyncio.timeout(8):
            while await found() != SECOND:
                await asyncio.sleep(0.01)


async def test_an_unknown_name_fails_with_the_systems_own_text(names: Names) -> None:
    names.addresses = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for _ in range(2):
        with pytest.raises(OpenFailed) as failed:
            await peer(target(25))
        assert (failed.value.phase, failed.value.reason) == (
            "connect",
            "connect: name or service not known",
        )


async def test_the_deadline_of_an_opening_includes_a_look_up_that_hangs() -> None:
    goes_on = asyncio.Event()

    async def hangs(host: str, port: int) -> Any:
        await goes_on.wait()
        return really("127.0.0.1", port, type=socket.SOCK_STREAM)

    async with Upstream() as upstream:
        to = replace(target(upstream.port), addresses=Addresses(NAME, upstream.port, hangs))
        for _ in range(2):
            with pytest.raises(OpenFailed, match=r"connect: no answer in time"):
                await peer(to, within_s=0.1)
        goes_on.set()
        assert await peer(to) == "127.0.0.1"


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_the_certificate_must_be_the_names_whatever_the_address(
    certificates: Certificates, names: Names, tls: Any
) -> None:
    """The stand-in's certificate is for localhost and 127.0.0.1."""
    async with Upstream(tls=tls, certificate=certificates.good) as upstream:
        names.addresses = ("127.0.0.1",)
        with pytest.raises(OpenFailed, match="certificate not trusted"):
            await peer(target(upstream.port, tls=tls, ca_file=certificates.ca_file))
        local = Config.model_validate(
            {"host": "localhost", "port": upstream.port, "tls": tls, "ca_file": certificates.ca_file}
        )
        assert await peer(Target.of("up", local, "relay.example.com")) == "127.0.0.1"


@contextmanager
def elsewhere(**options: Any) -> Iterator[Upstream]:
    """A stand-in on a loop of its own: it needs asyncio's."""
    with asyncio.Runner() as runner:
        upstream, ended = Upstream(**options), asyncio.Event()
        stands = threading.Event()

        async def serve() -> None:
            async with upstream:
                stands.set()
                await ended.wait()

        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        try:
            assert stands.wait(5)
            yield upstream
        finally:
            runner.get_loop().call_soon_threadsafe(ended.set)
            thread.join()


def test_it_is_the_same_on_the_loop_that_the_relay_runs_on(certificates: Certificates) -> None:
    with (
        elsewhere(tls="implicit", certificate=certificates.good) as upstream,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        settings = {"host": "127.0.0.1", "port": upstream.port, "tls": "implicit"}
        good = Target.of(
            "up", Config.model_validate({**settings, "ca_file": certificates.ca_file}), "relay.example.com"
        )
        strange = Target.of("up", Config.model_validate(settings), "relay.example.com")

        async def all_of_it() -> None:
            for _ in range(3):
                session = await open_session(good, timeout_s=5.0)
                connection = session.transport_info("socket")
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                session.abort()
                with pytest.raises(OpenFailed, match="not trusted"):
                    await open_session(strange, timeout_s=5.0)
            for turns in range(30):  # called off at any turn, nothing of the opening stays
                opening = asyncio.create_task(open_session(good, timeout_s=5.0))
                for _ in range(turns):
                    await asyncio.sleep(0)
                opening.cancel()
                ended = (await asyncio.gather(opening, return_exceptions=True))[0]
                if not isinstance(ended, BaseException):
                    ended.abort()
            await eventually(lambda: upstream.open == 0)

        runner.run(all_of_it())


async def test_no_name_is_no_look_up(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str, port: int) -> Any:
        raise AssertionError

    for address in ("127.0.0.1", "::1"):
        try:
            upstream = await Upstream(host=address).__aenter__()
        except OSError:
            continue  # a machine without IPv6
        settings = Config.model_validate({"host": address, "port": upstream.port, "tls": "none"})
        to = Target.of("up", settings, "relay.example.com")
        to = replace(to, addresses=Addresses(address, upstream.port, never))
        assert await peer(to) == address
        await upstream.__aexit__(None, None, None)
