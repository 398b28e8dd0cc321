"""A private Postfix: its own configuration, queue and port below a directory of its own; stopped with the block.

async with Postfix(directory, sink=("127.0.0.1", 2526)) as postfix:
    ...  # takes mail on postfix.port, hands it to the sink
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

WITHIN_S = 30.0
GREETS_WITHIN_S = 10.0

_MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
mail_owner = postfix
myhostname = mta.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
alias_database =
relayhost = [{host}]:{sink}
default_transport = smtp
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{refused@example.net = 550 5.1.1 unknown here}} }}, permit
smtp_dns_support_level = disabled
smtputf8_enable = yes
disable_vrfy_command = yes
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{unchunked_port} inet n - n - - smtpd -o smtpd_discard_ehlo_keywords=chunking
127.0.0.1:{plain_port} inet n - n - - smtpd -o smtpd_discard_ehlo_keywords=chunking,pipelining,dsn
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class PostfixFailed(Exception):
    """It doesn't start; the text has its last words."""


def why_not() -> str | None:
    """Why none can be run here, in a word; None: it can."""
    if _program() is None:
        return "no Postfix (Debian: postfix)"
    if os.getuid() != 0:
        return "Postfix starts as root only"
    try:
        pwd.getpwnam("postfix")
    except KeyError:
        return "no user postfix"
    return None


def _program() -> str | None:
    return shutil.which("postfix", path="/usr/sbin:/usr/local/sbin:/usr/bin")


class Postfix:
    def __init__(self, sink: tuple[str, int]) -> None:
        self.sink = sink
        self.port = 0
        """offers everything that Postfix does"""
        self.unchunked_port = 0
        """no CHUNKING"""
        self.plain_port = 0
        """nor PIPELINING, nor DSN"""
        self.home = Path()

    @property
    def log(self) -> str:
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def __aenter__(self) -> Self:
        # Its daemons aren't root, so no folder on the way may be closed to them.
        self.home = Path(tempfile.mkdtemp(prefix="otp-relay-postfix-"))
        self.home.chmod(0o755)
        self.port, self.unchunked_port, self.plain_port = _free_ports(3)
        for name in ("config", "queue", "data"):
            (self.home / name).mkdir()
        shutil.chown(self.home / "data", "postfix")
        words = {
            "home": self.home,
            "host": self.sink[0],
            "sink": self.sink[1],
            "port": self.port,
            "unchunked_port": self.unchunked_port,
            "plain_port": self.plain_port,
        }
        (self.home / "config" / "main.cf").write_text(_MAIN.format(**words))
        (self.home / "config" / "master.cf").write_text(_MASTER.format(**words))
        try:
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def start(self) -> None:
        """Returns once it greets. Raises PostfixFailed."""
        code, said = await self._run("start")
        if code != 0:
            raise PostfixFailed(f"{said}\n{self.log}")
        await self._answers()

    async def stop(self) -> None:
        await self._run("stop")

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        await self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    async def _run(self, word: str) -> tuple[int, str]:
        program = _program()
        assert program is not None
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(self.home / "config"), word,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace")

    async def _answers(self) -> None:
        """Until it greets: before, the port is open but a daemon behind it may be failing."""
        try:
            async with asyncio.timeout(GREETS_WITHIN_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                said = await reader.readline()
                writer.write(b"QUIT\r\n")
                writer.close()
        except (OSError, TimeoutError):
            said = b""
        if not said.startswith(b"220 "):
            raise PostfixFailed(f"it doesn't greet\n{self.log}")


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
