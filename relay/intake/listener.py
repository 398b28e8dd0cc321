"""A listener's files, read: its TLS context and its users."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from relay.config.model import Listener
from relay.intake.types import CannotListen
from relay.intake.users import Users, UsersError


@dataclass(frozen=True, slots=True)
class LoadedListener:
    """A listener of the configuration with what its files hold."""

    listener: Listener
    tls: ssl.SSLContext | None
    users: Users | None

    @classmethod
    def load(cls, listener: Listener) -> Self:
        """Read the listener's files. Raises CannotListen."""
        tls = None
        if listener.tls != "none":
            if listener.cert_file is None or listener.key_file is None:
                raise CannotListen(f"{listener.address}: tls needs cert_file and key_file", "tls")
            tls = server_context(listener.cert_file, listener.key_file)
        users = None
        if listener.auth == "required":
            if listener.users_file is None:
                raise CannotListen(f"{listener.address}: auth: required needs users_file", "auth")
            try:
                users = Users.load(listener.users_file)
            except UsersError as error:
                raise CannotListen(str(error), "users_file") from None
        return cls(listener, tls, users)


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with that certificate. Raises CannotListen, which names the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A key with a passphrase must not make the relay wait for a person to type it.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except OSError as error:
        why = f"no matching certificate and key ({error.reason})" if isinstance(error, ssl.SSLError) else error.strerror
        raise CannotListen(f"{cert_file}, {key_file}: {why}", "cert_file") from None
    return context
