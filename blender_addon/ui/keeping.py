"""What is kept of jobs so that they are found again: after a crash, in a file opened again, from another panel."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from .. import orders
from ..orders import KeptOrder
from ..server_job import ServerJob
from ..wire.errors import UserError
from ..wire.settings import JobSettings
from .properties import absolute, free_folder
from .reconstruction import Reconstruction, SceneRef

if TYPE_CHECKING:
    from ..client import Client

TICKETS_KEPT = 20  # in a scene


class Keeping:
    """The orders that one backend was given. Their files are read and written by the client's thread."""

    def __init__(self) -> None:
        self.orders: dict[str, KeptOrder] = {}  # by the backend's id of the job
        self._loaded: deque[dict[str, KeptOrder]] = deque()

    def load(self, client: Client, backend: str) -> None:
        """Read what was kept of the jobs of a backend; `tick` takes it in."""
        client.aside(lambda: self._loaded.append(orders.kept(backend)))

    def tick(self) -> None:
        while self._loaded:
            self.orders = {**self._loaded.popleft(), **self.orders}

    def keep(self, client: Client, job: Reconstruction) -> None:
        """Keep what a job was asked for, in a file and in its scene."""
        settings: Any = job.settings.to_json() if job.settings else None
        before = self.orders.get(job.server_job)
        order = KeptOrder(
            job=job.server_job,
            backend=job.backend,
            clip=str(job.clip),
            out=str(job.out),
            blend=job.scene.blend,
            scene=job.scene.name,
            settings=settings or (before.settings if before else {}),
            masks=str(job.masks or ""),
            replace=job.replace,
            import_when_done=job.import_when_done,
        )
        self._set(client, order)
        scene = job.scene.find()
        if scene is not None:
            tickets = [ticket for ticket in scene.kinora.tickets.split() if ticket != job.server_job]
            scene.kinora.tickets = " ".join([*tickets, job.server_job][-TICKETS_KEPT:])

    def settle(self, client: Client, job: Reconstruction) -> None:
        """The end of a job was seen: nobody needs to look for it any more."""
        order = self.orders.get(job.server_job)
        if order is not None and not order.settled:
            self._set(client, replace(order, settled=True))

    def drop(self, client: Client, job: str) -> None:
        """Forget a job that the backend has forgotten."""
        self.orders.pop(job, None)
        client.aside(lambda: orders.drop(job))

    def lost(self, row: ServerJob) -> bpy.types.Scene | None:
        """The scene that waits for a job whose end nobody has seen: by its file and name, or by what it has kept."""
        order = self.orders.get(row.job)
        if order is None or order.settled:
            return None
        for scene in bpy.data.scenes:
            same_file = bool(order.blend) and bpy.data.filepath == order.blend and scene.name == order.scene
            if same_file or row.job in scene.kinora.tickets.split():
                return scene
        return None

    def _set(self, client: Client, order: KeptOrder) -> None:
        self.orders[order.job] = order
        client.aside(lambda: orders.keep(order))


def followed(
    scene: bpy.types.Scene, row: ServerJob, order: KeptOrder | None, backend: str, taken: list[Path], out: Path | None
) -> Reconstruction:
    """A job of the backend as one of this scene: into `out`, or the folder it was meant for, or one of its name.

    Raises UserError when no folder can be said.
    """
    settings = scene.kinora
    clip = Path(order.clip) if order else _clip_called(settings, row.name)
    overwrite = bool(order and order.replace)
    if out is None and order is not None:
        out = free_folder(Path(order.out), taken, overwrite)
    if out is None and (settings.output_path or bpy.data.filepath):
        out = settings.output(clip, taken)
    if out is None:
        raise UserError("There is no folder for the result", "save the file, or choose the output folder in Files")
    known = None
    if order is not None and order.settings:
        try:
            known = JobSettings.from_json(order.settings)
        except UserError:
            known = None  # of another version of Kinora; the backend has its own
    return Reconstruction(
        SceneRef.of(scene),
        clip,
        out,
        known,
        masks=Path(order.masks) if order and order.masks else None,
        replace=overwrite,
        import_when_done=order.import_when_done if order else None,
        server_job=row.job,
        backend=backend,
    )


def _clip_called(settings, name: str) -> Path:
    """The scene's clip when it is called that, else the mere name."""
    try:
        mine = absolute(settings.clip_path) if settings.clip_path else None
    except UserError:
        mine = None
    return mine if mine is not None and mine.name == name else Path(name)
