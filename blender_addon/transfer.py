"""Transfer: footage to the server and captures back, in chunks the client asks for, or as files on the same disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .link import Link, Refused
from .partial import Damaged, Partial, Row
from .wire import compact
from .wire.bundle import Bundle, pack
from .wire.capture import check_output_folder, read_metadata
from .wire.errors import Cancelled, UserError
from .wire.folders import flush, publish_folder
from .wire.framing import CHUNK, CHUNKS_MOST, CREDIT, PIECE
from .wire.messages import FRAMES, UPLOAD_MAX
from .wire.results import check_files, check_room

Result = TypeVar("Result")
Piece = TypeVar("Piece")

TRIES = 5  # without a step forward
ASK_AGAIN_S = 0.2
SOON_S = 0.01  # until the server has read through what it hashed on the way; then twice as long each time
ROOM_S = 3.0  # until a server without room is asked again
RATE_S = 5.0  # the rate is that of so long a time
QUICK_S = 0.25  # from a piece to its answer, with all that is under way between them

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moved:
    """How far a transfer is, in bytes; the rate is None at first. `waits_for` is for the user when it stands still."""

    stage: str
    done: int
    total: int
    bytes_per_s: float | None = None
    waits_for: str = ""

    @property
    def fraction(self) -> float:
        return min(1.0, self.done / max(1, self.total))

    @property
    def eta_s(self) -> float | None:
        return (self.total - self.done) / self.bytes_per_s if self.bytes_per_s else None


Told = Callable[[Moved], None]


class Meter:
    """Tells how far a transfer of `total` bytes is."""

    def __init__(self, stage: str, total: int, told: Told) -> None:
        self._stage, self._total, self._told = stage, total, told
        self._past: deque[tuple[float, int]] = deque()

    def at(self, done: int, waits_for: str = "") -> None:
        """So many bytes are over."""
        now = time.monotonic()
        if self._past and done < self._past[-1][1]:  # it began again
            self._past.clear()
        self._past.append((now, done))
        while now - self._past[0][0] > RATE_S:
            self._past.popleft()
        seconds = now - self._past[0][0]
        rate = (done - self._past[0][1]) / seconds if seconds > 0.2 else None
        self._told(Moved(self._stage, done, self._total, rate, waits_for))


class Pace:
    """How many bytes one message moves: a chunk, and the more of them, up to `most`, the quicker they go over.

    What is long costs less beside what it moves; on a slow line, or one that breaks, short pieces are not lost.
    """

    def __init__(self, most: int) -> None:
        self.size, self._most = CHUNK, most

    async def timed(self, request: Awaitable[Result]) -> Result:
        """What a request of this size gives, from whose time the next size follows."""
        began = time.monotonic()
        result = await request
        self.size = min(2 * self.size, self._most) if time.monotonic() - began < QUICK_S else CHUNK
        return result


async def in_thread(work: Callable[[Callable[[], bool]], Result]) -> Result:
    """`work(abandoned)` in a thread that no exit waits for, so that the socket goes on; cancelling abandons it."""
    loop, abandoned = asyncio.get_running_loop(), threading.Event()
    future: asyncio.Future[Result] = loop.create_future()

    def tell(function: Callable[[Any], None], value: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None if future.done() else function(value))

    def run() -> None:
        try:
            tell(future.set_result, work(abandoned.is_set))
        except BaseException as error:  # passed on to whoever awaits
            tell(future.set_exception, error)

    threading.Thread(target=run, name="kinora-files", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        abandoned.set()
        await asyncio.wait({future}, timeout=2.0)  # it removes what it left half done
        if future.done():
            future.exception()  # looked at, so that asyncio does not complain of it
        raise


async def upload(link: Link, footage: Bundle, stage: str, told: Told = lambda moved: None) -> None:
    """Send footage, or what the server does not have of it yet. Raises UserError when it changes meanwhile."""
    if footage.size > UPLOAD_MAX:
        raise UserError(f"{footage.path.name} is larger than the backend takes", "shorten or re-encode it")
    meter = Meter(stage, footage.size, told)
    if footage.kind == "file":
        await _upload_file(link, footage, footage.path, meter)
        return
    with tempfile.TemporaryDirectory(prefix="kinora-") as folder:
        tar = Path(folder) / "images.tar"

        def make(abandoned: Callable[[], bool]) -> None:
            with open(tar, "wb") as file:
                pack(footage.path, file)

        await in_thread(make)
        await _upload_file(link, footage, tar, meter)


async def _upload_file(link: Link, footage: Bundle, path: Path, meter: Meter) -> None:
    """Until the server says that it has all of it, and that it is right."""
    best, tries, found, pause_s = -1, 0, None, SOON_S

    def ahead(have: int) -> None:
        nonlocal best, tries
        if have > best:
            best, tries = have, 0
            meter.at(have)

    while True:
        try:
            reply, _ = await link.request("upload_open", sha256=footage.sha256, size=footage.size)
            have = reply["have"]
            tries += 1
            ahead(have)
            found = have if found is None else found
            if reply["whole"]:
                return
            if have == footage.size:
                await asyncio.sleep(pause_s)  # the server reads it through
                tries, pause_s = 0, min(2 * pause_s, ASK_AGAIN_S)
            else:
                await windowed(_chunks(link, footage, path, have), ahead)
        except Refused as refused:
            if refused.code in ("disk_full", "disk"):
                meter.at(max(best, 0), f"{refused.message}: {refused.hint}; it goes on by itself")
                await asyncio.sleep(ROOM_S)
            elif refused.code == "bad_hash" and found:  # what was there of an earlier time was no good
                best, found = -1, None
            elif refused.code not in ("not_open", "bad_offset") or tries >= TRIES:
                raise


def _chunks(link: Link, footage: Bundle, path: Path, have: int) -> Iterator[tuple[int, Callable[[], Awaitable[int]]]]:
    """Requests that send the file from byte `have` on, and their bytes; each gives how many bytes are over then."""

    pace = Pace(CHUNKS_MOST * CHUNK if FRAMES in link.caps else CHUNK)

    async def send(frames: list[bytes], end: int) -> int:
        offset = end - sum(map(len, frames))
        await pace.timed(link.request("upload_chunk", frames, sha256=footage.sha256, off=offset))
        return end

    with open(path, "rb", buffering=0) as file:
        file.seek(have)
        while have < footage.size:
            size = min(pace.size, footage.size - have)
            frames = [file.read(min(CHUNK, size - at)) for at in range(0, size, CHUNK)]
            size = sum(map(len, frames))
            if not size:
                raise UserError(f"{footage.path} changed while it was sent", "send it again")
            have += size
            yield size, lambda frames=frames, end=have: send(frames, end)


@dataclass(frozen=True)
class Errand:
    """A capture to be fetched: job `job` into the folder `out`; `tag` is no other's. `clip` is the user's footage.

    `encoding` is 'exact' or 'compact'. `keep` says whether what has arrived is kept when the errand is given up.
    """

    job: str
    out: Path
    clip: Path
    tag: str
    replace: bool = False
    encoding: str = "exact"
    keep: Callable[[], bool] = lambda: True


async def fetch(link: Link, errand: Errand, told: Told, warned: Callable[[str], None] = lambda text: None) -> None:
    """Put the job's capture into `out`, which changes only once all of it is there; by links where disks are shared.

    What arrived over the socket is taken up by the next fetch of the same when this one is given up.
    """
    rows, place = await _index(link, errand.job, "exact", told)
    staging = errand.out.with_name(f".{errand.out.name}.partial-{os.getpid()}-{errand.tag}")
    try:
        if place is not None and await in_thread(lambda abandoned: _is_result(place, rows)):
            staging.mkdir(parents=True)
            await in_thread(lambda abandoned: _link_all(place, rows, staging, abandoned))
            await in_thread(lambda abandoned: _finish(staging, errand, abandoned, linked=True))
        else:
            await _fetch_far(link, errand, rows, staging, told, warned)
    except OSError as error:
        raise UserError(
            f"The capture could not be written to {errand.out} ({error.strerror or error})",
            "choose another folder or free some space; the result is kept by the backend, so sending again is quick",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


async def _fetch_far(
    link: Link, errand: Errand, rows: list[Row], staging: Path, told: Told, warned: Callable[[str], None]
) -> None:
    """Through the socket: file by file, or as one file that is unpacked here."""
    packed = await _index_compact(link, errand, told, warned) if errand.encoding == "compact" else None
    encoding, rows = packed if packed is not None else ("exact", rows)
    partial = await in_thread(lambda abandoned: Partial(errand.out, f"{errand.job}/{encoding}", rows))
    keep = True
    try:
        await _pull_all(link, errand.job, encoding, partial, told)
        if encoding == "exact":
            await in_thread(lambda abandoned: _finish(partial.place, errand, abandoned))
        else:
            size = partial.have
            told(Moved("Unpacking the result", size, size))
            staging.mkdir(parents=True)
            file = partial.place / compact.FILE_NAME
            await in_thread(lambda abandoned: compact.unpack(file, staging, abandoned))
            await in_thread(lambda abandoned: _finish(staging, errand, abandoned))
        keep = False
    except (Cancelled, asyncio.CancelledError):
        keep = errand.keep()
        raise
    except (UserError, Refused, OSError):
        keep = False
        raise
    finally:
        partial.close(keep)


async def _index(link: Link, job: str, encoding: str, told: Told) -> tuple[list[Row], Path | None]:
    """The result's files once they are ready, and their folder when the server says we may look there."""
    rows: list[Row] = []
    while True:
        reply, _ = await link.request("result_index", job=job, first=len(rows), encoding=encoding)
        if not reply["ready"]:
            told(Moved("Packing the result", 0, 1))
            await asyncio.sleep(ASK_AGAIN_S)
            continue
        rows += [Row(row["name"], row["size"], row.get("sha256", "")) for row in reply["files"]]
        check_files(((row.name, row.size) for row in rows), reply["total"])
        if len(rows) >= reply["total"] or not reply["files"]:
            return rows, Path(reply["path"]) if link.same_host and "path" in reply else None


