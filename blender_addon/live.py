"""The live feed of a job: asks what it shows while it runs and fetches it, never faster than Blender takes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable

from .events import JobFrame
from .link import Link, Refused
from .wire.errors import ProtocolError
from .wire.live import LiveFrame

log = logging.getLogger(__name__)

POLL_S = 1.0  # asked at least this often; a push brings it at once
PAUSE_S = 0.2  # and at most this often
MOST_WAITING = 8  # frames that were fetched and that Blender has not taken
STALLED_S = 2.0  # catching up ends when no frame has come for so long
LOOK_S = 0.02


class WaitingRoom:
    """Frames between the socket thread, which brings them, and Blender's, which takes them: newest versions only."""

    def __init__(self, wake: Callable[[Callable[[], None]], None]) -> None:
        """`wake(function)` calls a function in the socket thread, from any thread."""
        self._frames: OrderedDict[tuple[str, int], JobFrame] = OrderedDict()
        self._lock = threading.Lock()
        self._wake, self._room = wake, asyncio.Event()

    async def put(self, frame: JobFrame) -> None:
        """Bring a frame, once there is room for it."""
        while True:
            with self._lock:
                key = frame.ticket, frame.live.frame
                if key in self._frames or len(self._frames) < MOST_WAITING:
                    self._frames[key] = frame
                    return
                self._room.clear()
            await self._room.wait()

    def take(self, most: int | None) -> list[JobFrame]:
        """At most so many frames, those first that came first; any thread."""
        with self._lock:
            count = len(self._frames) if most is None else min(most, len(self._frames))
            taken = [self._frames.popitem(last=False)[1] for _ in range(count)]
        if taken:
            self._wake(self._room.set)
        return taken

    def forget(self, ticket: str) -> None:
        """Drop what waits of a job."""
        with self._lock:
            for key in [key for key in self._frames if key[0] == ticket]:
                del self._frames[key]
        self._room.set()


class Feed:
    """What a job shows, while `watch` wants it. It knows the newest number it has, so no break of the link harms it."""

    def __init__(self, ticket: str, link: Link, room: WaitingRoom) -> None:
        self._ticket, self._link, self._room = ticket, link, room
        self._wanted, self._stirred = asyncio.Event(), asyncio.Event()
        self._attempt, self._since = -1, 0
        self._job = ""  # while it runs

    def watch(self, on: bool, anew: bool) -> None:
        """Begin or stop; `anew` fetches everything again that the job shows."""
        if anew:
            self._since = 0
            self._room.forget(self._ticket)
        if on:
            self._wanted.set()
            self._stirred.set()
        else:
            self._wanted.clear()
            self._room.forget(self._ticket)

    def stir(self) -> None:
        """The job has moved: there may be something to fetch."""
        self._stirred.set()

    async def run(self, job: str) -> None:
        """Fetch until cancelled, or until the server turns out to show nothing."""
        self._job = job
        try:
            while True:
                await self._wanted.wait()
                self._stirred.clear()
                reply, _ = await self._link.request("live", job=job, since=self._since)
                if reply["attempt"] != self._attempt or reply["last"] < self._since:  # it was begun again
                    self._attempt = reply["attempt"]
                    if self._since:
                        self._since = 0
                        continue
                for row in reply["frames"]:
                    since = self._since
                    await self._fetch(job, row["frame"])
                    if not self._wanted.is_set() or self._since != since:  # stopped, or to be begun anew
                        break
                    self._since = row["n"]
                if not reply["frames"]:
                    await self._wait()
        except Refused as refused:
            log.info("no live frames: %s", refused.message)
        except Exception:  # the job goes on without
            log.exception("the live frames of job %s ended", job)
        finally:
            self._job = ""

    async def catch_up(self, most_s: float) -> None:
        """Return once everything is here that the job shows now, if it is watched; or when that takes too long."""
        with contextlib.suppress(TimeoutError, Refused):
            async with asyncio.timeout(most_s):
                if not self._wanted.is_set() or not self._job:
                    return
                async with asyncio.timeout(STALLED_S):
                    reply, _ = await self._link.request("live", job=self._job, since=self._since)
                self.stir()
                while self._job and self._since < reply["last"] and self._attempt in (-1, reply["attempt"]):
                    await self._one_more()

    async def _one_more(self) -> None:
        """Wait for a frame. Raises TimeoutError when none comes."""
        since = self._since
        async with asyncio.timeout(STALLED_S):
            while self._job and self._since == since:
                await asyncio.sleep(LOOK_S)

    async def _wait(self) -> None:
        await asyncio.sleep(PAUSE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S - PAUSE_S):  # wait_for of Python 3.11 may lose a cancellation
                await self._stirred.wait()

    async def _fetch(self, job: str, frame: int) -> None:
        try:
            reply, (data,) = await self._link.request("live_get", job=job, frame=frame)
        except Refused as refused:
            if refused.code != "no_such_file":  # the job may have ended meanwhile
                raise
            return
        try:
            live = LiveFrame.decode(data)
        except ProtocolError as error:
            log.warning("live frame %d: %s", frame, error)
            return
        if zlib.crc32(data) == reply["crc"] and live.frame == frame:
            await self._room.put(JobFrame(self._ticket, self._attempt, live))
