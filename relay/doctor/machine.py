"""Checks of the machine: the disk under the store, and the clock. They change nothing but one temporary file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from relay.doctor.finding import About, Finding

SLOW_SYNC_MS = 20.0
_SYNCS = 7
_SYNC_WITHIN_S = 2.0
_BLOCK = bytes(4096)
_TIGHT = 4
"""Less free space than this many times queue.min_free is a warning."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph",
     "fuse.s3fs", "davfs", "fuse.rclone", "ncpfs", "virtiofs"}
)  # fmt: skip
"""SQLite's write-ahead log needs memory shared between processes, which these don't have (sqlite.org/wal.html)"""
VOLATILE_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})

TIMESYNCD = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR = 5
"""adjtimex(2): not synchronised"""


def check_disk(store: Path, min_free_bytes: int) -> list[Finding]:
    """Check the file system under the store, its free space, and the time of a sync."""
    folder = store.resolve().parent
    while not _exists(folder):
        folder = folder.parent
    try:
        mounts = Path("/proc/mounts").read_text(errors="surrogateescape")
    except OSError:
        mounts = ""
    about = About("disk", str(folder))
    found = [_file_system(about, file_system(folder, mounts)), _free(about, folder, min_free_bytes)]
    if found[0].status != "fail":  # a network file system may hang, and can't have the store anyway
        found.append(_sync(about, folder))
    return found


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except PermissionError:
        return False


def _file_system(about: About, kind: str | None) -> Finding:
    if kind is None:
        return about.unknown("the kind of file system isn't known", "see /proc/mounts")
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"a network file system ({kind}): SQLite's write-ahead log can't be kept on it"
        return about.fail(text, "put the store on a local disk")
    if kind in VOLATILE_FILE_SYSTEMS:
        text = f"a file system in memory ({kind}): acknowledged mail is lost when the power fails"
        return about.warn(text, "put the store on a disk")
    return about.ok(f"a local file system ({kind})")


def file_system(folder: Path, mounts: str) -> str | None:
    """The file system type of `folder` (absolute, resolved), from the text of /proc/mounts."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Blanks, tabs, line ends and backslashes are written in octal.
        point = Path(fields[1].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        # Of two mounts at one place the later one counts.
        if folder.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), fields[2]
    return found[1] if found else None


def _free(about: About, folder: Path, min_free_bytes: int) -> Finding:
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return about.unknown(f"free space: {error.strerror}", "look at the disk")
    free_bytes = disk.f_bavail * disk.f_frsize
    text = f"{free_bytes / 1e6:,.0f} MB free, mail is refused below {min_free_bytes / 1e6:,.0f} (queue.min_free)"
    if free_bytes < min_free_bytes:
        return about.fail(text, "free some space: no mail is accepted now (452)")
    if free_bytes < _TIGHT * min_free_bytes:
        return about.warn(text, "free some space before mail is refused")
    return about.ok(text)


def _sync(about: About, folder: Path) -> Finding:
    try:
        times_ms = list(_sync_times_ms(folder))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            text = "this user may not write here"
            return about.fail(text, "run doctor as the relay's user; if this is that user, chown the folder")
        return about.fail(f"can't be written to: {error.strerror}", "look at the disk")
    median_ms = statistics.median(times_ms)
    text = f"write and fdatasync of 4 KiB: {median_ms:.1f} ms (median of {len(times_ms)}, worst {max(times_ms):.1f})"
    if median_ms > SLOW_SYNC_MS:
        return about.warn(text, "every code waits for one before its 250: use a faster disk")
    return about.ok(text)


def _sync_times_ms(folder: Path) -> Iterator[float]:
    """The times of several writes with fdatasync to a temporary file, in ms. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=".otp-relay-doctor-", dir=folder)
    try:
        ends = time.monotonic() + _SYNC_WITHIN_S
        for n in range(_SYNCS):
            began = time.monotonic()
            os.write(descriptor, _BLOCK)
            os.fdatasync(descriptor)
            ended = time.monotonic()
            yield (ended - began) * 1000.0
            if n and ended > ends:
                return
    finally:
        os.close(descriptor)
        os.unlink(name)


def check_clock() -> Finding:
    """Check that the clock is synchronised."""
    return judge_clock(_kernel_clock(), timesyncd=TIMESYNCD.exists())


def judge_clock(kernel: int | None, *, timesyncd: bool) -> Finding:
    """`kernel`: what adjtimex(2) returned, None when it can't be asked; `timesyncd`: systemd's mark is there."""
    about = About("clock")
    if kernel is not None and kernel != _TIME_ERROR:
        return about.ok("synchronised, according to the kernel (adjtimex)")
    if timesyncd:
        return about.ok(f"synchronised since the start, according to systemd-timesyncd ({TIMESYNCD})")
    cause = "the kernel can't be asked" if kernel is None else "the kernel doesn't know"
    text = f"whether it is synchronised isn't known: {cause}, and systemd-timesyncd left no mark"
    return about.unknown(text, "run chrony or systemd-timesyncd; fine where the host keeps the time")


def _kernel_clock() -> int | None:
    """The clock state of adjtimex(2), which only reads here. None where it doesn't exist or isn't allowed."""
    with contextlib.suppress(OSError, AttributeError):
        timex = ctypes.create_string_buffer(512)  # struct timex has 208 bytes
        state = int(ctypes.CDLL(None).adjtimex(timex))
        return state if state >= 0 else None
    return None
