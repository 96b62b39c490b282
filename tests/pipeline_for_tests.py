"""A pipeline for tests of the server: what it does stands in the first line of the "clip", a text file.

It runs in the real worker process and writes real captures of a small synthetic world.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from backend.live import depth_frame
from backend.run import Run
from backend.wire import ClipInfo, JobSettings, LiveFrame, PlateMap, UserError, read_capture, write_capture

from .localised import localised
from .worlds import World, as_capture, room

log = logging.getLogger("backend.pipeline_for_tests")


def reconstruct(
    source: Path,
    out: Path,
    settings: JobSettings,
    run: Run,
    *,
    masks: Path | None = None,
    reference: Path | None = None,
    replace_earlier: bool = False,
) -> Path:
    """A capture of the synthetic room, or the trouble that the clip asks for; a plate localised in `reference`."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    words = files[0].read_bytes().partition(b"\n")[0].decode().split()
    run.plan = [("Looking", 0.5), ("Writing the capture", 0.5)]
    with run.stage("Looking"):
        log.info("looking at %d files, %d masks", len(files), len(list(masks.iterdir())) if masks else 0)
        getattr(_Deeds, words[0])(run, out, *words[1:])
        known = read_capture(reference) if reference else None
    with run.stage("Writing the capture"):
        capture = as_capture(room(frames=2, width=32, height=24))
        if known is not None:
            log.info("localised in %s", known.clip.source)
            capture = localised(reference=known.clip.source)
        capture = replace(capture, clip=replace(capture.clip, source=str(source)), settings=settings.to_json())
        return write_capture(capture, out, [_ballast], replace=replace_earlier)


def shown_world(frames: int) -> tuple[World, ClipInfo]:
    """What the deed `show` shows: a world of 48 x 32 points a frame, and its clip, every third frame of it."""
    world = room(frames, 48, 32)
    return world, ClipInfo(
        source="room.mp4",
        plate_size=world.size,
        fps=Fraction(24),
        frame_indices=tuple(range(10, 10 + 3 * frames, 3)),
        timestamps=tuple(i / 24 for i in range(10, 10 + 3 * frames, 3)),
    )


def live_frame(synthetic: World, info: ClipInfo, frame: int, world: int = 0) -> LiveFrame:
    """What an engine would show of a frame of a world."""
    return depth_frame(
        info,
        frame,
        rgb=synthetic.rgb[frame],
        grid=PlateMap(1.0, 1.0),
        depth=synthetic.depth[frame],
        world_from_camera=synthetic.world_from_camera[frame],
        intrinsics=synthetic.intrinsics[frame],
        dynamic=synthetic.dynamic[frame],
        world=world,
    )


def _ballast(capture, folder: Path) -> None:
    """A file of more than two chunks, so that fetching has something to do."""
    np.save(folder / "ballast.npy", np.random.default_rng(0).integers(0, 255, 2_500_000, dtype=np.uint8))


