"""Transfer: footage to the server and captures back, in chunks the client asks for, or as files on the same disk."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import threading
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .link import Link, Refused
from .wire.bundle import Bundle, pack
from .wire.capture import check_output_folder
from .wire.errors import Cancelled, UserError
from .wire.folders import publish_folder
from .wire.framing import CHUNK, CREDIT
from .wire.messages import UPLOAD_MAX

Result = TypeVar("Result")
Told = Callable[[float], None]

UPLOAD_TRIES = 5


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


async def upload(link: Link, footage: Bundle, told: Told = lambda fraction: None) -> None:
    """Send footage, or what the server does not have of it yet. Raises UserError when it changes meanwhile."""
    if footage.size > UPLOAD_MAX:
        raise UserError(f"{footage.path.name} is larger than the backend takes", "shorten or re-encode it")
    if footage.kind == "file":
        await _upload_file(link, footage, footage.path, told)
        return
    with tempfile.TemporaryDirectory(prefix="kinora-") as folder:
        tar = Path(folder) / "images.tar"

        def make(abandoned: Callable[[], bool]) -> None:
            with open(tar, "wb") as file:
                pack(footage.path, file)

        await in_thread(make)
        await _upload_file(link, footage, tar, told)


async def _upload_file(link: Link, footage: Bundle, path: Path, told: Told) -> None:
    for attempt in range(UPLOAD_TRIES):
        reply, _ = await link.request("upload_open", sha256=footage.sha256, size=footage.size)
        try:
            await windowed(_chunks(link, footage, path, reply["have"], told))
            return
        except Refused as refused:
            # The server was restarted, or lost its place: it says where to go on.
            if refused.code not in ("not_open", "bad_offset") or attempt == UPLOAD_TRIES - 1:
                raise


def _chunks(link: Link, footage: Bundle, path: Path, have: int, told: Told) -> Iterator[Callable[[], Awaitable[None]]]:
    async def send(offset: int, data: bytes) -> None:
        await link.request("upload_chunk", [data], sha256=footage.sha256, off=offset, crc=zlib.crc32(data))
        told((offset + len(data)) / footage.size)

    with open(path, "rb") as file:
        file.seek(have)
        while have < footage.size:
            data = file.read(min(CHUNK, footage.size - have))
            if not data:
                raise UserError(f"{footage.path} changed while it was sent", "send it again")
            yield lambda offset=have, data=data: send(offset, data)
            have += len(data)


async def fetch(link: Link, job: str, out: Path, clip: Path, *, tag: str, replace: bool, told: Told) -> None:
    """Put the job's capture into `out`, which changes only once all of it is there; by links where disks are shared."""
    files, place = await _index(link, job)
    staging = out.with_name(f".{out.name}.partial-{os.getpid()}-{tag}")
    try:
        staging.mkdir(parents=True)
        if place is not None and all((place / name).is_file() for name, _ in files):
            await in_thread(lambda abandoned: _link_all(place, files, staging, abandoned))
        else:
            await _pull_all(link, job, files, staging, told)
        await in_thread(lambda abandoned: _finish(files, staging, out, clip, replace, abandoned))
    except OSError as error:
        raise UserError(
            f"The capture could not be written to {out} ({error.strerror or error})",
            "choose another folder or free some space; the result is kept by the backend, so sending again is quick",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


async def _index(link: Link, job: str) -> tuple[list[tuple[str, int]], Path | None]:
    """Names and sizes of the result's files, and its folder when the server says we may look there."""
    files: list[tuple[str, int]] = []
    while True:
        reply, _ = await link.request("result_index", job=job, first=len(files))
        files += [(row["name"], row["size"]) for row in reply["files"]]
        if len(files) >= reply["total"] or not reply["files"]:
            return files, Path(reply["path"]) if "path" in reply else None


def _link_all(place: Path, files: list[tuple[str, int]], staging: Path, abandoned: Callable[[], bool]) -> None:
    for name, _ in files:
        if abandoned():
            raise Cancelled("Cancelled")
        try:
            os.link(place / name, staging / name)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(place / name, staging / name)


async def _pull_all(link: Link, job: str, files: list[tuple[str, int]], staging: Path, told: Told) -> None:
    total, done = max(1, sum(size for _, size in files)), 0

    async def pull(name: str, offset: int, length: int) -> None:
        nonlocal done
        reply, frames = await link.request("get", job=job, name=name, off=offset, n=length)
        if len(frames[0]) != length or zlib.crc32(frames[0]) != reply["crc"]:
            raise UserError("The result arrived damaged", "send the clip again")
        with open(staging / name, "r+b") as file:
            file.seek(offset)
            file.write(frames[0])
        done += length
        told(done / total)

    for name, _ in files:
        (staging / name).touch()
    pieces = ((name, at, min(CHUNK, size - at)) for name, size in files for at in range(0, size, CHUNK))
    await windowed((lambda piece=piece: pull(*piece)) for piece in pieces)


def _finish(
    files: list[tuple[str, int]], staging: Path, out: Path, clip: Path, replace: bool, abandoned: Callable[[], bool]
) -> None:
    """Check sizes, name this machine's clip as the source, make it durable and give it its name."""
    for name, size in files:
        if (staging / name).stat().st_size != size:
            raise UserError("The result arrived damaged", "send the clip again")
    info_file = staging / "capture.json"
    info = json.loads(info_file.read_text(encoding="utf-8"))
    if not Path(info["clip"]["source"]).exists():  # the server's own copy, of which this machine knows nothing
        info["clip"]["source"] = str(clip)
        info_file.unlink()  # it may be a link to the server's
        info_file.write_text(json.dumps(info, indent=1), encoding="utf-8")
    for name, _ in files:
        with open(staging / name, "rb+") as file:
            os.fsync(file.fileno())
    if abandoned():
        raise Cancelled("Cancelled")
    check_output_folder(out, replace=replace)  # again: time has passed
    publish_folder(staging, out)


async def windowed(requests: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Run requests in order, at most CREDIT of them under way; the first failure ends them all."""
    window: deque[asyncio.Future[None]] = deque()
    try:
        for request in requests:
            window.append(asyncio.ensure_future(request()))
            if len(window) >= CREDIT:
                await window.popleft()
        while window:
            await window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)
