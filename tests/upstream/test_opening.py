"""Opening a session, where it goes another way than usual."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import Any

import pytest

from relay.config.model import Upstream as Config
from relay.upstream.results import GARBLED, OpenFailed
from relay.upstream.smtp.bounded import BoundedProtocol
from relay.upstream.smtp.connect import open_session
from relay.upstream.smtp.replies import MAX_LINE_BYTES, MAX_REPLY_BYTES, MAX_REPLY_LINES
from relay.upstream.target import Target
from tests.support.script import Script
from tests.support.tls import Certificates
from tests.support.upstream import Close, Endless, Hang, Moment, Reset, Split, Upstream

LOGIN_ONLY = "250-mock\n250-PIPELINING\n250 AUTH LOGIN"


async def opened(upstream: Upstream, *, within_s: float = 5.0, **keys: Any) -> None:
    """Open a session and close it. Raises OpenFailed."""
    settings = Config.model_validate({"host": upstream.host, "port": upstream.port, "tls": "none", **keys})
    session = await open_session(Target.of("up", settings, "relay.example.com"), timeout_s=within_s)
    session.abort()


def away() -> str:
    """An address of this machine that isn't loopback. Skips where there is none."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing: it only picks the way out
        except OSError:
            pytest.skip("no network but loopback")
        return str(probe.getsockname()[0])


async def test_an_upstream_that_offers_only_login_gets_login() -> None:
    async with Upstream(auth={"u": "s3cret"}, script={"ehlo": LOGIN_ONLY}) as upstream:
        await opened(upstream, username="u", password="s3cret")
        assert upstream.sessions[0].user == "u"


async def test_an_upstream_that_offers_no_auth_gets_no_credentials() -> None:
    async with Upstream() as upstream:
        with pytest.raises(OpenFailed, match="AUTH is not offered"):
            await opened(upstream, username="u", password="s3cret")
        assert "AUTH" not in upstream.sessions[0].verbs


async def test_credentials_in_clear_stay_on_this_machine_unless_that_is_allowed() -> None:
    async with Upstream(auth={"u": "s3cret"}, host=away()) as upstream:
        with pytest.raises(OpenFailed, match="no credentials over a connection in clear"):
            await opened(upstream, username="u", password="s3cret")
        assert "AUTH" not in upstream.sessions[0].verbs
        await opened(upstream, username="u", password="s3cret", allow_plaintext=True)
        assert upstream.sessions[1].user == "u"


@pytest.mark.parametrize(
    ("script", "phase", "reply"),
    [
        ({"ehlo": Close()}, "ehlo", "451 4.4.2 otp-relay: connection lost"),
        ({"ehlo": Reset()}, "ehlo", "451 4.4.2 otp-relay: connection lost"),
        ({"ehlo": "250-mock\n250 AUTH XOAUTH2"}, "auth", "454 4.7.0 otp-relay: AUTH is not offered"),
        ({"auth": Close()}, "auth", "451 4.4.2 otp-relay: connection lost"),
        ({"auth": Hang()}, "auth", "451 4.4.1 otp-relay: no answer in time"),
        ({"auth": "535 5.7.8 wrong"}, "auth", "535 5.7.8 wrong"),
        ({"auth": "454 4.7.0 later"}, "auth", "454 4.7.0 later"),
    ],
)
async def test_a_failed_opening_names_its_phase_and_its_reason(script: Any, phase: str, reply: str) -> None:
    async with Upstream(auth={"u": "s3cret"}, script=script) as upstream:
        with pytest.raises(OpenFailed) as failed:
            await opened(upstream, within_s=0.5, username="u", password="s3cret")
    assert failed.value.phase == phase
    assert str(failed.value.reply).startswith(reply)


async def test_a_refused_connection_is_described_by_the_system_without_the_address() -> None:
    async with Upstream() as gone:
        pass
    with pytest.raises(OpenFailed) as failed:
        await opened(gone)
    assert (failed.value.phase, str(failed.value.reply)) == ("connect", "451 4.4.1 otp-relay: connection refused")
    gone.host = "no-such-host.invalid"
    with pytest.raises(OpenFailed) as failed:
        await opened(gone, within_s=10)
    assert failed.value.phase == "connect"
    assert str(failed.value.reply).startswith("451 4.4.1 ")
    assert "invalid" not in str(failed.value.reply)


def bounds_exceeded(line: bytes) -> int:
    """The bytes after which one of the bounds is exceeded by lines such as that."""
    if b"\n" not in line:
        return MAX_LINE_BYTES
    return min(MAX_REPLY_BYTES, MAX_REPLY_LINES * len(line))


def after_tls(line: bytes, at_once: int) -> Script:
    """The reply to EHLO has no end, where it isn't the first on the session."""

    def decide(moment: Moment) -> Any:
        return Endless(line, at_once) if moment.step == "ehlo" and moment.n_in_session == 1 else None

    return decide


