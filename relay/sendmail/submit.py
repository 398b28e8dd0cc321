"""Finds the relay's listener, and submits a message to it by SMTP.

A process is started for each message, so imports are counted: smtplib takes longer to import than all of this to run.
"""

from __future__ import annotations

import os
import re
import socket
import time

from relay.sendmail.compose import (
    EX_CONFIG,
    EX_DATAERR,
    EX_NOHOST,
    EX_NOPERM,
    EX_NOUSER,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    Failed,
    Outgoing,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Place = tuple[str, int] | str  # host and port, or the path of a unix socket

_DEFAULT: Place = ("127.0.0.1", 2525)
_CONNECT_S = 10.0
_SESSION_S = 300.0
_MAX_LINE_BYTES = 4096
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (connected to, never bound)


class CannotConnect(Exception):
    """No connection to this place; another place may work."""


def find_places(environ: Mapping[str, str], config: str | None) -> tuple[tuple[Place, ...], str]:
    """Where to submit, in order, and the domain of addresses without one. Raises Failed.

    $OTP_RELAY_SUBMIT, else the configuration's listeners, else the default. Of the configuration only these keys are
    read: the relay checks it, and an app's user may be unable to read the files that it names.
    """
    if given := environ.get("OTP_RELAY_SUBMIT"):
        place = _place(given, "")
        if place is None:
            raise Failed(EX_CONFIG, "OTP_RELAY_SUBMIT: expected host:port or unix:/path")
        return (place,), socket.gethostname()
    named = config or environ.get("OTP_RELAY_CONFIG")
    path = named or "config/relay.yaml"
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        if named and not isinstance(error, PermissionError):
            raise Failed(EX_CONFIG, f"{path}: {error.strerror}") from None
        return (_DEFAULT,), socket.gethostname()
    return _read(text, path, environ)


def submit(place: Place, message: Outgoing) -> str:
    """Submit the message; returns the relay's last reply. Raises CannotConnect, Failed."""
    with _Session(place) as session:
        return session.submit(message)


def _read(text: bytes, path: str, environ: Mapping[str, str]) -> tuple[tuple[Place, ...], str]:
    import yaml

    try:
        # The C parser where PyYAML has it: the file is read for each message.
        settings = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, RecursionError):
        raise Failed(EX_CONFIG, f"{path}: not YAML; see `otp-relay check`") from None
    settings = settings if isinstance(settings, dict) else {}
    listeners = settings.get("listen")
    listeners = [listeners] if isinstance(listeners, dict) else listeners  # one stands for a list of one
    hostname = settings.get("hostname")
    places = tuple(_usable(listeners, os.path.dirname(path), environ)) if isinstance(listeners, list) else (_DEFAULT,)
    if not places:
        raise Failed(EX_CONFIG, f"{path}: no listener accepts mail without TLS and AUTH; set OTP_RELAY_SUBMIT")
    return places, _expand(hostname, environ) if isinstance(hostname, str) else socket.gethostname()


def _usable(listeners: list[Any], folder: str, environ: Mapping[str, str]) -> Iterator[Place]:
    """The listeners that need neither TLS nor AUTH nor a PROXY header; those without a lane of their own first."""
    plain = [
        each
        for each in listeners
        if isinstance(each, dict)
        and each.get("tls") != "implicit"
        and each.get("auth") != "required"
        and not each.get("proxy_protocol")
    ]
    for each in sorted(plain, key=lambda listener: listener.get("lane") is not None):
        place = _place(_expand(str(each.get("address", "")), environ), folder)
        if place is not None:
            yield place


def _place(address: str, folder: str) -> Place | None:
    if address.startswith("unix:"):
        return os.path.join(folder, address[5:]) if address[5:] else None
    host, _, port = address.rpartition(":")
    if address.startswith("systemd:") or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    host = host.removeprefix("[").removesuffix("]")
    return _EVERY_ADDRESS.get(host, host), int(port)


def _expand(text: str, environ: Mapping[str, str]) -> str:
    variable = r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}"
    return re.sub(variable, lambda found: environ.get(found[1]) or found[2] or "", text) if "${" in text else text


