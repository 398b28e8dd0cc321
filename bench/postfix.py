"""Postfix with OpenDKIM as a contender: an instance of its own, tuned for codes as far as Postfix can be.

Own transport for codes (a header filter), own one for bulk, OpenDKIM as a milter on a unix socket, no DNS, no
address rewriting or verification beyond what it can't do without, no flow delay, TLS session cache. Connections are
cached on demand, as Postfix does by itself; `keep=True` caches them always, also over TLS, for as long as it allows.
It logs to syslog, whose work isn't counted; a log file of its own (postlogd) would be.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.contender import SELECTOR, Contender, Site, Upstream
from bench.process import Child, Failed
from bench.sink import PASSWORD, USERNAME

READY_WITHIN_S = 20.0
COMMAND_WITHIN_S = 30.0
BULK_CONCURRENCY = 20
_PROGRAMS = ("postfix", "opendkim")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing() -> str | None:
    """Why Postfix can't be measured here; None: it can."""
    absent = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    return None if os.geteuid() == 0 else "Postfix starts as root only"


class Postfix(Contender):
    name = "postfix"

    def __init__(self, site: Site, *, keep: bool = False) -> None:
        self._site = site
        self._keep = keep
        self.port = 0
        self._children: list[Child] = []
        self._running = ExitStack()

    @property
    def roots(self) -> Sequence[int]:
        return [child.pid for child in self._children]

    def __enter__(self) -> Self:
        directory = self._site.directory
        _open_to_all(directory)
        try:
            milter = directory / "opendkim.sock"
            self._start(["opendkim", "-f", "-x", str(_write_opendkim(directory, self._site, milter))], "opendkim.log")
            _await_socket(socket.AF_UNIX, str(milter))
            # Postfix can't be asked which port the kernel chose: this one was free a moment ago.
            self.port = _free_port()
            etc = self._write(milter)
            # Not by `postfix start`: master is to be our own child, so that it can't outlive us.
            self._start([str(_daemons() / "master"), "-c", str(etc), "-s"], "master.log")
            _await_socket(socket.AF_INET, ("127.0.0.1", self.port))
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _start(self, argv: list[str], log: str) -> None:
        program = shutil.which(argv[0], path=_PATH)
        assert program is not None
        self._children.append(self._running.enter_context(Child([program, *argv[1:]], self._site.directory / log)))

    def _write(self, milter: Path) -> Path:
        directory = self._site.directory
        etc, queue, data = (directory / name for name in ("etc", "queue", "data"))
        for one in (etc, queue, data):
            one.mkdir()
        user = pwd.getpwnam("postfix")
        os.chown(data, user.pw_uid, user.pw_gid)
        (etc / "main.cf").write_text(_main(self._site, milter, keep=self._keep))
        (etc / "master.cf").write_text(_master(self.port))
        nexthop = _nexthop(self._site.otp[0])
        (etc / "header_checks").write_text(f"/^X-Relay-Lane:[[:space:]]*otp/ FILTER otp:{nexthop}\n")
        passwords = etc / "passwords"
        passwords.write_text(f"{nexthop} {USERNAME}:{PASSWORD}\n")
        passwords.chmod(0o600)
        program = shutil.which("postfix", path=_PATH)
        assert program is not None
        checked = subprocess.run(
            [program, "-c", str(etc), "check"], capture_output=True, timeout=COMMAND_WITHIN_S, check=False
        )
        if checked.returncode:
            raise Failed(f"postfix check: {checked.stderr.decode(errors='replace')}")
        return etc


def _daemons() -> Path:
    program = shutil.which("postconf", path=_PATH)
    assert program is not None
    said = subprocess.run(
        [program, "-d", "-h", "daemon_directory"], capture_output=True, timeout=COMMAND_WITHIN_S, check=True
    )
    return Path(said.stdout.decode().strip())


def _nexthop(upstream: Upstream) -> str:
    return f"[localhost]:{upstream.port}"


