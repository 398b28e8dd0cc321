"""The refresh token that an upstream got last, in a file of its own beside the store: servers that rotate refresh
tokens take each one once.

The file keeps the SHA-256 of the token in the configuration which its own descends from. So a token that the operator
replaces there wins over the file. `otp-relay oauth login` writes the file while a relay runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_MOST_BYTES = 65_536


class TokenFileError(Exception):
    """The file can't be used. The text is one line for the operator, which names the file and holds nothing of it."""


class _Kept(NamedTuple):
    """What the file holds."""

    refresh_token: str
    configured_sha256: str | None
    """None: the configuration had no token when it was written"""

    def __repr__(self) -> str:
        return "_Kept(...)"


def token_file(store: Path, upstream: str, configured: str | None) -> TokenFile:
    """The file of an upstream: `relay-oauth-m365.json` beside `relay.db`. `configured`: the token in the
    configuration."""
    path = store.resolve()
    return TokenFile(path.with_name(f"{path.stem}-oauth-{upstream}.json"), upstream, configured)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """Reads and writes the file. Blocking."""

    path: Path
    upstream: str
    configured: str | None
    """the refresh token in the configuration"""

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r})"

    def newest(self) -> str | None:
        """The refresh token to use next: the file's, or the configured one if there is no file or the operator replaced
        the token since. None: there is none yet. Raises TokenFileError."""
        kept = self._read()
        return self.configured if kept is None or self._is_outdated(kept) else kept.refresh_token

    def keep(self, refresh_token: str, *, used: str | None) -> bool:
        """Write a rotated token; it is on the disk when this returns. `used`: the one that it was got with. False:
        another one, of a login meanwhile, is newer and stays. Raises TokenFileError."""
        with self._locked() as folder:
            if self.newest() != used:
                return False
            self._write(refresh_token, folder)
        return True

    def replace(self, refresh_token: str) -> None:
        """Write a token of a new login; it is on the disk when this returns. Raises TokenFileError, also for a file
        that isn't the relay's own: it is left as it is."""
        with self._locked() as folder:
            self._read()
            self._write(refresh_token, folder)

    def _is_outdated(self, kept: _Kept) -> bool:
        return self.configured is not None and kept.configured_sha256 != _sha256(self.configured)

    def _read(self) -> _Kept | None:
        """None: there is no file."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise TokenFileError(f"{self.path}: {reason}") from None
        try:
            self._check_owner(descriptor)
            content = os.read(descriptor, _MOST_BYTES + 1)
        except OSError as error:
            raise TokenFileError(f"{self.path}: {error.strerror}") from None
        finally:
            os.close(descriptor)
        return self._parsed(content)

    def _check_owner(self, descriptor: int) -> None:
        """Raises TokenFileError where another user may have written the file; OSError."""
        found = os.fstat(descriptor)
        # Its folder's owner can put anything there, and root looks after the stores of others.
        owners = {0, os.geteuid(), self.path.parent.stat().st_uid}
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o022:
            raise TokenFileError(f"{self.path}: not a file of the relay's own that it alone may write; remove it")

    def _parsed(self, content: bytes) -> _Kept:
        try:
            value: Any = json.loads(content) if len(content) <= _MOST_BYTES else None
        except (ValueError, RecursionError):
            value = None
        match value:
            case {
                "upstream": str() as upstream,
                "refresh_token": str() as token,
                "configured_sha256": None | str() as of,
            }:
                if upstream == self.upstream and token:
                    return _Kept(token, of)
        raise TokenFileError(
            f"{self.path}: damaged, or not the refresh token of upstream {self.upstream}; remove it, then log in again"
        )

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The folder's descriptor, with a lock: one process writes at a time."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TokenFileError(f"{error.filename or folder}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        except OSError as error:
            raise TokenFileError(f"{self.path}: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def _write(self, refresh_token: str, folder: int) -> None:
        """Under another name first: a file of this name is always whole. Raises OSError."""
        of = None if self.configured is None else _sha256(self.configured)
        value = {"upstream": self.upstream, "refresh_token": refresh_token, "configured_sha256": of}
        new = self.path.with_name(self.path.name + ".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                self._give_away(descriptor, folder)
                file.write(json.dumps(value).encode() + b"\n")
                file.flush()
                os.fsync(descriptor)
            new.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        os.fsync(folder)

    def _give_away(self, descriptor: int, folder: int) -> None:
        """A file that root writes belongs to the relay's user, which has the folder: it must be able to read it."""
        owner = os.fstat(folder)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