class _Session:
    """An SMTP session, command by command, all of it within one deadline."""

    def __init__(self, place: Place) -> None:
        self._ends = time.monotonic() + _SESSION_S
        self._input = b""
        try:
            self._socket = _connected(place)
        except socket.gaierror:
            raise Failed(EX_NOHOST, f"{place[0]}: host not found") from None
        except OSError as error:
            raise CannotConnect(f"cannot connect to {_shown(place)}: {error.strerror or error}") from None

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def submit(self, message: Outgoing) -> str:
        """The reply to the final dot. Raises Failed."""
        self._expect(220, None)
        offered = self._hello()
        parameters = _mail_parameters(message, offered)
        self._expect(250, b"MAIL FROM:<%s>%s" % (_encoded(message.sender), parameters))
        wanted = b"" if message.notify is None or "DSN" not in offered else b" NOTIFY=" + _encoded(message.notify)
        for recipient in message.recipients:
            # All recipients or none: one exit status can't report that some were refused.
            self._expect(25, b"RCPT TO:<%s>%s" % (_encoded(recipient), wanted))
        self._expect(354, b"DATA")
        stuffed = (b"\r\n" + message.content).replace(b"\r\n.", b"\r\n..")[2:]
        reply = self._expect(250, stuffed + b".")
        self._send(b"QUIT")
        return reply

    def _hello(self) -> set[str]:
        name = _encoded(socket.gethostname() or "localhost")
        self._send(b"EHLO " + name)
        code, lines = self._reply()
        if code == 250:
            return {line.split()[0].upper() for line in lines[1:] if line.split()}
        self._expect(250, b"HELO " + name)
        return set()

    def _expect(self, wanted: int, command: bytes | None) -> str:
        """The reply to a command; one that doesn't begin with `wanted` is raised as Failed."""
        if command is not None:
            self._send(command)
        code, lines = self._reply()
        if not str(code).startswith(str(wanted)):
            raise Failed(_status(code, command), f"the relay answered {code} {lines[-1]}")
        return f"{code} {lines[-1]}"

    def _send(self, line: bytes) -> None:
        try:
            self._set_timeout()
            self._socket.sendall(line + b"\r\n")
        except OSError as error:
            raise self._lost(error) from None

    def _reply(self) -> tuple[int, list[str]]:
        lines: list[str] = []
        while True:
            line = self._line()
            if len(line) < 3 or not line[:3].isdigit():
                raise Failed(EX_TEMPFAIL, "what answers is no SMTP server")
            lines.append(line[4:])
            if line[3:4] != "-":
                return int(line[:3]), lines

    def _line(self) -> str:
        while b"\n" not in self._input:
            try:
                self._set_timeout()
                received = self._socket.recv(65536)
            except OSError as error:
                raise self._lost(error) from None
            if not received or len(self._input) > _MAX_LINE_BYTES:
                raise Failed(EX_TEMPFAIL, "the connection to the relay was lost")
            self._input += received
        line, _, self._input = self._input.partition(b"\n")
        return line.rstrip(b"\r").decode("ascii", "replace")

    def _set_timeout(self) -> None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _lost(self, error: OSError) -> Failed:
        text = "timed out" if isinstance(error, TimeoutError) else error.strerror or "lost"
        return Failed(EX_TEMPFAIL, f"the connection to the relay: {text}")


def _connected(place: Place) -> socket.socket:
    if not isinstance(place, str):
        return socket.create_connection(place, timeout=_CONNECT_S)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CONNECT_S)
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


def _mail_parameters(message: Outgoing, offered: set[str]) -> bytes:
    wanted = [
        ("SIZE", f"SIZE={len(message.content)}"),
        ("8BITMIME", "" if message.content.isascii() else "BODY=8BITMIME"),
        ("SMTPUTF8", "" if "".join((message.sender, *message.recipients)).isascii() else "SMTPUTF8"),
        ("DSN", f"RET={message.ret}" if message.ret else ""),
        ("DSN", f"ENVID={_xtext(message.envid)}" if message.envid else ""),
    ]
    return "".join(f" {text}" for extension, text in wanted if text and extension in offered).encode()


def _xtext(text: str) -> str:
    from relay.mail.address import xtext_encode

    return xtext_encode(text)


def _status(code: int, command: bytes | None) -> int:
    """The sysexits(3) status of a refusal."""
    verb = b"" if command is None else command[:4]
    if 400 <= code < 500:
        return EX_TEMPFAIL
    if command is None or code in (530, 535, 538):
        return EX_NOPERM
    if verb == b"RCPT" and code in (501, 550, 551, 553):
        return EX_NOUSER
    if code == 552 or verb in (b"EHLO", b"HELO", b"RCPT", b"DATA"):
        return EX_UNAVAILABLE
    return EX_DATAERR


def _encoded(text: str) -> bytes:
    """The bytes of a command line argument, also where they aren't UTF-8."""
    return os.fsencode(text)


def _shown(place: Place) -> str:
    return f"unix:{place}" if isinstance(place, str) else f"{place[0]}:{place[1]}"
