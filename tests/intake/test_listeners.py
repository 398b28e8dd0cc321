"""Listeners: addresses, networks, the PROXY header, reload, drain, limits on connections."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.config.model import Limits, Listener
from relay.config.network import SystemdAddress, TcpAddress, UnixAddress
from relay.intake import sockets as sockets_module
from relay.intake.peer import peer_at
from relay.intake.registry import connections_allowed
from relay.intake.sockets import passed_sockets
from relay.intake.types import CannotListen, Submission
from tests.intake.harness import PATIENCE_S, Client, Recorder, listener, make_server, service
from tests.support.tls import Certificates

LOCAL = (ip_network("127.0.0.0/8"),)
ELSEWHERE = (ip_network("192.0.2.0/24"),)
V2 = b"\r\n\r\n\0\r\nQUIT\n"
MESSAGE = b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nhi\r\n.\r\n"


def v2(source: str, *, command: int = 1) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 5, 25)
    return V2 + bytes([0x20 | command, 0x11]) + struct.pack("!H", len(addresses)) + addresses


# Networks.


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("127.9.9.9", True), ("::1", False), ("10.0.0.1", False)],
)
def test_mapped_peers_are_judged_as_ipv4(host: str, inside: bool) -> None:
    assert peer_at(host).inside(LOCAL) is inside


def test_a_peer_s_name_is_its_plain_address() -> None:
    assert peer_at("::ffff:10.0.0.1").name == "10.0.0.1"
    assert peer_at("2001:DB8::1").name == "2001:db8::1"


def test_without_a_limit_of_its_own_a_remote_client_has_a_hundred_connections() -> None:
    assert connections_allowed(peer_at("10.0.0.1"), Limits()) == 100
    assert connections_allowed(peer_at("127.0.0.1"), Limits()) is None
    assert connections_allowed(peer_at("127.0.0.1", proxied=True), Limits()) == 100


async def test_a_client_outside_the_allowed_networks_is_refused() -> None:
    async with service(listener(allow=ELSEWHERE)) as relay, relay.connect() as client:
        assert await client.everything() == b"554 5.7.1 This network may not send mail here\r\n"
        assert relay.heard.reasons == ["allow"]


async def test_a_client_inside_the_allowed_networks_gets_a_session() -> None:
    async with service(listener(allow=(*ELSEWHERE, *LOCAL))) as relay, relay.session() as client:
        assert (await client.ask("NOOP")).startswith("250")


async def test_an_ipv4_client_of_a_dual_stack_listener_counts_as_ipv4() -> None:
    async with service(Listener(address=TcpAddress("::", 0), allow=LOCAL)) as relay, relay.connect() as client:
        await client.send(MESSAGE)
        await relay.recorder.wait_for(1)
    assert relay.recorder.taken[0].client == "127.0.0.1"


# PROXY.


@pytest.mark.parametrize(
    ("header", "client_name"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 5 25\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 5 25\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5 25\r\n", "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (v2("192.0.2.7"), "192.0.2.7"),
        (v2("192.0.2.7", command=0), "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_believed_proxy_names_the_client(header: bytes, client_name: str, at_once: bool) -> None:
    async with service(listener(proxy_protocol=LOCAL)) as relay, relay.connect() as client:
        if at_once:
            await client.send(header + MESSAGE)
        else:
            for byte in header:
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.reply()).startswith("220 ")
            await client.send(MESSAGE)
        await relay.recorder.wait_for(1)
    assert relay.recorder.taken[0].client == client_name


async def test_allow_judges_the_client_that_the_proxy_names() -> None:
    door = listener(proxy_protocol=LOCAL, allow=ELSEWHERE)
    async with service(door) as relay:
        async with relay.connect() as inside:
            await inside.send(v2("192.0.2.7"))
            assert (await inside.reply()).startswith("220 ")
        async with relay.connect() as outside:
            await outside.send(v2("198.51.100.7"))
            assert (await outside.everything()).startswith(b"554 5.7.1 ")


@pytest.mark.parametrize(
    "junk",
    [b"EHLO me\r\n", b"PROXY nonsense\r\n", b"PROXY " + b"x" * 200, b"PROXY TCP4 1.2.3.4\r\n", V2 + b"\x31\x11\0\0"],
)
async def test_a_bad_proxy_header_ends_the_connection_without_a_reply(junk: bytes) -> None:
    async with service(listener(proxy_protocol=LOCAL)) as relay, relay.connect() as client:
        await client.send(junk)
        with suppress(ConnectionResetError):
            assert await client.everything() == b""
        await relay.quiet()
        assert relay.heard.reasons == ["proxy"]


async def test_a_silent_proxy_has_a_deadline() -> None:
    async with service(listener(proxy_protocol=LOCAL), limits={"command_timeout_s": 0.2}) as relay:
        async with relay.connect() as client:
            await client.send(b"PROXY TCP4")
            assert await client.everything() == b""
        assert relay.heard.reasons == ["proxy"]


async def test_a_proxy_header_from_another_peer_is_an_unknown_command() -> None:
    async with service(listener(proxy_protocol=ELSEWHERE)) as relay, relay.connect() as client:
        await client.reply()
        assert (await client.ask("PROXY TCP4 192.0.2.7 127.0.0.1 5 25")).startswith("500 5.5.2")


async def test_behind_a_proxy_implicit_tls_begins_after_the_header(certificates: Certificates) -> None:
    door = listener(
        proxy_protocol=LOCAL,
        tls="implicit",
        cert_file=certificates.good.cert_file,
        key_file=certificates.good.key_file,
    )
    async with service(door) as relay, relay.connect() as client:
        client.writer.write(v2("192.0.2.7"))
        await client.start_tls(certificates.client_context())
        await client.hello()
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", ".")
    (taken,) = relay.recorder.taken
    assert (taken.client, taken.protocol) == ("192.0.2.7", "ESMTPS")


# Addresses.


async def test_a_unix_socket_takes_mail_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with service(Listener(address=UnixAddress(str(path)), allow=ELSEWHERE)) as relay:
        assert relay.server.addresses == (f"unix:{path}",)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(MESSAGE)
        await relay.recorder.wait_for(1)
        writer.close()
        assert reader is not None
    assert relay.recorder.taken[0].client == "unix"
    assert not path.exists()


async def test_the_socket_of_a_killed_relay_is_replaced_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with service(Listener(address=UnixAddress(str(path)))):
        other = make_server(Recorder())
        with pytest.raises(CannotListen, match=r"cannot listen on unix:.*: Address already in use"):
            await other.start([Listener(address=UnixAddress(str(path)))])
        assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("keep me")
    server = make_server(Recorder())
    with pytest.raises(CannotListen, match="Address already in use"):
        await server.start([Listener(address=UnixAddress(str(path)))])
    assert path.read_text() == "keep me"


async def test_a_taken_port_is_named_and_nothing_else_is_kept_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
        probe.close()
        port = taken.getsockname()[1]
        server = make_server(Recorder())
        with pytest.raises(CannotListen, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            await server.start(
                [Listener(address=TcpAddress("127.0.0.1", free)), Listener(address=TcpAddress("127.0.0.1", port))]
            )
        assert server.addresses == ()
        with socket.create_server(("127.0.0.1", free)):
            pass


async def test_a_host_that_isn_t_there_is_named() -> None:
    server = make_server(Recorder())
    with pytest.raises(CannotListen, match=r"cannot listen on nowhere\.invalid:25: "):
        await server.start([Listener(address=TcpAddress("nowhere.invalid", 25))])


async def test_systemd_s_sockets_are_taken_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        server = make_server(recorder := Recorder())
        await server.start([Listener(address=SystemdAddress("smtp"))], {"smtp": [passed]})
        assert server.addresses == (f"127.0.0.1:{passed.getsockname()[1]}",)
        _, writer = await asyncio.open_connection(*passed.getsockname())
        writer.write(MESSAGE)
        await recorder.wait_for(1)
        writer.close()
        await server.drain(PATIENCE_S)
        with pytest.raises(CannotListen, match="systemd passed no socket of that name"):
            await make_server(Recorder()).start([Listener(address=SystemdAddress("x"))])


def test_systemd_s_sockets_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        monkeypatch.setattr(sockets_module, "FIRST_PASSED_FD", ours.fileno())
        for names, expected in (("smtp", "smtp"), ("", "unknown")):
            environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": names}
            ((name, (passed,)),) = passed_sockets(environ, os.getpid()).items()
            assert name == expected
            assert passed.getsockname() == ours.getsockname()
            assert not passed.get_inheritable()
            passed.detach()


def test_sockets_passed_to_another_process_are_none_of_ours() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp"}
    assert passed_sockets(environ, os.getpid()) == {}


# Reload and drain.


async def test_a_reload_keeps_sessions_and_sockets_and_changes_the_rest() -> None:
    async with service(listener(lane="old")) as relay, relay.session() as client:
        port = relay.port
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>")
        await relay.server.reload([listener(lane="new"), Listener(address=TcpAddress("127.0.0.2", 0))])
        relay.server.configure(Limits(message_size_bytes=10), "relay.test")
        assert relay.port == port
        assert len(relay.server.addresses) == 2
        assert (await client.ask("DATA")).startswith("354")
        assert (await client.ask(".")).startswith("250 2.0.0")
        async with relay.session() as later:
            await later.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", "far too long\r\n.", "RSET")
            await later.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", ".")
    assert [each.listener.lane for each in relay.recorder.taken] == ["old", "new"]
    assert relay.heard.reasons == ["size"]


async def test_a_listener_that_is_gone_refuses_connections_and_keeps_its_sessions() -> None:
    async with service() as relay, relay.session() as client:
        port = relay.port
        await relay.server.reload([Listener(address=TcpAddress("127.0.0.2", 0))])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", ".")
        await relay.recorder.wait_for(1)


async def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with service() as relay:
        before = relay.server.addresses
        broken = listener(tls="starttls", cert_file=tmp_path / "no.pem", key_file=tmp_path / "no.key")
        with pytest.raises(CannotListen, match=r"no\.pem.*: No such file or directory"):
            await relay.server.reload([Listener(address=TcpAddress("127.0.0.2", 0)), broken])
        assert relay.server.addresses == before
        async with relay.session() as client:
            assert (await client.ask("NOOP")).startswith("250")


async def test_a_drain_ends_idle_sessions_and_lets_a_message_finish() -> None:
    storing, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_: Submission) -> None:
        storing.set()
        await go_on.wait()

    async with service(before=slowly) as relay, relay.session() as idle, relay.session() as busy:
        port = relay.port
        await busy.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA")
        await busy.send(b".\r\n")
        await asyncio.wait_for(storing.wait(), PATIENCE_S)
        drained = asyncio.create_task(relay.server.drain(PATIENCE_S))
        assert await idle.everything() == b"421 4.3.2 The service is shutting down\r\n"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        go_on.set()
        assert (await busy.everything()).startswith(b"250 2.0.0 queued as id-1\r\n421 4.3.2 ")
        assert await drained == 0


async def test_during_a_drain_a_message_under_way_is_taken_and_a_new_one_is_not() -> None:
    async with service() as relay, relay.session() as client:
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("250")
        await relay.server.stop_accepting()
        replies = await client.run("RCPT TO:<b@x.test>", "DATA")
        assert [reply[:9] for reply in replies] == ["250 2.1.5", "421 4.3.2"]
        assert await client.everything() == b""


async def test_a_drain_doesn_t_wait_for_ever() -> None:
    async with service() as relay, relay.session() as client:
        await client.run("MAIL FROM:<a@x.test>")
        assert await relay.server.drain(0.05) == 1
        with suppress(ConnectionResetError):
            assert await client.everything() == b""


async def test_two_listeners_on_any_free_port_have_one_each_and_keep_it_at_a_reload() -> None:
    server = make_server(Recorder())
    both = [Listener(address=TcpAddress("127.0.0.1", 0), lane=lane) for lane in ("otp", "bulk")]
    try:
        await server.start(both)
        first, second = server.addresses
        assert first != second
        await server.reload(both)
        assert server.addresses == (first, second)
        await server.reload([*both, both[0]])
        assert server.addresses[:2] == (first, second)
        assert len(set(server.addresses)) == 3
        await server.reload(both[:1])
        assert list(server.addresses) == [first]
    finally:
        await server.drain(0.1)


# Connections.


async def test_others_leave_a_fifth_of_the_connections_to_clients_of_this_machine(tmp_path: Path) -> None:
    def header(at: int) -> bytes:
        return f"PROXY TCP4 192.0.2.{at} 127.0.0.1 5 25\r\n".encode()

    doors = listener(proxy_protocol=LOCAL), Listener(address=UnixAddress(str(tmp_path / "smtp")))
    async with service(*doors, limits={"connections": 10}) as relay, AsyncExitStack() as stack:

        async def come(at: int) -> str:
            client = await stack.enter_async_context(relay.connect())
            await client.send(header(at))
            return (await client.reply())[:3]

        async def come_by_the_socket() -> str:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "smtp")
            stack.callback(writer.close)
            return (await Client(reader, writer).reply())[:3]

        silent = [await stack.enter_async_context(relay.connect()) for _ in range(4)]
        assert [await come(at) for at in range(10)] == ["220"] * 4 + ["421"] * 6
        for at, client in enumerate(silent):
            await client.send(header(at))
            assert (await client.reply()).startswith("220")
        assert [await come_by_the_socket() for _ in range(4)] == ["220"] * 2 + ["421"] * 2
        assert relay.heard.reasons == ["connections"] * 8


async def test_a_limit_of_one_connection_is_open_to_remote_clients_too() -> None:
    async with service(listener(proxy_protocol=LOCAL), limits={"connections": 1}) as relay, relay.connect() as client:
        await client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 5 25\r\n")
        assert (await client.reply()).startswith("220")


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fits"),
    [
        (4_000, 4_000, 500, 500),  # enough
        (400, 8_000, 500, 500),  # raised
        (400, 1_000, 500, 367),
        (400, 400, 500, 67),
        (100, 100, 500, 1),
    ],
)
def test_there_are_as_many_connections_as_descriptors_are_enough_for(
    soft: int, hard: int, wanted: int, fits: int
) -> None:
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from relay.config.model import Limits
from relay.intake.descriptors import fitted
print(fitted(Limits(connections={wanted}), 10).connections)
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(said.stdout) == fits
    assert ("event=connections_lowered" in said.stderr) is (fits < wanted)