async def _index_compact(
    link: Link, errand: Errand, told: Told, warned: Callable[[str], None]
) -> tuple[str, list[Row]] | None:
    """The encoding that both sides know and its one file; None, with a word to the user, when there is none."""
    encoding = next((e for e in (f"compact-{codec}" for codec in compact.codecs()) if e in link.caps), None)
    if encoding is None:
        warned("The backend cannot pack the result, which is fetched as it is: update the backend")
        return None
    try:
        return encoding, (await _index(link, errand.job, encoding, told))[0]
    except Refused as refused:
        if refused.code != "no_answer":
            raise
        warned(f"{refused.message}: the result is fetched as it is")
        return None


def _is_result(place: Path, rows: list[Row]) -> bool:
    """Whether what this machine has at `place` is the result, and not a folder of the same path on another disk."""
    try:
        if any((place / row.name).stat().st_size != row.size for row in rows):
            return False
        info = next(row for row in rows if row.name == "capture.json")
        return not info.sha256 or hashlib.sha256((place / info.name).read_bytes()).hexdigest() == info.sha256
    except (OSError, StopIteration):
        return False


def _link_all(place: Path, rows: list[Row], staging: Path, abandoned: Callable[[], bool]) -> None:
    for row in rows:
        if abandoned():
            raise Cancelled("Cancelled")
        try:
            os.link(place / row.name, staging / row.name)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(place / row.name, staging / row.name)