@pytest.mark.parametrize(
    ("line", "at_once"),
    [
        (b"250-\r\n", 4),
        (b"250-" + b"x" * 1_000 + b"\r\n", 1),
        (b"250-" + b"x" * 100, 1),
        (b"220 2.0.0 a whole reply\r\n", 2),
    ],
    ids=["lines", "bytes", "one line", "replies"],
)
@pytest.mark.parametrize(
    ("step", "tls"),
    [
        ("greeting", None),
        ("ehlo", None),
        ("auth", None),
        ("starttls", "starttls"),
        ("ehlo", "starttls"),
        ("greeting", "implicit"),
        ("ehlo", "implicit"),
        ("auth", "implicit"),
    ],
)
async def test_an_endless_reply_while_a_session_opens_ends_the_connection_at_its_bound(
    certificates: Certificates, line: bytes, at_once: int, step: Any, tls: Any
) -> None:
    script: Script = {step: Endless(line, at_once)}
    if (step, tls) == ("ehlo", "starttls"):
        script = after_tls(line, at_once)
    async with Upstream(
        tls=tls, certificate=certificates.good if tls else None, auth={"u": "s3cret"}, script=script
    ) as upstream:
        keys: dict[str, Any] = {"tls": tls, "ca_file": certificates.ca_file} if tls else {}
        with pytest.raises(OpenFailed) as failed:
            await opened(upstream, within_s=60.0, username="u", password="s3cret", **keys)
        await upstream.wait_until(lambda: upstream.closed == 1)
        # What the upstream writes until it notices the end comes on top.
        assert upstream.sessions[0].endless_bytes < bounds_exceeded(line) + 40 * len(line) * at_once
    assert failed.value.reply.transient
    if not line.endswith(b"reply\r\n"):  # a whole reply may stand for the next command's, or in a handshake's place
        assert (failed.value.phase, failed.value.reply) == ("tls" if tls == "starttls" else step, GARBLED)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("broken", [Close(), Reset()], ids=["FIN", "RST"])
async def test_a_connection_lost_in_the_handshake_is_a_failure_that_may_pass(
    certificates: Certificates, tls: Any, broken: Any
) -> None:
    async with Upstream(tls=tls, certificate=certificates.good, script={"handshake": broken}) as upstream:
        with pytest.raises(OpenFailed) as failed:
            await opened(upstream, tls=tls, ca_file=certificates.ca_file)
    assert failed.value.phase in ("tls", "connect")
    assert failed.value.reply.transient


async def test_what_somebody_on_the_way_puts_behind_the_reply_to_starttls_is_not_taken_for_the_upstreams(
    certificates: Certificates,
) -> None:
    injected = b"220 2.0.0 ready\r\n250-mock\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
    async with Upstream(
        ("8BITMIME",), tls="starttls", certificate=certificates.good, script={"starttls": Split([injected])}
    ) as upstream:
        keys = {"host": upstream.host, "port": upstream.port, "tls": "starttls", "ca_file": certificates.ca_file}
        target = Target.of("up", Config.model_validate(keys), "relay.example.com")
        session = await open_session(target, timeout_s=5.0)
        offered = session.capabilities
        assert (offered.eightbitmime, offered.pipelining, offered.chunking) == (True, False, False)
        assert session.usable
        session.abort()


async def test_a_server_that_speaks_no_tls_at_all_is_a_failure_of_tls(certificates: Certificates) -> None:
    async with Upstream() as upstream:
        with pytest.raises(OpenFailed) as failed:
            await opened(upstream, tls="implicit", ca_file=certificates.ca_file)
    assert failed.value.phase == "tls"
    assert str(failed.value.reply).startswith("454 4.7.5 otp-relay: TLS failed")


async def test_a_handshake_that_hangs_ends_with_the_deadline(certificates: Certificates) -> None:
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(5), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = Config.model_validate(
        {"host": "127.0.0.1", "port": port, "tls": "implicit", "ca_file": certificates.ca_file}
    )
    with pytest.raises(OpenFailed, match="no answer in time"):
        await open_session(Target.of("up", settings, "relay.example.com"), timeout_s=0.3)
    silent.close()


async def test_a_cancelled_opening_takes_nothing_from_the_connection_that_gets_its_descriptor(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cancelling(BoundedProtocol):
        """Cancels the opening at the one moment when the handshake is over and the transport isn't handed out yet."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            opening.cancel()

    monkeypatch.setattr("relay.upstream.smtp.connect.BoundedProtocol", Cancelling)
    async with Upstream(tls="implicit", certificate=certificates.good, script={"greeting": Hang()}) as upstream:
        keys: dict[str, Any] = {"host": "localhost", "tls": "implicit", "ca_file": certificates.ca_file}
        opening = asyncio.create_task(opened(upstream, **keys))
        with pytest.raises(asyncio.CancelledError):
            await opening
        # Linux gives the lowest free descriptors to the next sockets.
        for ours, others in [socket.socketpair() for _ in range(4)]:
            reader, writer = await asyncio.open_connection(sock=ours)
            with closing(others), closing(writer):
                others.sendall(b"heard\n")
                async with asyncio.timeout(5):
                    assert await reader.readline() == b"heard\n"
        await upstream.wait_until(lambda: upstream.closed == 1)
