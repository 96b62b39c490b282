"""The client: submits jobs and brings back captures from one socket thread, while Blender goes on.

`Client.drain` hands out what happened as events; nothing here blocks the caller or imports bpy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from .events import (
    Answer,
    Answered,
    Connected,
    Disconnected,
    Event,
    JobCancelled,
    JobDone,
    JobFailed,
    JobFrame,
    JobLog,
    JobProgress,
    JobQueued,
)
from .job import Job, Order
from .link import Link, Refused
from .live import Feed, WaitingRoom
from .server_job import Listing, ServerJob, Usage
from .wire.connection import Connection
from .wire.facts import ClipFacts, Estimate
from .wire.settings import JobSettings

__all__ = [
    "Answered",
    "Client",
    "Connected",
    "Connection",
    "Disconnected",
    "Event",
    "JobCancelled",
    "JobDone",
    "JobFailed",
    "JobFrame",
    "JobLog",
    "JobProgress",
    "JobQueued",
]

log = logging.getLogger(__name__)

STOP_S = 3.0
GRACE_S = 2.5  # for files to be removed that are half done; what still runs then is cancelled once more
ASK_AGAIN_S = 0.2  # for an answer that a child of the server is still at


class Client:
    """A server's client. `share_files` False sends and fetches everything through the socket.

    `encoding` is how results come through the socket: 'exact', or 'compact' for slow lines (docs/capture.md).
    """

    def __init__(self, connection: Connection, *, share_files: bool = True, encoding: str = "exact") -> None:
        self.encoding = encoding  # of what is submitted or attached from now on
        # Not the platform's default loop: on Windows that one cannot wait for ZeroMQ's sockets.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run_thread, name="kinora-client", daemon=True)
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._strays: set[asyncio.Task[None]] = set()
        self._frames = WaitingRoom(self._soon)
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._link = Link(
            connection,
            on_up=self._on_up,
            on_down=lambda lost: self._emit(Disconnected(lost.reason, lost.hint)),
            on_push=lambda push: [job.pushed(push) for job in self._jobs.values()],
            prove_host=share_files,
        )

    def start(self) -> None:
        """Start the socket thread, which connects by itself and again after every break."""
        self._thread.start()

    def stop(self) -> None:
        """End the socket thread; jobs go on at the server. Waits a moment, never for ever."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_S)

    def submit(
        self, clip: Path, settings: JobSettings, out: Path, masks: Path | None = None, replace: bool = False
    ) -> str:
        """Ask for the capture of `clip` in the folder `out`; returns a ticket at once."""
        ticket = uuid.uuid4().hex[:12]
        known_masks = Path(masks).absolute() if masks else None
        order = Order(
            Path(clip).absolute(), settings, Path(out).absolute(), known_masks, replace, encoding=self.encoding
        )
        self._loop.call_soon_threadsafe(self._begin, ticket, order)
        return ticket

    def attach(self, job: str, out: Path, clip: Path, replace: bool = False) -> str:
        """Follow a job that the server has, also an ended one, and put its capture into `out`; returns a ticket.

        The events are those of a job that was submitted. `clip` is its footage as this machine knows it.
        """
        ticket = uuid.uuid4().hex[:12]
        order = Order(Path(clip), None, Path(out).absolute(), replace=replace, job=job, encoding=self.encoding)
        self._loop.call_soon_threadsafe(self._begin, ticket, order)
        return ticket

    def cancel(self, ticket: str, *, keep: bool = False) -> None:
        """Stop a job; JobCancelled follows, unless it has ended meanwhile.

        With `keep`, what it has shown so far comes first, where it is watched.
        """
        self._loop.call_soon_threadsafe(self._cancel, ticket, keep)

    def probe(self, clip: Path) -> str:
        """Ask what a clip on the server's disk is; Answered follows with the ticket that is returned."""
        return self._ask("probe", lambda reply: ClipFacts.from_json(reply["facts"]), path=str(Path(clip).absolute()))

    def estimate(self, settings: JobSettings, width: int, height: int, frames: int, fps: float) -> str:
        """Ask what a job would take for a clip of this size, length and rate; Answered follows."""
        fields = {"settings": settings.to_json(), "width": width, "height": height, "frames": frames, "fps": fps}
        return self._ask("estimate", lambda reply: Estimate.from_json(reply["estimate"]), **fields)

    def jobs(self) -> str:
        """Ask for all jobs of this computer's key and what they take of the disk; Answered follows, with a Listing."""
        return self._soon_with(lambda ticket: self._go(self._say(ticket, self._listing())))

    def ask(self, kind: str, **fields: Any) -> str:
        """Send a request of docs/protocol.md; Answered follows, with the fields of the reply."""
        return self._soon_with(lambda ticket: self._go(self._say(ticket, self._reply(kind, fields))))

    def aside(self, work: Callable[[], None]) -> None:
        """Do something short in the socket thread, in the order of the calls: what would hold Blender up."""
        self._soon(work)

    def watch(self, ticket: str, on: bool = True, *, anew: bool = False) -> None:
        """Have what a job shows while it runs, as JobFrame events; `anew` once more from its first frame on."""
        self._soon(lambda: self._watch(ticket, on, anew))

    def drain(self, frames: int | None = None) -> list[Event]:
        """What happened since the last call, in order; never blocks.

        At most `frames` of them are JobFrames, which come first: the others wait, and the server with them.
        """
        taken: list[Event] = [*self._frames.take(frames)]
        with self._lock:
            taken += self._events
            self._events.clear()
        return taken

    def _ask(self, kind: str, take: Callable[[dict[str, Any]], Answer], **fields: Any) -> str:
        return self._soon_with(lambda ticket: self._go(self._say(ticket, self._answer(kind, take, fields))))

    def _soon_with(self, begin: Callable[[str], None]) -> str:
        ticket = uuid.uuid4().hex[:12]
        self._soon(lambda: begin(ticket))
        return ticket

    # Everything below runs in the socket thread.

    async def _say(self, ticket: str, asking: Coroutine[Any, Any, Answer]) -> None:
        """Emit what comes of a question."""
        try:
            self._emit(Answered(ticket, await asking))
        except Refused as refused:
            self._emit(Answered(ticket, None, refused.message, refused.hint))

    async def _answer(self, kind: str, take: Callable[[dict[str, Any]], Answer], fields: dict[str, Any]) -> Answer:
        """What a child of the server finds out."""
        while not (reply := await self._reply(kind, fields))["ready"]:
            await asyncio.sleep(ASK_AGAIN_S)
        return take(reply)

    async def _reply(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        return (await self._link.request(kind, **fields))[0]

    async def _listing(self) -> Listing:
        found: dict[str, ServerJob] = {}  # the list may move between two pages
        first = 0
        while True:
            reply = await self._reply("list", {"first": first})
            found |= {row["job"]: ServerJob.from_row(row) for row in reply["jobs"]}
            first += len(reply["jobs"])
            if first >= reply["total"] or not reply["jobs"]:
                return Listing(tuple(found.values()), Usage.from_reply(await self._reply("usage", {})))

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no job waits for."""
        stray = asyncio.create_task(work)
        self._strays.add(stray)
        stray.add_done_callback(self._strays.discard)

    def _emit(self, event: Event) -> None:
        with self._lock:
            newest = self._events[-1] if self._events else None
            if isinstance(event, JobProgress) and isinstance(newest, JobProgress) and newest.ticket == event.ticket:
                self._events[-1] = event  # only the newest counts
            else:
                self._events.append(event)

    def _run_thread(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except Exception as error:
            log.exception("the client's thread ended")
            self._emit(Disconnected(f"The client stopped on an error of Kinora ({error})", "restart Blender"))
        finally:
            self._loop.close()

    async def _main(self) -> None:
        link = asyncio.create_task(self._link.run())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({link, stop}, return_when=asyncio.FIRST_COMPLETED)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # also what these began meanwhile
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=GRACE_S)
        if not link.cancelled() and link.exception() is not None:
            raise link.exception()

    def _on_up(self, hello: dict[str, Any]) -> None:
        about = {k: hello[k] for k in ("server", "gpu", "limits", "instance")}
        self._emit(Connected({**about, "same_host": self._link.same_host}))

    def _begin(self, ticket: str, order: Order) -> None:
        feed = Feed(ticket, self._link, self._frames)
        self._jobs[ticket] = job = Job(ticket, order, self._link, self._emit, feed, self._turn)
        job.task.add_done_callback(lambda _: self._jobs.pop(ticket, None))

    def _watch(self, ticket: str, on: bool, anew: bool) -> None:
        if ticket in self._jobs:
            self._jobs[ticket].feed.watch(on, anew)

    def _soon(self, function: Callable[[], None]) -> None:
        """Call a function in the socket thread; from any thread, also when that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _cancel(self, ticket: str, keep: bool) -> None:
        if ticket in self._jobs:
            self._go(self._jobs[ticket].cancel(keep))