async def _pull_all(link: Link, job: str, encoding: str, partial: Partial, told: Told) -> None:
    """Fetch what is missing; a file that arrived damaged once more, but not for ever."""

    pace = Pace(CHUNKS_MOST * CHUNK if FRAMES in link.caps else PIECE)

    async def pull(row: Row, first: int, length: int) -> list[tuple[Row, bytes]]:
        asked = link.request("get", job=job, name=row.name, off=first, n=length, encoding=encoding)
        _, frames = await pace.timed(asked)
        if sum(map(len, frames)) != length:
            raise Damaged(f"{row.name} is shorter than the backend says")
        return [(row, frame) for frame in frames]

    writing: asyncio.Future[None] | None = None
    waiting: list[tuple[Row, bytes]] = []  # until what is being written is

    async def put(pieces: list[tuple[Row, bytes]]) -> None:
        """Write and hash what came while more of it is under way."""
        nonlocal writing
        waiting.extend(pieces)
        held = sum(len(data) for _, data in waiting)
        if writing is not None and not writing.done() and held < CREDIT * CHUNK:
            return
        if writing is not None:
            await writing
        writing = asyncio.ensure_future(in_thread(lambda abandoned, pieces=tuple(waiting): append(pieces)))
        waiting.clear()
        meter.at(partial.have)

    def append(pieces: Iterable[tuple[Row, bytes]]) -> None:
        for piece in pieces:
            partial.append(*piece)

    for attempt in range(TRIES):
        try:
            await in_thread(partial.take_up)
            total = sum(row.size for row in partial.rows)
            check_room(partial.place, total - partial.have)
            meter = Meter("Fetching the result", total, told)
            meter.at(partial.have)
            pieces = partial.missing(lambda: pace.size)
            await windowed(((piece[2], lambda piece=piece: pull(*piece)) for piece in pieces), put)
            if writing is not None:
                await writing
            await in_thread(lambda abandoned: append(tuple(waiting)))
            meter.at(partial.have)
            return
        except Damaged as damaged:
            log.warning("%s", damaged)
            if attempt == TRIES - 1:
                raise UserError("The result arrived damaged", "send the clip again") from damaged
        finally:
            if writing is not None:
                await asyncio.gather(writing, return_exceptions=True)  # before anybody looks at the files again
                writing = None
            waiting.clear()


