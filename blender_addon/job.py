"""A job as the client sees it: from the clip to the server, through its events, to the capture in its folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .events import Event, JobCancelled, JobDone, JobFailed, JobLog, JobProgress, JobQueued
from .link import Link, Refused
from .live import Feed
from .transfer import Errand, Moved, fetch, in_thread, upload
from .wire.bundle import Bundle, identify, sample
from .wire.capture import check_output_folder
from .wire.errors import Cancelled, UserError
from .wire.messages import ENDED, safe_name
from .wire.settings import JobSettings

log = logging.getLogger(__name__)

POLL_S = 1.0  # events are asked for at least this often; a push brings them at once
CANCEL_S = 2.0  # after this a cancelled job is over for the user, whether the server answered or not
KEEP_S = 30.0  # so long it goes on at the most while what it has shown is fetched


@dataclass(frozen=True)
class Order:
    """What the user asked for; all paths are absolute. With `job`, that one of the server is followed, none is sent."""

    clip: Path
    settings: JobSettings | None
    out: Path
    masks: Path | None = None
    replace: bool = False
    job: str = ""
    encoding: str = "exact"  # of the result over the wire: 'exact' or 'compact'


class Job:
    """One order under way. `run` ends with exactly one of JobDone, JobFailed and JobCancelled.

    `turn` is shared by all orders of a client: they reach the server in the order they were made.
    """

    def __init__(
        self, ticket: str, order: Order, link: Link, emit: Callable[[Event], None], feed: Feed, turn: asyncio.Lock
    ) -> None:
        self.ticket = ticket
        self.feed = feed  # what it shows while it runs
        self.id = ""  # the server's, once it has the job
        self._order, self._link, self._emit, self._turn = order, link, emit, turn
        self._order_ticket = uuid.uuid4().hex  # however often this order is sent, it is done once
        self._followed = False  # the server works on it
        self._given_up = False  # by the user
        self._waits_for = ""
        self._last = 0  # number of the newest event that was taken
        self._moved = asyncio.Event()
        self._ordering: asyncio.Task[dict[str, Any]] | None = None  # the `submit` that is under way, or was
        self.task = asyncio.create_task(self._run())

    async def cancel(self, keep: bool = False) -> None:
        """Tell the server, now or when it can be reached again; for the user the job is over soon in any case.

        With `keep` everything is fetched before that it shows by now, where that is watched.
        """
        if keep:
            await self.feed.catch_up(KEEP_S)
            if self.task.done():
                return
        self._given_up = True
        if not self._followed and (self._ordering is None or self._ordering.done()):
            self.task.cancel()
            return
        told = asyncio.create_task(self._cancel_there())
        try:
            await asyncio.wait({self.task}, timeout=CANCEL_S)
            self.task.cancel()
            await told
        finally:
            told.cancel()

    async def _cancel_there(self) -> None:
        try:
            if self._ordering is not None:
                await asyncio.shield(self._ordering)  # the server may have the job without us knowing
            await self._link.request("cancel", job=self.id)
        except Refused as refused:
            log.info("nothing to cancel: %s", refused.message)

    def pushed(self, push: dict[str, Any]) -> None:
        """Take the newest progress, and learn by `last` whether there are events to ask for."""
        if push["job"] != self.id or not self._followed:
            return
        if push["state"] == "running" and push["stage"]:
            where, eta_s = push.get("where", ""), push.get("eta_s")
            self._emit(
                JobProgress(self.ticket, push["stage"], push["stage_fraction"], push["fraction"], eta_s, where=where)
            )
        if push["last"] > self._last:
            self._moved.set()
        self.feed.stir()

    async def _run(self) -> None:
        try:
            if self._order.job:
                await self._attach()
            else:
                async with self._turn:
                    await self._submit(*await self._identify())
            await self._follow_and_watch()
            order, kept = self._order, lambda: not self._given_up
            errand = Errand(self.id, order.out, order.clip, self.ticket, order.replace, order.encoding, kept)
            await fetch(self._link, errand, lambda moved: self._moving(moved, 1.0), self._warn)
            self._emit(JobDone(self.ticket, order.out))
        except (UserError, Refused) as error:
            self._emit(JobFailed(self.ticket, error.message, error.hint))
        except (Cancelled, asyncio.CancelledError):
            self._emit(JobCancelled(self.ticket))
        except Exception as error:
            log.exception("job %s", self.ticket)
            message = f"The add-on stopped on an error of Kinora ({type(error).__name__}: {error})"
            self._emit(JobFailed(self.ticket, message, "this is a bug; see Blender's console"))

    def _moving(self, moved: Moved, fraction: float) -> None:
        """Progress of a transfer; what it waits for is told once."""
        if moved.waits_for and moved.waits_for != self._waits_for:
            self._warn(moved.waits_for)
        self._waits_for = moved.waits_for
        stage, eta_s = moved.stage, moved.eta_s
        event = JobProgress(
            self.ticket, stage, moved.fraction, fraction, eta_s, moved.done, moved.total, moved.bytes_per_s
        )
        self._emit(event)

    def _warn(self, text: str) -> None:
        self._emit(JobLog(self.ticket, "warning", text))

    async def _identify(self) -> tuple[Bundle, Bundle | None]:
        order = self._order
        await in_thread(lambda abandoned: check_output_folder(order.out, replace=order.replace))
        alone = order.settings is not None and getattr(order.settings.engine_settings, "still", False)
        clip = await in_thread(lambda abandoned: identify(order.clip, abandoned, alone=alone))
        if order.masks is None:
            return clip, None
        masks = await in_thread(lambda abandoned: identify(order.masks, abandoned))
        if masks.kind != "folder":
            raise UserError(f"{order.masks} is not a folder", "choose the folder that holds the masks")
        return clip, masks

    async def _submit(self, clip: Bundle, masks: Bundle | None) -> None:
        """Bring the job to the server: by its path where disks are shared, else by upload."""
        await self._link.up.wait()
        reply: dict[str, Any] | None = None
        if self._link.same_host:
            try:
                reply = await self._order_it(clip, masks, by_path=True)
            except Refused as refused:
                # The disk looks different from there, after all, or the server was restarted.
                if refused.code not in ("not_same_host", "no_such_file"):
                    raise
        if reply is None:
            for stage, footage in (("Sending the clip", clip), ("Sending the masks", masks)):
                if footage is not None:
                    await upload(self._link, footage, stage, lambda moved: self._moving(moved, 0.0))
            reply = await self._order_it(clip, masks, by_path=False)
        self._emit(JobQueued(self.ticket, self.id, reply["position"]))

    async def _attach(self) -> None:
        """Follow the job that the server has, from the first event of its newest attempt on."""
        order = self._order
        await in_thread(lambda abandoned: check_output_folder(order.out, replace=order.replace))
        self.id, since, ends = order.job, 0, [0]
        while True:
            reply, _ = await self._link.request("events", job=order.job, since=since)
            ends += [event["n"] for event in reply["events"] if event["kind"] in ENDED]
            since = reply["events"][-1]["n"] if reply["events"] else since
            if since >= reply["last"] or not reply["events"]:
                break
        # The end of an earlier attempt is no news; that of the newest one is.
        self._last = ends[-2] if reply["state"] in ENDED and len(ends) > 1 else ends[-1]
        self._followed = True
        self._emit(JobQueued(self.ticket, self.id, reply["position"]))

    async def _order_it(self, clip: Bundle, masks: Bundle | None, by_path: bool) -> dict[str, Any]:
        """Submit; once it is sent, giving up does not stop it, since the server may have it."""
        self._ordering = asyncio.create_task(self._send_order(clip, masks, by_path))
        return await asyncio.shield(self._ordering)

    async def _send_order(self, clip: Bundle, masks: Bundle | None, by_path: bool) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "sha256": clip.sha256,
            "kind": clip.kind,
            "name": safe_name(clip.path.name),
            "size": clip.size,
            "settings": self._order.settings.to_json(),
            "ticket": self._order_ticket,
        }
        if by_path:
            fields |= {"path": str(clip.path), "sample": await in_thread(lambda abandoned: sample(clip.path))}
        if masks is not None:
            fields |= {"masks_sha256": masks.sha256, "masks_size": masks.size}
            if by_path:
                fields |= {"masks_path": str(masks.path)}
                fields |= {"masks_sample": await in_thread(lambda abandoned: sample(masks.path))}
        reply, _ = await self._link.request("submit", **fields)
        self.id, self._last, self._followed = reply["job"], reply["since"], True
        return reply

    async def _follow_and_watch(self) -> None:
        """`_follow`, while the feed brings what the job shows."""
        feed = asyncio.create_task(self.feed.run(self.id))
        try:
            await self._follow()
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)

    async def _follow(self) -> None:
        """Pass on the job's events until it is done. Raises UserError when it fails and Cancelled when it is."""
        position = None
        while True:
            self._moved.clear()
            reply, _ = await self._link.request("events", job=self.id, since=self._last)
            for event in reply["events"]:
                self._last = event["n"]
                self._take(event)
                if event["kind"] == "done":
                    self._followed = False
                    return
            if reply["state"] == "queued" and position not in (None, reply["position"]):
                self._emit(JobQueued(self.ticket, self.id, reply["position"]))
            position = reply["position"]
            if self._last >= reply["last"]:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):  # wait_for of Python 3.11 may lose a cancellation
                        await self._moved.wait()

    def _take(self, event: dict[str, Any]) -> None:
        if event["kind"] == "log" or (event["kind"] == "queued" and event["text"]):
            self._emit(JobLog(self.ticket, event["level"], event["text"]))
        elif event["kind"] == "retry":
            self._emit(JobLog(self.ticket, "retry", event["text"]))
        elif event["kind"] == "failed":
            raise UserError(event["text"], event["hint"])
        elif event["kind"] == "cancelled":
            raise Cancelled("Cancelled")