def _main(site: Site, milter: Path, *, keep: bool) -> str:
    directory = site.directory
    otp = site.otp[0]
    settings = {
        "compatibility_level": "3.7",
        "queue_directory": directory / "queue",
        "data_directory": directory / "data",
        "myhostname": "relay.example.com",
        "mydestination": "",
        "mynetworks": "127.0.0.0/8",
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "alias_maps": "",
        "alias_database": "",
        "local_recipient_maps": "",
        "local_transport": "error:nothing is local",
        "smtpd_relay_restrictions": "permit_mynetworks,reject",
        "smtpd_recipient_restrictions": "",
        "smtpd_peername_lookup": "no",
        "smtp_dns_support_level": "disabled",
        "smtp_host_lookup": "native",
        "default_transport": f"bulk:{_nexthop(site.bulk)}",
        "header_checks": f"regexp:{directory / 'etc' / 'header_checks'}",
        "smtpd_milters": f"unix:{milter}",
        "milter_default_action": "tempfail",
        "default_process_limit": 300,
        "smtpd_client_connection_count_limit": 0,
        "in_flow_delay": "0",
        "message_size_limit": 60_000_000,
        "bulk_destination_concurrency_limit": BULK_CONCURRENCY,
        "bulk_initial_destination_concurrency": BULK_CONCURRENCY,
        "otp_destination_concurrency_limit": BULK_CONCURRENCY,
        "otp_initial_destination_concurrency": BULK_CONCURRENCY,
        "smtp_sasl_password_maps": f"texthash:{directory / 'etc' / 'passwords'}",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_sasl_mechanism_filter": "plain",
        "smtp_tls_session_cache_database": "btree:${data_directory}/smtp_scache",
        "smtp_tls_CAfile": otp.ca_file or "",
        "smtp_tls_security_level": "secure" if otp.ca_file else "none",
        "smtp_tls_secure_cert_match": "hostname",
        "smtp_sasl_auth_enable": "yes" if otp.auth else "no",
    }
    if keep:
        settings |= {
            "smtp_connection_cache_destinations": f"{_nexthop(otp)} localhost [localhost] {_nexthop(site.bulk)}",
            "smtp_connection_cache_time_limit": "300s",
            "smtp_connection_reuse_time_limit": "300s",
            "connection_cache_ttl_limit": "300s",
            "smtp_tls_connection_reuse": "yes",
        }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _master(port: int) -> str:
    rows = [
        f"127.0.0.1:{port} inet n - n - - smtpd",
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "tlsproxy unix - - n - 0 tlsproxy",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "showq unix n - n - - showq",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        f"otp unix - - n - {BULK_CONCURRENCY} smtp",
        f"bulk unix - - n - {BULK_CONCURRENCY} smtp -o smtp_tls_security_level=none -o smtp_sasl_auth_enable=no",
    ]
    return "\n".join(rows) + "\n"


def _write_opendkim(directory: Path, site: Site, milter: Path) -> Path:
    config = directory / "opendkim.conf"
    config.write_text(
        f"Mode s\nSocket local:{milter}\nUMask 000\nDomain {site.domain}\nSelector {SELECTOR}\n"
        f"KeyFile {site.key_file}\nRequireSafeKeys no\nCanonicalization relaxed/relaxed\n"
        "SignatureAlgorithm rsa-sha256\nInternalHosts 127.0.0.1\nSyslog no\nBackground no\n"
    )
    return config


def _open_to_all(directory: Path) -> None:
    """Postfix's processes run as users of their own; they have to get as far as the queue. Raises Failed."""
    for one in (directory, directory.parent):
        one.chmod(one.stat().st_mode | 0o055)
    closed = [str(one) for one in directory.parents if not one.stat().st_mode & 0o001]
    if closed:
        raise Failed(f"Postfix's users can't enter {', '.join(closed)}: choose another --directory")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_socket(family: int, address: str | tuple[str, int]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(address)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Failed(f"nothing listens at {address}: {error}") from error
            else:
                if family == socket.AF_INET and probe.recv(100)[:3] != b"220":
                    raise Failed(f"{address}: no greeting")
                return
        time.sleep(0.02)
