"""The disk of the data folder: room, what takes it, what kind of disk, and whether writing there can be relied on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from .finding import Finding, note, ok, wrong

GIB = 2**30
LOW_DISK = 5 * GIB
LOW_FILES = 10_000
COUNT_S = 5.0  # a folder that takes longer to add up is told as "at least"
PARTS = ("jobs", "uploads", "cache", "weights", "logs")
#: Kinds of file system on which SQLite's locks and its shared memory do not hold, or that another machine may write.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"}
NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.davfs")
#: What a virtual machine or container sees of its host.
HOSTS = {"9p", "virtiofs", "vboxsf", "fuse.vmhgfs-fuse", "drvfs"}
VANISHES = {"tmpfs", "ramfs"}


def examine(home: Path) -> Iterator[Finding]:
    """Everything about the disk of `home`, which need not exist yet and is not made."""
    place = next(p for p in (home, *home.parents) if p.exists())
    yield _room(home, place)
    kind = file_system(place)
    if kind in NETWORK or kind.startswith(NETWORK_FUSE):
        words = f"{home} is on a network disk ({kind})"
        yield wrong("filesystem", words, "set KINORA_HOME to a folder on a disk of this machine")
    elif kind in HOSTS:
        yield note(
            "filesystem", f"{home} is the host's ({kind})", "slower than a disk of its own, and locks may not hold"
        )
    elif kind in VANISHES:
        yield note("filesystem", f"{home} is in memory ({kind})", "jobs are lost when the machine restarts")
    elif kind == "overlay":
        yield note("filesystem", f"{home} is inside a container", "mount a volume there, or its jobs go with it")
    elif kind:
        yield ok("filesystem", kind)
    if place != home:
        good = os.access(place, os.W_OK)
        words = f"{home} is not there yet"
        yield ok("data", words) if good else wrong("data", f"{words} and cannot be made", "set KINORA_HOME")
        return
    yield _writing(home)
    yield _contents(home)


def _room(home: Path, place: Path) -> Finding:
    free = shutil.disk_usage(place).free  # what this user may take: a quota of the file system counts
    words = f"{free / GIB:.1f} GiB free for {home}"
    if hasattr(os, "statvfs"):
        told = os.statvfs(place)
        if told.f_files > 0 and told.f_favail < LOW_FILES:
            return wrong("disk", f"{words}, but only {told.f_favail} more files", "delete what is not needed there")
    if free < LOW_DISK:
        return wrong("disk", words, "free some space, or set KINORA_HOME to a folder on another disk")
    return ok("disk", words)


def _writing(home: Path) -> Finding:
    """Write, flush, rename and lock as the server does, in a folder of its own that is removed."""
    trial = home / f".doctor-{os.getpid()}"
    try:
        trial.mkdir()
        try:
            began = time.monotonic()
            with open(trial / "a", "wb") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
            os.replace(trial / "a", trial / "b")
            took_ms = 1000 * (time.monotonic() - began)
            with sqlite3.connect(trial / "c.db") as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("CREATE TABLE t (x)")
            database.close()
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        return wrong("data", f"{home} cannot be written as needed ({error})", "see who owns it, or set KINORA_HOME")
    return ok("data", f"{home} can be written; flushing a file takes {took_ms:.1f} ms")


def _contents(home: Path) -> Finding:
    deadline, sizes, whole = time.monotonic() + COUNT_S, {}, True
    for part in PARTS:
        sizes[part], counted = folder_bytes(home / part, deadline)
        whole &= counted
    told = ", ".join(f"{part} {size / GIB:.1f}" for part, size in sizes.items() if size > 0.05 * GIB)
    words = f"{'' if whole else 'at least '}{sum(sizes.values()) / GIB:.1f} GiB of data"
    return ok("contents", f"{words} ({told})" if told else words)


def folder_bytes(folder: Path, deadline: float) -> tuple[int, bool]:
    """Bytes of all files below, and whether all were counted before the deadline (monotonic seconds)."""
    total, waiting = 0, [folder]
    while waiting:
        if time.monotonic() > deadline:
            return total, False
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # it went meanwhile
            continue
    return total, True


def file_system(place: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of file system that holds a folder; '' where the system does not say."""
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    there = place.resolve()
    holding = [(len(row[1]), row[2]) for row in rows if len(row) > 2 and there.is_relative_to(_plain(row[1]))]
    return max(holding, key=lambda each: each[0])[1] if holding else ""


def _plain(path: str) -> str:
    """A path of /proc/mounts, where blanks are written as \\040."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
