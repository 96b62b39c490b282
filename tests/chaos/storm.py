"""The storm: jobs for a server while kill -9 strikes worker, server and clients at random times; what came of it."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from backend.server.jobs import JobStore
from backend.server.keys import load_keys
from backend.wire import paths

from . import pipeline
from .processes import GROWTH_MOST, ClientProcess, ServerProcess, left_behind, marked, new_mark

CLIENTS = 3  # the last of them as if on another machine
BACK_MOST_S = 5.0
BUSY_MOST = 5  # on a machine so busy that this is less: so many times what the very first start took
KINDS = ("worker", "server", "client")


@dataclass
class Report:
    """What was done and what came of it; `misses` are the targets that were not met, in words."""

    seed: int
    jobs: int
    slots: int = 1
    kills: Counter[str] = field(default_factory=Counter)
    done: int = 0
    wrong: list[str] = field(default_factory=list)  # captures that are not byte for byte what they should be
    lost: list[str] = field(default_factory=list)  # jobs without a capture at the end
    failed: list[str] = field(default_factory=list)  # ends of jobs that the client had to send again
    unjust: list[str] = field(default_factory=list)  # of these, jobs whose worker was not killed twice
    orphans: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)  # half-made things in the server's and the clients' folders
    begun: int = 0  # stages that began to compute
    redone: int = 0  # stages that computed more than once
    forgotten: int = 0  # stages that computed again although their result had been kept
    start_s: float = 0.0  # of the first server, with nothing to do yet
    back_s: list[float] = field(default_factory=list)  # from each restart of the server to its first answer
    rss_before: int = 0  # bytes of a fresh server, and of the last one at the end
    rss_after: int = 0
    took_s: float = 0.0

    @property
    def misses(self) -> list[str]:
        checks = {
            f"{len(self.lost)} jobs lost: {self.lost[:3]}": self.lost,
            f"{len(self.wrong)} captures with wrong bytes: {self.wrong[:3]}": self.wrong,
            f"{len(self.unjust)} jobs failed without two kills of their worker: {self.unjust[:3]}": self.unjust,
            f"{len(self.orphans)} processes left behind: {self.orphans[:3]}": self.orphans,
            f"{len(self.left_over)} things half made: {self.left_over[:3]}": self.left_over,
            f"{self.forgotten} finished stages computed again": self.forgotten,
            f"{self.redone} stages redone by {self.kills.total()} kills": self.redone > self.cut_off_most,
            f"the server was back after {max(self.back_s, default=0):.1f} s": max(self.back_s, default=0)
            > max(BACK_MOST_S, BUSY_MOST * self.start_s),
            f"the server grew by {self.growth >> 20} MiB": self.growth > GROWTH_MOST,
        }
        return [words for words, missed in checks.items() if missed]

    @property
    def cut_off_most(self) -> int:
        """Stages that can have been under way at the kills: one of the worker's, one of each slot's of the server."""
        return self.kills["worker"] + self.slots * self.kills["server"]

    @property
    def growth(self) -> int:
        return self.rss_after - self.rss_before

    def __str__(self) -> str:
        back = sorted(self.back_s) or [0.0]
        middle, fresh, end = back[len(back) // 2], self.rss_before / 2**20, self.rss_after / 2**20
        kills = ", ".join(f"{self.kills[kind]} {kind}" for kind in KINDS)
        rows = {
            "seed": self.seed,
            "kill -9": f"{self.kills.total()} ({kills})",
            "jobs done": f"{self.done} of {self.jobs} in {self.took_s:.0f} s",
            "wrong bytes": len(self.wrong),
            "lost jobs": len(self.lost),
            "jobs sent again": f"{len(self.failed)}; without two kills of their worker: {len(self.unjust)}",
            "orphan processes": len(self.orphans),
            "half-made left-overs": len(self.left_over),
            "stages redone": f"{self.redone} of {self.begun}; finished ones among them: {self.forgotten}",
            "server's first start": f"{self.start_s:.2f} s",
            "server back after": f"{middle:.2f} s (median), {back[-1]:.2f} s (longest), {len(self.back_s)} times",
            "RSS of the server": f"{fresh:.0f} MiB fresh, {end:.0f} MiB at the end",
        }
        lines = [f"{name:<22}{value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"MISSED: {words}" for words in self.misses)])


class Storm:
    """One run in `folder`, which must be empty: `jobs` jobs, and a kill of one of `kinds` every `gap_s` seconds.

    The server runs `slots` jobs at once.
    """

    def __init__(
        self,
        folder: Path,
        jobs: int,
        seed: int,
        *,
        gap_s: float = 0.8,
        limit_s: float = 3600.0,
        kinds: Sequence[str] = KINDS,
        slots: int = 1,
    ) -> None:
        self.report = Report(seed, jobs, slots)
        self._kinds = kinds
        self._drawn: list[str] = []
        self._random = random.Random(seed)
        self._folder, self._gap_s, self._limit_s = folder, gap_s, limit_s
        self._mark = new_mark()
        self._ledger = folder / "ledger.txt"
        self._killed: Counter[str] = Counter()  # job -> how often its worker was killed; '' when it was not known
        self._orders = [
            {"clip": str(pipeline.write_clip(folder / "clips" / f"{n:04d}.mp4", n, self._ledger)), "out": str(out)}
            for n in range(jobs)
            for out in [folder / f"client{n % CLIENTS}" / f"out{n:04d}"]
        ]
        self._awaited = [Path(order["out"]) for order in self._orders]
        devices = ",".join(["cpu", *(f"cuda:{n}" for n in range(slots - 1))])  # names of slots: nothing computes there
        self._server = ServerProcess(folder / "home", self._mark, arguments=("--devices", devices))
        self._clients: list[ClientProcess] = []
        self._probes: list[threading.Thread] = []

    def run(self) -> Report:
        """Let it blow until all jobs are done or the time is over."""
        report, began = self.report, time.monotonic()
        try:
            self._server.start()
            report.start_s = self._server.answers()
            # A server that is killed while it comes up does nothing: on a slow machine the blows come slower.
            self._gap_s = max(self._gap_s, report.start_s)
            report.rss_before = self._server.rss()
            self._begin_clients()
            strike = began + self._gap_s
            while not self._over() and time.monotonic() - began < self._limit_s:
                if time.monotonic() > strike:
                    self._strike(self._next_kind())
                    strike = time.monotonic() + self._random.expovariate(1 / self._gap_s)
                time.sleep(0.05)
                self._restart_clients()
            for probe in self._probes:
                probe.join()
            report.took_s = time.monotonic() - began
            report.rss_after = self._server.rss()
            self._server.stop()
            for client in self._clients:
                client.process.stdin.close()
            report.orphans = left_behind(self._mark)
        finally:
            for process in marked(self._mark):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._look_back()
        return report

    def _begin_clients(self) -> None:
        for i in range(CLIENTS):
            folder = self._folder / f"client{i}"
            it = ClientProcess(
                paths.connection_file(self._server.home),
                self._orders[i::CLIENTS],
                folder,
                self._mark,
                far=i == CLIENTS - 1,
            )
            it.start()
            self._clients.append(it)

    def _over(self) -> bool:
        self._awaited = [out for out in self._awaited if not (out / "capture.json").is_file()]
        return not self._awaited

    def _next_kind(self) -> str:
        """In any order, but none is forgotten for long."""
        self._drawn = self._drawn or self._random.sample(self._kinds, len(self._kinds))
        return self._drawn.pop()

    def _restart_clients(self) -> None:
        """A client that ended by itself has given up, or could not read the connection of a server just killed."""
        for client in self._clients:
            if client.process.poll() not in (None, 0):
                client.start()

    def _strike(self, kind: str) -> None:
        if kind == "server":
            self._server.kill()
            self._server.start()
            self._probes.append(threading.Thread(target=self._measure, args=(self._server.process,), daemon=True))
            self._probes[-1].start()
        elif kind == "client":
            alive = [client for client in self._clients if client.process.poll() is None]
            if not alive:
                return
            client = self._random.choice(alive)
            client.kill()
            client.start()
        else:
            workers = self._server.workers()
            if not workers:
                return
            time.sleep(self._random.uniform(0, 0.5))  # anywhere in its life, not only where it is met
            worker = self._random.choice(workers)
            job = _job_of(worker.pid)
            try:
                worker.kill()
            except psutil.NoSuchProcess:
                return
            self._killed[job] += 1
        self.report.kills[kind] += 1

    def _measure(self, process: object) -> None:
        """How long the server takes to answer, unless it is killed again before."""
        with contextlib.suppress(AssertionError):
            took_s = self._server.answers()
            if self._server.process is process:
                self.report.back_s.append(took_s)

    def _look_back(self) -> None:
        """Compare every capture with one that was made in peace, and look for what was lost or left."""
        report, home = self.report, self._server.home
        for number, order in enumerate(self._orders):
            out = Path(order["out"])
            if not (out / "capture.json").is_file():
                report.lost.append(out.name)
                continue
            report.done += 1
            wrong = pipeline.differences(out, self._folder / "truth", number, order["clip"])
            if wrong:
                report.wrong.append(f"{out.name}: {wrong}")
        self._read_ledger()
        ended = [said for client in self._clients for said in client.said if said["t"] == "failed"]
        report.failed = [f"{said['job']}: {said['why']}" for said in ended]
        report.unjust = [f"{said['job']}: {said['why']}" for said in ended if self._killed[said["job"]] < 2]
        store = JobStore(paths.jobs_database(home))
        rows, _ = store.of_owner(load_keys(home).client_public, 0, most=10**6)
        store.close()
        states = Counter(row.state for row in rows)
        if states != {"done": report.jobs}:
            report.lost.append(f"the server's book: {dict(states)}")
        report.left_over = half_made(home) + [p.name for p in self._folder.glob("client*/.*")]

    def _read_ledger(self) -> None:
        """Count the stages that were begun, redone, and redone although they had been kept."""
        kept: set[tuple[str, str]] = set()
        begun: Counter[tuple[str, str]] = Counter()
        for line in self._ledger.read_text().splitlines():
            _, number, what, stage = line.split()
            if what == "kept":
                kept.add((number, stage))
            else:
                begun[number, stage] += 1
                self.report.forgotten += (number, stage) in kept
        self.report.begun = begun.total()
        self.report.redone = begun.total() - len(begun)


def half_made(home: Path) -> list[str]:
    """What is in the folders of jobs, uploads and keys and should not outlive the work on it."""
    jobs = [p for p in (home / "jobs").glob("*/*") if p.name not in ("log.txt", "capture")]
    parts = [*(home / "uploads").rglob("*.part"), *(home / "jobs").glob("*/.*"), *home.glob(".*.json.*")]
    return [p.relative_to(home).as_posix() for p in {*jobs, *parts}]


def _job_of(pid: int) -> str:
    """Whose worker a process is: its standard error is the job's log. '' when it has just ended."""
    try:
        return Path(os.readlink(f"/proc/{pid}/fd/2")).parent.name
    except OSError:
        return ""
