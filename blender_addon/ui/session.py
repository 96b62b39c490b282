"""The session: one backend and the jobs of all scenes; a timer pumps events from the client's thread.

Only `pump` touches Blender's data for a job. In an application a timer calls it; code without a window (scripts, tests)
calls `current().pump()` itself.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from ..server_job import ServerJob
from ..wire.errors import UserError
from .asking import Asking, WhatClip
from .attached import Attached
from .keeping import Keeping, followed
from .landing import Landing
from .live import LiveViews
from .preferences import BackendChoice
from .queue_rows import sync
from .reconstruction import Reconstruction, reconstruction_of
from .server_jobs import ServerJobs
from .summary import Summary
from .text import size

if TYPE_CHECKING:
    from ..client import JobProgress

log = logging.getLogger(__name__)

BUSY_S, IDLE_S = 0.1, 1.0  # how often the timer pumps while something happens, and while nothing does
IMPORT_EVERY_S = 0.01  # and while a capture is imported: the window has its turn in between
BUDGET_S = 0.005  # longest that one pump applies events
REDRAW_S = 0.5  # how often figures that run are drawn again
KEPT_JOBS = 100  # that the queue shows at most; the oldest that have ended are forgotten


class Session(Attached):
    """What Kinora is doing in this Blender."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Reconstruction] = []
        self.asking = Asking()
        self.server = ServerJobs()
        self.keeping = Keeping()
        self.live = LiveViews()
        self.landing = Landing()
        self._file = ""
        self._events: deque = deque()
        self._summaries: dict[Path, Summary | str] = {}
        self._shown: object = None  # what the panels showed last
        self._happened: object = None  # and what of it was no mere number
        self._drawn = 0.0

    # ---- the backend -------------------------------------------------------------------------------------------

    def start_backend(self, choice: BackendChoice) -> None:
        """Find or start the backend; returns at once. Raises UserError when jobs still run on another one."""
        if self.state != "OFF" and choice == self.choice:
            return
        if any(job.active for job in self.jobs) and self.state != "OFF":
            raise UserError("A job is running on another backend", "wait for it or cancel it")
        self.stop_backend()
        self._open(choice)
        wake()

    def stop_backend(self) -> None:
        """Leave the backend, and stop it when it runs on this computer; returns at once.

        Jobs that it has go on when it does, and are followed again once it is connected.
        """
        self._events.clear()
        self.asking, self.server, self.keeping = Asking(), ServerJobs(), Keeping()
        self._leave()
        self._lose("", "", "The backend was stopped", "start it and reconstruct again")

    def close(self) -> None:
        """Leave no thread, no process and no half import of ours behind: for unregistering and quitting."""
        self.landing.leave()
        self.live.rescues.leave()
        self._quit()

    # ---- jobs --------------------------------------------------------------------------------------------------

    def job(self, scene: bpy.types.Scene) -> Reconstruction | None:
        """The job of a scene that is under way, or else the one that is next, or else the newest."""
        mine = [job for job in self.jobs if job.scene.find() == scene]
        under_way = [job for job in mine if job.state in {"RUNNING", "CANCELLING", "IMPORTING"}]
        return next(iter(under_way or [job for job in mine if job.active] or mine[::-1]), None)

    def job_of(self, uid: str) -> Reconstruction | None:
        """The job with that id."""
        return next((job for job in self.jobs if job.uid == uid), None)

    def submit(
        self,
        scene: bpy.types.Scene,
        choice: BackendChoice,
        clips: Sequence[Path] = (),
        import_when_done: bool | None = None,
    ) -> list[Reconstruction]:
        """Ask for what the settings of the scene say, starting the backend if need be; returns at once.

        `clips` are taken instead of the scene's clip, each into a folder of its own. `import_when_done` None goes by
        the scene's setting when a job ends. Raises UserError, and then nothing was asked for.
        """
        new: list[Reconstruction] = []
        for clip in clips or (None,):
            active = [job for job in (*self.jobs, *new) if job.active]
            job = reconstruction_of(scene, clip, taken=[j.out for j in active])
            if any(job.same_work(j) for j in active):
                raise UserError(f"{job.clip.name} is in the queue already with these settings", "cancel it there first")
            job.import_when_done = import_when_done
            new.append(job)
        self.ask_for(new, choice)
        return new

    def ask_for(self, new: list[Reconstruction], choice: BackendChoice) -> None:
        """Send these jobs, starting the backend if need be; returns at once. Raises UserError: then none is sent."""
        self.start_backend(choice)
        ended = [job for job in self.jobs if not job.active]
        forgotten = ended[: max(0, len(self.jobs) + len(new) - KEPT_JOBS)]
        self.jobs = [job for job in self.jobs if job not in forgotten] + new
        self._send_waiting()
        wake()

    def follow(
        self, scene: bpy.types.Scene, row: ServerJob, out: Path | None = None, import_when_done: bool | None = None
    ) -> Reconstruction:
        """Take a job that the backend has for one of this scene: its progress, and its result as a capture in `out`.

        Returns at once. Raises UserError when no folder can be said, or it is followed already.
        """
        client = self.client
        earlier = next((job for job in self.jobs if job.server_job == row.job), None)
        if earlier is not None and earlier.active:
            raise UserError(f"{earlier.clip.name} is followed already", "see the queue")
        order = self.keeping.orders.get(row.job)
        key = self._backend.connection.server_public_key
        job = followed(scene, row, order, key, [j.out for j in self.jobs if j.active], out)
        if import_when_done is not None:
            job.import_when_done = import_when_done
        self.jobs = [job for job in self.jobs if job is not earlier] + [job]
        self.keeping.keep(client, job)
        self._send_waiting()
        wake()
        return job

    def wait(self, jobs: Sequence[Reconstruction]) -> None:
        """Pump until these jobs have ended: for scripts, as no timer runs without a window. Blocks Blender.

        Raises UserError for the first of them that ended without a capture, or could not be imported.
        """
        while any(job.active for job in jobs):
            time.sleep(min(self.pump() or BUSY_S, BUSY_S))
        for job in jobs:
            if job.message or job.state != "DONE":
                raise UserError(f"{job.clip.name}: {job.message or job.status}", job.hint)

    def cancel(self, job: Reconstruction) -> None:
        """Ask for a job to stop; returns at once. An import under way leaves nothing, a whole one stays."""
        if self.landing.landed(job):
            return
        if job.state == "IMPORTING":
            self.landing.leave()
            job.state, job.message = "DONE", "The import was cancelled"
            job.hint = f"the capture is in {job.folder}"
        elif job.active and job.ticket and self._backend is not None:
            job.state = "CANCELLING"
            scene = job.scene.find()
            self._backend.client.cancel(job.ticket, keep=scene is not None and scene.kinora.live_keep)
        elif job.active:
            job.state = "CANCELLED"

    def summary(self, folder: Path) -> Summary | str:
        """What to know of the capture in `folder`, or why it cannot be read; read once."""
        if folder not in self._summaries:
            try:
                self._summaries[folder] = Summary.read(folder)
            except UserError as error:
                self._summaries[folder] = str(error)
        return self._summaries[folder]

    # ---- the pump ----------------------------------------------------------------------------------------------

    def pump(self) -> float | None:
        """Do what is waiting, within some milliseconds; seconds until the next call.

        None when there is nothing to wait for.
        """
        began = time.perf_counter()
        self.landing.begin_pump()
        try:
            return self._pump(began)
        finally:
            self.landing.end_pump()

    def _pump(self, began: float) -> float | None:
        if self._opened():
            self._send_waiting()
        self.keeping.tick()
        if self._backend is not None:
            self._events.extend(self._backend.client.drain(frames=self.live.room))
        while self._events and time.perf_counter() - began < BUDGET_S:
            self._apply(self._events.popleft())
        self._ask()
        self._check_local()
        self.live.tick(self.jobs, self._backend and self._backend.client, self.landing.seconds)
        self._import_next()
        if not self.landing.busy:
            self.live.rescues.work(self.landing.seconds)
        sync(self)
        self._redraw()
        if self.landing.busy or self.live.busy:
            return IMPORT_EVERY_S
        if self._opening is not None or self.asking.busy or self.server.busy or any(job.active for job in self.jobs):
            return BUSY_S
        return IDLE_S if self._backend is not None else None

    def _lose(self, note: str, note_hint: str, message: str = "", hint: str = "") -> None:
        """There is no backend any more, and `note` says why; `message` what that is to a job, when it is another."""
        super()._lose(note, note_hint)
        for job in self.jobs:
            if job.active and job.state != "IMPORTING":
                job.leave(message or note, hint or note_hint)

    def _send_waiting(self) -> None:
        for job in self.jobs:
            if self._backend is not None and job.state == "WAITING" and not job.ticket:
                client, job.backend = self._backend.client, self._backend.connection.server_public_key
                if job.server_job:
                    job.ticket = client.attach(job.server_job, job.out, job.clip, job.replace)
                else:
                    job.ticket = client.submit(job.clip, job.settings, job.out, job.masks, replace=job.replace)

    def _apply(self, event) -> None:
        from .. import client as wire

        match event:
            case wire.Connected():
                self._connected(event.server)
                return
            case wire.Answered():
                self._answered(event)
                return
            case wire.Disconnected():
                self._disconnected(event.reason, event.hint)
                return
        job = next((j for j in self.jobs if j.ticket == event.ticket), None)
        if job is None:
            return
        match event:
            case wire.JobQueued() if job.state in {"WAITING", "QUEUED"}:
                if not job.server_job or job.state == "WAITING":
                    job.server_job = event.job
                    self.keeping.keep(self._backend.client, job)
                job.state, job.queue_position = "QUEUED", event.position
                self.server.refresh()
            case wire.JobProgress() if job.state != "CANCELLING":
                job.state, job.stage, job.stage_fraction = "RUNNING", event.stage, event.stage_fraction
                job.fraction, job.eta_s, job.transfer = event.fraction, event.eta_s, moved(event)
                job.where = event.where or job.where
            case wire.JobFrame():
                self.live.take(event)
            case wire.JobLog():
                job.log.append(f"{event.level}: {event.text}")
            case wire.JobDone():
                self._done(job, Path(event.folder))
            case wire.JobFailed():
                job.fail(event.message, event.hint)
                log.warning("%s; %s", event.message, event.hint)
            case wire.JobCancelled():
                job.state = "CANCELLED"
        if isinstance(event, (wire.JobDone, wire.JobFailed, wire.JobCancelled)):
            self.keeping.settle(self._backend.client, job)
            self.server.refresh()

    def _connected(self, server: dict) -> None:
        super()._connected(server)
        self.server.refresh()
        key = self._backend.connection.server_public_key
        self.keeping.load(self._backend.client, key)
        for job in self.jobs:
            if job.state == "AWAY" and job.backend == key:
                job.follow()
        self._send_waiting()

    def _find_again(self) -> None:
        """Follow the jobs that scenes of this file wait for, and that no Blender has seen the end of."""
        mine = {job.server_job for job in self.jobs}
        for row in reversed(self.server.listing.jobs):
            scene = self.keeping.lost(row) if row.job not in mine else None
            if scene is not None:
                with contextlib.suppress(UserError):  # it stays in the list, to be fetched by hand
                    self.follow(scene, row)

    # ---- what is asked beside the jobs -------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have the backend count the clips that only Blender has looked at, and send what the panels ask."""
        if self.state != "READY" or self._backend is None:
            return
        for facts in (scene.kinora.facts for scene in bpy.data.scenes):
            if facts.of and not facts.counted and not facts.problem and self.same_host:
                with contextlib.suppress(OSError):  # it is gone; Reconstruct says so
                    self.asking.answer(WhatClip.of(Path(facts.of)))
        self.asking.tick(self._backend.client)
        self.server.tick(self._backend.client)
        if bpy.data.filepath != self._file:
            self._file = bpy.data.filepath
            self._find_again()

    def _answered(self, event) -> None:
        if self.server.take(event):
            self._find_again()
            return
        question = self.asking.take(event)
        if isinstance(question, WhatClip):
            for facts in (scene.kinora.facts for scene in bpy.data.scenes):
                if facts.of == str(question.path) and event.answer is not None:
                    facts.show(question.path, event.answer)
                elif facts.of == str(question.path):
                    facts.problem = f"{event.message}; {event.hint}" if event.hint else event.message
        redraw()

    # ---- what comes of it --------------------------------------------------------------------------------------

    def _done(self, job: Reconstruction, folder: Path) -> None:
        job.state, job.folder, job.fraction = "DONE", folder, 1.0
        self._summaries.pop(folder, None)
        scene = job.scene.find()
        if scene is None:
            job.message = f"The scene that asked for {folder.name} is not open"
            job.hint = f"import it from {folder}"
        else:
            if not job.localises:
                scene.kinora.capture_path = str(folder)
            if scene.kinora.import_when_done if job.import_when_done is None else job.import_when_done:
                job.state = "IMPORTING"

    def _import_next(self) -> None:
        """Go on importing one finished capture."""
        job = next((j for j in self.jobs if j.state == "IMPORTING"), None)
        if job is None or job.folder is None:
            return
        scene = job.scene.find()
        if scene is None:
            self.landing.leave()
            self._done(job, job.folder)
        else:
            self.landing.work(job, scene)

    def _view(self) -> tuple:
        """What the panels show of this session."""
        jobs = tuple((j.state, j.status, round(j.fraction, 3), round(j.eta_s or 0), j.transfer) for j in self.jobs)
        return self.state, self.note, self.server.listing, self.server.problem, jobs

    def _redraw(self) -> None:
        """Have the panels drawn again: at once when something happened, twice a second while only numbers change.

        The sidebar lies over the 3D view, so that Blender draws the artist's whole scene with it.
        """
        view, now = self._view(), time.monotonic()
        jobs = tuple((job.uid, job.state, job.stage) for job in self.jobs)
        happened = (self.state, self.note, self.server.listing, self.server.problem, jobs)
        if view != self._shown and (happened != self._happened or now - self._drawn > REDRAW_S):
            self._shown, self._happened, self._drawn = view, happened, now
            redraw()


def moved(event: JobProgress) -> str:
    """How many bytes have been sent or fetched, and how fast; '' for a stage that moves none."""
    if not event.total_bytes:
        return ""
    rate = f", {size(round(event.bytes_per_s))}/s" if event.bytes_per_s else ""
    return f"{size(event.done_bytes)} of {size(event.total_bytes)}{rate}"


def redraw() -> None:
    """Draw the sidebars and the preferences again."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "PREFERENCES"}:
                for region in area.regions:
                    if region.type in {"UI", "WINDOW"} and (region.type == "UI" or area.type == "PREFERENCES"):
                        region.tag_redraw()


_session: Session | None = None


def current() -> Session:
    """The session of this Blender, while the add-on is registered."""
    if _session is None:
        raise RuntimeError("Kinora is not registered")
    return _session


def _tick() -> float | None:
    try:
        return current().pump()
    except Exception:  # a timer that raises is dropped by Blender, and the panel would freeze
        log.exception("the session failed")
        return IDLE_S


def wake() -> None:
    """Have the timer pump soon."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    bpy.app.timers.register(_tick, first_interval=0.01, persistent=True)


def register() -> None:
    global _session
    _session = Session()


def unregister() -> None:
    global _session
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    current().close()
    _session = None
