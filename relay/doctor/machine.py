"""The machine: the disk under the store, and the clock. Measured and read, nothing changed but a file that comes and
goes."""

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

from relay.doctor.finding import Finding

SLOW_SYNC_MS = 20.0
_SYNCS = 7
_SYNC_WITHIN_S = 2.0
_BLOCK = bytes(4096)
_TIGHT = 4
"""less than so many times queue.min_free: a warning before mail is refused"""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph",
     "fuse.s3fs", "davfs", "fuse.rclone", "ncpfs", "virtiofs"}
)  # fmt: skip
"""SQLite's write-ahead log needs memory shared between processes, which these don't give (sqlite.org/wal.html)"""
VOLATILE_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})

TIMESYNCD = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR = 5
"""adjtimex(2): not synchronised"""


def check_disk(store: Path, min_free_bytes: int) -> list[Finding]:
    """The file system under the store, its free space, and how long a commit waits for it."""
    folder = store.resolve().parent
    while not _there(folder):
        folder = folder.parent
    try:
        mounts = Path("/proc/mounts").read_text(errors="surrogateescape")
    except OSError:
        mounts = ""
    place = _file_system(folder, mounts)
    found = [place, _free(folder, min_free_bytes)]
    if place.status != "fail":  # a network file system may hang, and is no place for the store anyway
        found.append(_sync(folder))
    return found


def _there(folder: Path) -> bool:
    try:
        return folder.exists()
    except PermissionError:
        return False


def _file_system(folder: Path, mounts: str) -> Finding:
    kind = file_system(folder, mounts)
    if kind is None:
        return Finding("disk", str(folder), "unknown", "the kind of file system isn't known", "see /proc/mounts")
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"a network file system ({kind}): SQLite's write-ahead log can't be kept on it"
        return Finding("disk", str(folder), "fail", text, "put the store on a local disk")
    if kind in VOLATILE_FILE_SYSTEMS:
        text = f"a file system in memory ({kind}): mail that was acknowledged is lost with the power"
        return Finding("disk", str(folder), "warn", text, "put the store on a disk")
    return Finding("disk", str(folder), "ok", f"a local file system ({kind})")


def file_system(folder: Path, mounts: str) -> str | None:
    """The type of the mount that `folder` (absolute, resolved) lies on, from the text of /proc/mounts."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Blanks, tabs, line ends and backslashes are octal there.
        point = Path(fields[1].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        # Of two on one place the later is on top.
        if folder.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), fields[2]
    return found[1] if found else None


def _free(folder: Path, min_free_bytes: int) -> Finding:
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return Finding("disk", str(folder), "unknown", f"free space: {error.strerror}", "look at the disk")
    free_bytes = disk.f_bavail * disk.f_frsize
    text = f"{free_bytes / 1e6:,.0f} MB free, mail is refused below {min_free_bytes / 1e6:,.0f} (queue.min_free)"
    if free_bytes < min_free_bytes:
        return Finding("disk", str(folder), "fail", text, "make room: no mail is taken now (452)")
    if free_bytes < _TIGHT * min_free_bytes:
        return Finding("disk", str(folder), "warn", text, "make room before mail is refused")
    return Finding("disk", str(folder), "ok", text)


def _sync(folder: Path) -> Finding:
    try:
        times_ms = list(_sync_times_ms(folder))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            text = "this user may not write here"
            return Finding(
                "disk", str(folder), "fail", text, "run doctor as the relay's user; if that's what it did, chown"
            )
        return Finding("disk", str(folder), "fail", f"can't be written to: {error.strerror}", "look at the disk")
    median_ms = statistics.median(times_ms)
    text = f"write and fdatasync of 4 KiB: {median_ms:.1f} ms (median of {len(times_ms)}, worst {max(times_ms):.1f})"
    if median_ms > SLOW_SYNC_MS:
        return Finding("disk", str(folder), "warn", text, "every code waits for one before its 250: use a faster disk")
    return Finding("disk", str(folder), "ok", text)


def _sync_times_ms(folder: Path) -> Iterator[float]:
    """One write and fdatasync after the other to a file that is gone afterwards. Raises OSError."""
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
    return judge_clock(_kernel_clock(), timesyncd=TIMESYNCD.exists())


def judge_clock(kernel: int | None, *, timesyncd: bool) -> Finding:
    """`kernel`: what adjtimex(2) returned, None when it can't be asked; `timesyncd`: systemd's mark is there."""
    if kernel is not None and kernel != _TIME_ERROR:
        return Finding("clock", "", "ok", "synchronised, says the kernel (adjtimex)")
    if timesyncd:
        return Finding("clock", "", "ok", f"synchronised since the start, says systemd-timesyncd ({TIMESYNCD})")
    said = "the kernel can't be asked" if kernel is None else "the kernel has no word of it"
    text = f"whether it is synchronised isn't known: {said}, and systemd-timesyncd left no mark"
    return Finding("clock", "", "unknown", text, "run chrony or systemd-timesyncd; fine where the host keeps the time")


def _kernel_clock() -> int | None:
    """adjtimex(2) with no mode set: it only reads. None where there is none, or it isn't allowed."""
    with contextlib.suppress(OSError, AttributeError):
        timex = ctypes.create_string_buffer(512)  # struct timex has 208 bytes
        state = int(ctypes.CDLL(None).adjtimex(timex))
        return state if state >= 0 else None
    return None