def _finish(staging: Path, errand: Errand, abandoned: Callable[[], bool], *, linked: bool = False) -> None:
    """Name this machine's clip as the source, make the files durable and give the folder its name.

    Files that were `linked` from the server's disk may name it already.
    """
    info_file = staging / "capture.json"
    try:
        info = read_metadata(staging)
        source = Path(info["clip"]["source"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"The result arrived damaged ({error})", "send the clip again") from error
    if not linked or not source.exists():  # the server's copy, or a path that it made up
        info["clip"]["source"] = str(errand.clip)
        info_file.unlink()  # it may be a link to the server's
        info_file.write_text(json.dumps(info, indent=1), encoding="utf-8")
    for path in staging.iterdir():
        if abandoned():
            raise Cancelled("Cancelled")
        flush(path)
    check_output_folder(errand.out, replace=errand.replace)  # again: time has passed
    publish_folder(staging, errand.out)


async def windowed(
    requests: Iterable[tuple[int, Callable[[], Awaitable[Piece]]]],
    take: Callable[[Piece], Awaitable[None] | None],
    most: int = CREDIT * CHUNK,
) -> None:
    """Run requests, each with the bytes that it moves, in order, and take their results in that order.

    At most so many bytes are under way, and CREDIT requests, since a server turns away who asks for more at once. The
    first failure ends them all.
    """
    window: deque[tuple[int, asyncio.Future[Piece]]] = deque()

    async def take_first() -> None:
        taken = take(await window.popleft()[1])
        if taken is not None:
            await taken

    try:
        for size, request in requests:
            while window and (len(window) >= CREDIT or size + sum(each for each, _ in window) > most):
                await take_first()
            window.append((size, asyncio.ensure_future(request())))
        while window:
            await take_first()
    finally:
        for _, task in window:
            task.cancel()
