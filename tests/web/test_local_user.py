"""Without a token, what shows addresses or changes anything is for root and the relay's own user only."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.config.network import AnyAddress, TcpAddress, UnixAddress
from relay.store.base import Store
from relay.web import local_user
from relay.web.backend import Backend
from tests.web.conftest import TOKEN, Served, message, serve

OTHER_UID = 65534
WITHIN_S = 30
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

ASK = """
import http.client, json, os, socket, sys
kind, where, method, path = sys.argv[1:5]
os.setresuid(*[int(sys.argv[6])] * 3)
connection = http.client.HTTPConnection("localhost", timeout=20)
if kind == "unix":
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(where)
else:
    family = socket.AF_INET if kind == "v4" else socket.AF_INET6
    connection.sock = socket.socket(family)
    connection.sock.connect(({"v4": "127.0.0.1", "mapped": "::ffff:127.0.0.1", "v6": "::1"}[kind], int(where)))
body = json.dumps({"all": True}) if method == "POST" else None
connection.request(method, path, body, {"Content-Type": "application/json", **json.loads(sys.argv[5])})
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""
"""A program of its own. It becomes another user once it is loaded: that one may not be able to read the interpreter."""


async def ask(
    kind: str, server: Served, method: str, path: str, uid: int, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    address = server.address
    where = address.path if isinstance(address, UnixAddress) else str(port(address))
    given = [sys.executable, "-I", "-S", "-c", ASK, kind, where, method, path, json.dumps(headers or {}), str(uid)]
    done = await asyncio.to_thread(
        subprocess.run, given, cwd="/", capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    status, text = json.loads(done.stdout)
    return status, text


def port(address: AnyAddress) -> int:
    assert isinstance(address, TcpAddress)
    return address.port


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may look into: pytest's own are for one."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


async def serve_on(backend: Backend, kind: str, folder: Path, token: str | None = None) -> Served:
    addresses: dict[str, AnyAddress] = {
        "unix": UnixAddress(str(folder / "http.sock")),
        "v4": TcpAddress("127.0.0.1", 0),
        "mapped": TcpAddress("127.0.0.1", 0),
        "v6": TcpAddress("::1", 0),
    }
    server, _ = await serve(backend, token, address=addresses[kind])
    return server


KINDS = ["v4", "mapped", "v6", "unix"]
SHOWS = ["/api/messages", "/api/messages/01A", "/api/queue", "/api/live", "/api/report", "/nowhere"]
OPEN = ["/metrics", "/healthz", "/readyz", "/", "/m/01A", "/static/console.js", "/favicon.ico", "/api/openapi.json"]


def skip_without_ipv6(kind: str) -> None:
    if kind == "v6" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")


@as_root
@pytest.mark.parametrize("kind", KINDS)
async def test_another_user_sees_no_address_and_changes_nothing(
    backend: Backend, store: Store, folder: Path, kind: str
) -> None:
    skip_without_ipv6(kind)
    await store.put(message("01A"), claimed=False)
    server = await serve_on(backend, kind, folder)
    try:
        for path in SHOWS:
            status, text = await ask(kind, server, "GET", path, OTHER_UID)
            assert status == 401, path
            assert "root" in json.loads(text)["error"]
            assert "example.net" not in text
        for path in ("/api/queue/drop", "/api/queue/hold", "/metrics"):
            assert (await ask(kind, server, "POST", path, OTHER_UID))[0] == 401, path
            assert (await ask(kind, server, "DELETE", path, OTHER_UID))[0] == 401, path
        assert [row.state for row in await store.counts()] == ["queued"]
        for path in OPEN:
            status, text = await ask(kind, server, "GET", path, OTHER_UID)
            assert status == 200, path
            assert "example.net" not in text
    finally:
        await server.stop()


@as_root
@pytest.mark.parametrize("kind", KINDS)
async def test_root_and_the_relays_own_user_may_read_and_change(
    backend: Backend, store: Store, folder: Path, kind: str
) -> None:
    skip_without_ipv6(kind)
    await store.put(message("01A"), claimed=False)
    server = await serve_on(backend, kind, folder)
    try:
        status, text = await ask(kind, server, "GET", "/api/messages", 0)
        assert (status, "user@example.net" in text) == (200, True)
        status, text = await ask(kind, server, "POST", "/api/queue/hold", 0)
        assert (status, json.loads(text)["changed"]) == (200, ["01A"])
    finally:
        await server.stop()


@as_root
@pytest.mark.parametrize("kind", ["v4", "unix"])
async def test_with_a_token_the_user_does_not_matter(backend: Backend, folder: Path, kind: str) -> None:
    server = await serve_on(backend, kind, folder, TOKEN)
    try:
        shown = {"Authorization": f"Bearer {TOKEN}"}
        assert (await ask(kind, server, "GET", "/api/messages", OTHER_UID, shown))[0] == 200
        assert (await ask(kind, server, "GET", "/api/messages", 0))[0] == 401
    finally:
        await server.stop()


LINE = "   7: 0100007F:1234 0100007F:1F59 %s 00000000:00000000 00:00000000 00000000 %5d  0 %d 1 0 20 4 30 10 -1\n"
"""of /proc/net/tcp: port 4660 of loopback to port 8025; state, user, inode"""


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


def test_the_user_of_a_connection_is_known_while_it_is_open() -> None:
    client, server = connected()
    ends = server.getpeername(), server.getsockname()
    assert local_user.user_of(*ends) == os.geteuid()
    # The kernel shows a socket that its process has closed as root's.
    client.close()
    assert local_user.user_of(*ends) is None
    server.close()


def test_without_the_kernels_table_the_user_is_unknown(tmp_path: Path) -> None:
    client, server = connected()
    assert local_user.user_of(server.getpeername(), server.getsockname(), tmp_path) is None
    for nothing in ("", None, ("nowhere", 1), ("10.0.0.1", "x")):
        assert local_user.user_of(nothing, server.getsockname()) is None
    client.close()
    server.close()


def test_a_socket_without_a_process_has_no_user(tmp_path: Path) -> None:
    client, server = ("127.0.0.1", 4660), ("127.0.0.1", 8025)
    for state, uid, inode, found in (
        ("01", 1000, 77, 1000),
        ("01", 0, 0, None),
        ("05", 0, 0, None),
        ("06", 0, 77, None),
    ):
        (tmp_path / "tcp").write_text(LINE % (state, uid, inode))
        assert local_user.user_of(client, server, tmp_path) == found


def test_two_users_at_one_address_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(LINE % ("01", 0, 77) + LINE % ("01", 1000, 78))
    assert local_user.user_of(("127.0.0.1", 4660), ("127.0.0.1", 8025), tmp_path) is None