class _Deeds:
    """What a clip can ask for."""

    @staticmethod
    def work(run: Run, out: Path) -> None:
        for _ in run.steps(3):
            pass

    @staticmethod
    def slow(run: Run, out: Path) -> None:
        """Works for a minute, looking for a cancellation at each step; leaves files in every place it may."""
        (run.work_dir / "store.npy").write_bytes(b"x" * 1000)
        for _ in run.steps(600):
            time.sleep(0.1)

    @staticmethod
    def deaf(run: Run, out: Path) -> None:
        """Works for a minute inside what cannot be interrupted, half a capture written beside its final place."""
        staging = out.with_name(f".{out.name}.partial-{os.getpid()}")
        staging.mkdir(parents=True)
        (staging / "depth.npy").write_bytes(b"x" * 1000)
        (run.work_dir / "store.npy").write_bytes(b"x" * 1000)
        ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock: no thread of the worker runs either

    @staticmethod
    def show(run: Run, out: Path, frames: str, seconds: str, world: str = "0") -> None:
        """Shows the frames of `shown_world` one by one with some time between, then works until it is cancelled."""
        synthetic, info = shown_world(int(frames))
        for frame in run.steps(int(frames)):
            run.show(lambda frame=frame: [live_frame(synthetic, info, frame, int(world))])
            time.sleep(float(seconds))

    @staticmethod
    def show_on(run: Run, out: Path, frames: str, seconds: str) -> None:
        """The same, and then works for a minute."""
        _Deeds.show(run, out, frames, seconds)
        _Deeds.slow(run, out)

    @staticmethod
    def show_and_fail(run: Run, out: Path, frames: str, seconds: str) -> None:
        """The same, and then there is no result."""
        _Deeds.show(run, out, frames, seconds)
        _Deeds.refuse(run, out)

    @staticmethod
    def remember(run: Run, out: Path) -> None:
        """Does something costly, unless an earlier job did."""
        run.remember("Looking", {"at": "the clip"}, lambda: log.warning("looking for the first time"))

    @staticmethod
    def refuse(run: Run, out: Path) -> None:
        raise UserError("The camera never moves", "choose another shot")

    @staticmethod
    def bug(run: Run, out: Path) -> None:
        raise ZeroDivisionError("a mistake of ours")

    @staticmethod
    def die(run: Run, out: Path) -> None:
        (run.work_dir / "store.npy").write_bytes(b"x" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def die_once(run: Run, out: Path, marker: str) -> None:
        """Dies unless the file `marker` is there, which is there from then on."""
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def segfault(run: Run, out: Path) -> None:
        ctypes.string_at(0)

    @staticmethod
    def stop(run: Run, out: Path) -> None:
        """Is stopped from outside, as by a debugger or a mistaken command."""
        os.kill(os.getpid(), signal.SIGSTOP)

    @staticmethod
    def grind(run: Run, out: Path, seconds: str) -> None:
        """One call in C that keeps the interpreter's lock and the processor busy: no heartbeat meanwhile."""
        began, count = time.process_time(), 5_000_000
        sum(range(count))
        sum(range(int(count * float(seconds) / (time.process_time() - began))))

    @staticmethod
    def family(run: Run, out: Path) -> None:
        """Starts a child in a session of its own, and one that shares all pipes; their ids go to the log as events."""
        apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
        forked = os.fork()
        if not forked:
            os.setsid()
            time.sleep(600)
            os._exit(0)
        log.info("children %d %d", apart.pid, forked)
        time.sleep(600)

    @staticmethod
    def orphans(run: Run, out: Path) -> None:
        """Leaves a child behind that holds all its pipes, and is killed."""
        if not os.fork():
            os.setsid()
            time.sleep(600)
        _Deeds.die(run, out)

    @staticmethod
    def no_memory(run: Run, out: Path, whose: str) -> None:
        """What the interpreter, torch and CUDA raise when memory runs out, and CUDA when it fails otherwise."""
        torch_s = type("OutOfMemoryError", (RuntimeError,), {})
        raise {
            "python": MemoryError(),
            "torch": torch_s("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "cuda": RuntimeError("CUDA error: out of memory"),
            "card": RuntimeError("CUDA error: an illegal memory access was encountered"),
        }[whose]

    @staticmethod
    def retry(run: Run, out: Path) -> None:
        """Finds that something does not fit, and goes on with less."""
        run.retry("Out of memory with 8 pairs at once; going on with 4")

    @staticmethod
    def look_around(run: Run, out: Path) -> None:
        """Says which device it was told to use, and which cards it sees."""
        log.info("device %s of '%s'", run.device, os.environ.get("CUDA_VISIBLE_DEVICES", "all"))

    @staticmethod
    def exit(run: Run, out: Path) -> None:
        os._exit(7)

    @staticmethod
    def shout(run: Run, out: Path) -> None:
        """Prints on standard output as libraries do, and writes to file descriptor 1 as C libraries do."""
        print("{not json")
        os.write(1, b"more noise\n")

    @staticmethod
    def babble(run: Run, out: Path, mebibytes: str) -> None:
        """Fills the job's log, as a library does that warns of every pixel."""
        for _ in range(int(mebibytes)):
            os.write(2, b"a line that nobody reads, over and over again, 64 bytes in all.\n" * 2**14)
            time.sleep(0.1)

    @staticmethod
    def small_disk(run: Run, out: Path) -> None:
        """Files may grow to 100 kB only: what a full disk looks like from here on."""
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
