"""The users file of a listener with `auth: required`: one `name:$argon2id$...` a line (RFC 9106, PHC strings), with
the patterns of the addresses that the user may send as behind a second colon.

Verifying takes tens of milliseconds and as many megabytes on purpose, so it runs on threads of its own. A right login
is remembered for some minutes: most apps connect anew for each code.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from relay.config.patterns import compiled, matches_no_address

# RFC 9106 has 2 GiB or 64 MiB; 19 MiB and two passes (OWASP's choice) is enough where a failure also costs a delay,
# and lets many apps log in at once.
_MEMORY_KIB, _PASSES, _LANES = 19_456, 2, 1
_NAME = re.compile(r"[^\s:#\x00-\x1f\x7f][^\s:\x00-\x1f\x7f]{0,254}")
_HASH = re.compile(r"\$argon2id\$v=19\$m=\d{1,7},t=\d{1,3},p=\d{1,2}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}")
_REMEMBERED_S = 600.0
"""Since the last login."""
_REMEMBERED_USERS = 1_000
_NICENESS = 10
"""On a busy machine codes go before logins."""


def _lower_priority() -> None:
    """On Linux each thread has a priority of its own."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


_VERIFIERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="auth", initializer=_lower_priority)


class UsersError(Exception):
    """The users file can't be used. The text names file and line, never a hash."""


def hash_password(password: bytes) -> str:
    """The password's hash, as a PHC string with a fresh salt."""
    return _hasher().derive_phc_encoded(password)


def valid_name(name: str) -> bool:
    """Whether a user may have this name: no blank, colon or control, no leading #, at most 255 characters."""
    return _NAME.fullmatch(name) is not None


class Users:
    """The users that may log in. A reload makes a new object, which remembers no login."""

    def __init__(
        self,
        hashes: Mapping[str, str],
        now: Callable[[], float] = time.monotonic,
        senders: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """`senders`: by user, the patterns of the addresses that it may send as."""
        self._hashes = dict(hashes)
        self._senders = dict(senders or {})
        self._now = now
        self._key = secrets.token_bytes(32)
        self._remembered: dict[str, tuple[bytes, float]] = {}
        """by user, the latest login last: the proof of a right login, and when that was"""
        # An unknown user's password is verified against this, so that the time it takes reveals nothing.
        self._unknown = hash_password(os.urandom(16))

    @classmethod
    def load(cls, path: Path) -> Users:
        """Read the users file. Raises UsersError."""
        users = _read(path)
        return cls(
            {name: user.phc for name, user in users.items()},
            senders={name: user.senders for name, user in users.items()},
        )

    def senders(self, name: str) -> tuple[str, ...]:
        """The patterns of the addresses that the user may send as; none: all."""
        return self._senders.get(name, ())

    def remembers(self, name: str, password: bytes) -> bool:
        """Whether this login was verified some minutes ago. False decides nothing: `verify` does."""
        proof = self._proof(name, password)
        known, at = self._remembered.get(name, (b"", 0.0))
        if not hmac.compare_digest(proof, known) or self._now() - at > _REMEMBERED_S:
            return False
        self._remember(name, proof)
        return True

    def _remember(self, name: str, proof: bytes) -> None:
        self._remembered.pop(name, None)
        self._remembered[name] = proof, self._now()
        while len(self._remembered) > _REMEMBERED_USERS:
            del self._remembered[next(iter(self._remembered))]

    def _proof(self, name: str, password: bytes) -> bytes:
        """An HMAC of a login. Its key is in this object only, so it leads back to no password."""
        user = name.encode()
        return hmac.digest(self._key, len(user).to_bytes(4, "big") + user + password, "sha256")

    async def verify(self, name: str, password: bytes) -> bool:
        """Whether that is the user's password. Takes as long for an unknown user."""
        phc = self._hashes.get(name)
        loop = asyncio.get_running_loop()
        matches = await loop.run_in_executor(_VERIFIERS, password_matches, password, phc or self._unknown)
        if not matches or phc is None:
            return False
        self._remember(name, self._proof(name, password))
        return True


def read_users(path: Path) -> dict[str, str]:
    """The users file's names and hashes. Raises UsersError."""
    return {name: user.phc for name, user in _read(path).items()}


def senders_of(path: Path, name: str) -> tuple[str, ...]:
    """The patterns of the addresses that a user may send as; none: all. Raises UsersError."""
    users = _read(path)
    return users[name].senders if name in users else ()


class _User(NamedTuple):
    phc: str
    senders: tuple[str, ...]


def _read(path: Path) -> dict[str, _User]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsersError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    users: dict[str, _User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        phc, colon, patterns = rest.partition(":")
        if not valid_name(name) or _HASH.fullmatch(phc) is None:
            raise UsersError(f"{path}:{number}: expected name:$argon2id$..., see `otp-relay user add`")
        if name in users:
            raise UsersError(f"{path}:{number}: this user is there twice")
        senders = tuple(patterns.split())
        try:
            check_senders(senders)
        except ValueError as error:
            raise UsersError(f"{path}:{number}: {error}") from None
        if colon and not senders:
            raise UsersError(f"{path}:{number}: expected the user's senders behind the second colon, got nothing")
        users[name] = _User(phc, senders)
    return users


def check_senders(patterns: Sequence[str]) -> None:
    """Raises ValueError for a pattern that isn't one, or that the users file has no room for: one with a blank."""
    for pattern in patterns:
        if pattern.split() != [pattern]:
            raise ValueError("a pattern in the users file has no blanks; give several as arguments of their own")
        if not pattern.startswith("/") and "," in pattern:
            raise ValueError("blanks stand between patterns, no commas")
        if matches_no_address(pattern):
            raise ValueError(f"{pattern} matches no address; a domain is *@{pattern}")
        compiled(pattern)


def put_user(path: Path, name: str, phc: str, senders: Sequence[str] | None = None) -> None:
    """Add or replace one user's line; comments stay. Raises UsersError, OSError.

    `senders`: patterns that passed `check_senders`; None: those that the user has stay.

    The file is replaced in one step. It keeps its owner and mode; a new file is readable by its owner only.
    """
    lines: list[str] = []
    if path.exists():
        users = _read(path)  # a file with a mistake in it stays as it is, for a person to mend
        if senders is None and name in users:
            senders = users[name].senders
        lines = [
            line for line in path.read_text(encoding="utf-8").splitlines() if not line.strip().startswith(f"{name}:")
        ]
    new = path.with_name(f".{path.name}.{os.getpid()}")
    before = path.stat() if path.exists() else None
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.writelines(
                f"{line}\n" for line in (*lines, f"{name}:{phc}" + (f":{' '.join(senders)}" if senders else ""))
            )
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            os.chown(new, before.st_uid, before.st_gid)
            os.chmod(new, before.st_mode & 0o777)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _hasher() -> Argon2id:
    return Argon2id(salt=os.urandom(16), length=32, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)


def password_matches(password: bytes, phc: str) -> bool:
    """Whether the hash is the password's; takes tens of milliseconds."""
    try:
        Argon2id.verify_phc_encoded(password, phc)
    except InvalidKey:
        return False
    return True
