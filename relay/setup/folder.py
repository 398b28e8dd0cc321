"""Write the files of a set-up: all of them, or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class NewFile(NamedTuple):
    """A file to be written."""

    content: bytes
    is_secret: bool = False
    """mode 0600, in a folder of mode 0700"""


class Exists(Exception):
    """A file of that name is there; nothing is written. The text is its path."""


def first_existing(out: Path, names: Mapping[str, NewFile] | tuple[str, ...]) -> Path | None:
    """A file in `out` that would be overwritten."""
    return next((out / name for name in names if os.path.lexists(out / name)), None)


@contextmanager
def staged(out: Path, files: Mapping[str, NewFile], folders: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files, by their paths below `out`, in a temporary folder beside it, which is removed at the end. `folders`:
    empty ones of mode 0700. Raises OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name in folders:
            (folder / name).mkdir(mode=0o700)
        for name, new in files.items():
            path = folder / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if new.is_secret else 0o644)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600 if new.is_secret else 0o644)  # whatever the umask: a service reads it
                file.write(new.content)
                file.flush()
                os.fsync(file.fileno())
        folder.chmod(0o755)  # secrets are in folders of their own
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move(folder: Path, out: Path) -> None:
    """Move the staged files to `out`. What was moved is moved back if it can't be finished, or is interrupted. Raises
    Exists, OSError."""
    with suppress(OSError):  # not there yet, or an empty folder: one step
        os.rename(folder, out)
        return
    moved: list[Path] = []
    try:
        for path in sorted(folder.rglob("*"), key=lambda one: len(one.parts)):
            target = out / path.relative_to(folder)
            if path.is_dir():
                if not target.is_dir():
                    target.mkdir(mode=0o700)
                    moved.append(target)
                continue
            os.link(path, target)  # never overwrites
            moved.append(target)
    except BaseException as error:
        for target in reversed(moved):
            with suppress(OSError):
                target.rmdir() if target.is_dir() else target.unlink()
        if isinstance(error, FileExistsError):
            raise Exists(str(error.filename2 or error.filename)) from None
        raise
