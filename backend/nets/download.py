"""Downloads that survive a kill: they go on at the byte where they stopped, and are checked before they count.

huggingface_hub starts over after a kill and takes a corrupt file of the right size (facts sheet backend.md, section 8);
so it gives the addresses, log-ins and connections here, and the loop is our own.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub.utils import get_session, hf_raise_for_status

from ..run import Run
from ..wire import UserError
from .hub import BY_HAND, PATIENCE_S, TRY_AGAIN, Cut, Remote, endpoint, host, told
from .manifest import size_in_words

#: Seconds before each further try; a try that brought bytes starts the list again.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
MARGIN = 64 * 1024**2  # what a download leaves free on the disk
BLOCK = 1 << 20
IN_GIT = 64 << 20  # bytes, far above what a hub keeps in git
log = logging.getLogger(__name__)


def fetch(
    locate: Callable[[], Remote],
    target: Path,
    run: Run,
    check: Callable[[Path, str], None] = lambda part, sha256: None,
    share: tuple[int, int] = (0, 0),
) -> tuple[Remote, str]:
    """Download to `target`, which appears whole and checked or not at all; what was fetched, and its SHA-256.

    `locate` is asked again for each try, as addresses expire; `check` judges the whole file, with its SHA-256, before
    it gets its name. `share` is (bytes before this file, bytes of all files), for progress. Raises UserError; half a
    file stays as `.NAME.XXXXXXXXXXXX.part` beside it, and the next call goes on there.
    """
    remote, fruitless = None, 0
    while True:
        had = _length(_part(target, remote)) if remote else 0
        try:
            found = locate()
            if remote is not None and found.identity != remote.identity:
                raise UserError(f"{target.name} was changed by its publisher meanwhile", "start again")
            remote = found
            part = _part(target, remote)
            if _length(target) == (remote.bytes or -1) and not part.exists():
                os.replace(target, part)  # it came whole once, with nobody left to note it: checked like any other
            had = max(had, _length(part))
            sha256 = _receive(remote, part, run, share)
            _judge_bytes(remote, target, part, sha256, check)
            _publish(part, target)
            return remote, sha256
        except (httpx2.RequestError, Cut) as error:
            grown = remote is not None and _length(_part(target, remote)) > had
            fruitless = 1 if grown else fruitless + 1
            nobody = remote is None and isinstance(error, httpx2.RequestError)
            if fruitless > (2 if nobody else len(PAUSES_S)):
                hint = f"check the connection and start again, {BY_HAND}"
                raise UserError(_unreachable(error, remote, target), hint) from error
            log.info("%s: %s; trying again", target.name, error)
            _wait(max(PAUSES_S[fruitless - 1], getattr(error, "pause_s", 0.0)), run)
        except OSError as error:
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
                raise UserError(
                    f"The disk of {target.parent} is full", "free some space; the rest comes then"
                ) from error
            raise UserError(f"{target.parent} cannot be written ({error.strerror})", "choose another folder") from error


def _receive(remote: Remote, part: Path, run: Run, share: tuple[int, int]) -> str:
    """Bring the part to its full length; its SHA-256. Raises Cut or httpx2.RequestError if it ends early."""
    (before, all_bytes), whole = share, remote.bytes

    def tell(count: int) -> None:
        run.progress((before + count) / max(all_bytes, before + (whole or count), 1))

    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "a+b") as file:
        hashed = _Hash()
        file.seek(0)
        while block := file.read(BLOCK):
            hashed.update(block)
            tell(hashed.count)
        if whole is not None and hashed.count > whole:
            hashed = _start_over(file)
        check_space(part.parent, (whole or 0) - hashed.count)
        if whole is None or hashed.count < whole:
            headers = {**dict(remote.headers), "Accept-Encoding": "identity"}
            if hashed.count:
                headers["Range"] = f"bytes={hashed.count}-"
            with get_session().stream("GET", remote.url, headers=headers, timeout=PATIENCE_S) as answer:
                hashed = _judge_answer(answer, file, hashed)
                for block in answer.iter_bytes():
                    file.write(block)
                    hashed.update(block)
                    tell(hashed.count)
                    if whole is not None and hashed.count > whole:
                        break
        file.flush()
        os.fsync(file.fileno())
    if whole is not None and hashed.count < whole:
        raise Cut(f"the transfer ended at byte {hashed.count} of {whole}")
    return hashed.sha256.hexdigest()


class _Hash:
    """SHA-256 of the bytes so far, and how many they are."""

    def __init__(self) -> None:
        self.count, self.sha256 = 0, hashlib.sha256()

    def update(self, block: bytes) -> None:
        self.count += len(block)
        self.sha256.update(block)


def _start_over(file: BinaryIO) -> _Hash:
    file.seek(0)
    file.truncate()
    return _Hash()


def _judge_answer(answer: httpx2.Response, file: BinaryIO, hashed: _Hash) -> _Hash:
    """Take an answer that goes on where the file ends; start over for one that does not. Raises UserError or Cut."""
    if answer.status_code in TRY_AGAIN or (answer.status_code == 403 and hashed.count):  # 403: an address that expired
        asked = answer.headers.get("Retry-After", "")
        raise Cut(f"the server is busy ({answer.status_code})", min(float(asked), 60.0) if asked.isdigit() else 0.0)
    if answer.status_code == 416 or (answer.status_code == 206 and not _goes_on_at(answer, hashed.count)):
        _start_over(file)
        raise Cut("the server does not know the part that is here")
    with told(host(str(answer.url)), Path(answer.url.path).name):
        hf_raise_for_status(answer)
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise UserError(
            f"{host(str(answer.url))} sent a web page in place of the file", f"sign in to the network, {BY_HAND}"
        )
    return hashed if answer.status_code == 206 else _start_over(file)


def _goes_on_at(answer: httpx2.Response, count: int) -> bool:
    return answer.headers.get("Content-Range", "").startswith(f"bytes {count}-")


def _judge_bytes(remote: Remote, target: Path, part: Path, sha256: str, check: Callable) -> None:
    """Raise UserError, and throw the bytes away, unless they are those that are listed and `check` is content."""
    size, wrong = part.stat().st_size, ""
    if remote.bytes is not None and size != remote.bytes:
        wrong = f"{size} bytes instead of {remote.bytes}"
    elif remote.sha256 not in (None, sha256) or remote.git_sha1 not in (None, _git_sha1(part, size)):
        wrong = "another checksum than it is published with"
    try:
        if wrong:
            raise UserError(
                f"{target.name} came with {wrong}, and was thrown away",
                "try again; if it happens again, something between the hub and this machine changes files",
            )
        check(part, sha256)
    except UserError:
        part.unlink()
        raise


def _git_sha1(part: Path, size: int) -> str:
    """The hash that git gives a file, which a hub keeps there only if it is small."""
    if size > IN_GIT:
        return ""
    return hashlib.sha1(f"blob {size}\0".encode() + part.read_bytes(), usedforsecurity=False).hexdigest()


def _publish(part: Path, target: Path) -> None:
    os.replace(part, target)
    settle(target.parent)
    for stale in target.parent.glob(f".{target.name}.*.part"):
        stale.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Wait until a folder's list of names is on the disk."""
    if os.name != "nt":  # Windows has no such call for folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_space(folder: Path, count: int) -> None:
    """Raise UserError unless the disk of a folder takes that many bytes more."""
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if count > 0 and free < count + MARGIN:
        raise UserError(
            f"There is no room for {size_in_words(count)} in {folder}, where {size_in_words(free)} are free",
            "free some space, or choose a folder on another disk with --folder",
        )


def _part(target: Path, remote: Remote) -> Path:
    return target.with_name(f".{target.name}.{remote.identity[:12]}.part")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _wait(seconds: float, run: Run) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        run.check()
        time.sleep(min(left, 0.1))


def _unreachable(error: Exception, remote: Remote | None, target: Path) -> str:
    reason = str(error) or type(error).__name__
    if remote is None:
        return f"{host(endpoint())} cannot be reached ({reason})"
    return f"The download of {target.name} from {host(remote.url)} was cut again and again ({reason})"
