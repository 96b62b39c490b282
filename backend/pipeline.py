"""The pipeline: footage -> clip -> engine -> capture folder; what the server's worker and the command line both run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .classical.flow import Flows, next_flows
from .clip import Clip, open_clip
from .engines import load_engine
from .export import CAPTURE_FILES
from .known_cameras import read_known_cameras
from .metric.cost import STAGE as SCALE_STAGE
from .metric.cost import wants_scale
from .metric.job import check_scale, with_scale
from .movers import number_movers
from .room import reconstruct_in_room
from .run import Run
from .scene_flow import velocities
from .wire import Capture, JobSettings, engine_info, read_capture, write_capture
from .wire import capture as capture_format

Writer = Callable[[Capture, Path], dict[str, Any] | None]

#: Shares of the time, for the progress bar; the engine's plan fills the rest.
DECODE_SHARE = 0.08
MOVERS_SHARE = 0.06
EXPORT_SHARE = 0.12
SCALE_SHARE = 0.1


def reconstruct(
    source: Path,
    out: Path,
    settings: JobSettings,
    run: Run,
    *,
    masks: Path | None = None,
    poses: Path | None = None,
    intrinsics: Path | None = None,
    reference: Path | None = None,
    replace_earlier: bool = False,
) -> Path:
    """Reconstruct `source` (a video, an image folder or one image of a sequence) into the capture folder `out`.

    `masks` is a folder of known motion masks (white moves), one for each frame used; `poses` and `intrinsics` are files
    of known cameras (known_cameras.py); `reference` is the capture that a task such as localising works with. Returns
    the folder. Raises UserError for what the user can fix and Cancelled when asked to stop; neither leaves a file.
    """
    capture_format.check_output_folder(out, replace=replace_earlier)
    engine = load_engine(settings.engine)
    engine.check(settings)
    check_scale(settings)
    engine_total = sum(share for _, share in engine.plan)
    scale = (1 - DECODE_SHARE - MOVERS_SHARE - EXPORT_SHARE) / engine_total
    run.plan = [
        ("Reading the clip", DECODE_SHARE),
        *((name, share * scale) for name, share in engine.plan),
        ("Following movers", MOVERS_SHARE),
        *([(SCALE_STAGE, SCALE_SHARE)] if wants_scale(settings) else []),
        ("Writing the capture", EXPORT_SHARE),
    ]
    # Windows does not delete files that are still mapped; whoever gave `work_dir` deletes it after the process.
    with tempfile.TemporaryDirectory(prefix="kinora-", dir=run.work_dir, ignore_cleanup_errors=True) as scratch:
        run.work_dir = Path(scratch)
        with run.stage("Reading the clip"):
            clip = opened(source, settings, run, masks)
            clip = replace(
                clip,
                known_cameras=read_known_cameras(clip.info, poses, intrinsics),
                reference=None if reference is None else read_capture(reference),
            )
        capture = reconstruct_in_room(engine, clip, settings, run)
        with run.stage("Following movers"):
            capture = with_movers(capture, run)
        if wants_scale(settings):
            with run.stage(SCALE_STAGE):
                capture = with_scale(capture, run)
        with run.stage("Writing the capture"):
            capture = replace(capture, timings=tuple(run.timings))
            return write_capture(capture, out, steps(CAPTURE_FILES, run), replace=replace_earlier)


def help_job(source: Path, settings: JobSettings, run: Run, *, masks: Path | None = None) -> None:
    """Make pieces of the stages of a job that reconstructs the same footage elsewhere (sharing.py).

    Raises as `reconstruct` does.
    """
    engine = load_engine(settings.engine)
    engine.check(settings)
    with tempfile.TemporaryDirectory(prefix="kinora-", dir=run.work_dir, ignore_cleanup_errors=True) as scratch:
        run.work_dir = Path(scratch)
        with run.stage("Reading the clip"), run.decoding():
            clip = opened(source, settings, run, masks)
        with run.stage("Helping"):
            engine.help(clip, settings, run)


def opened(source: Path, settings: JobSettings, run: Run, masks: Path | None) -> Clip:
    """The clip of a job. Raises as `open_clip` does."""
    least, still = engine_info(settings.engine).least_frames, getattr(settings.engine_settings, "still", False)
    return open_clip(source, settings.clip, run, masks=masks, lens=settings.lens, least_frames=least, still=still)


def with_movers(capture: Capture, run: Run) -> Capture:
    """The capture with its movers numbered and their velocities, whatever the engine; as it is where nothing moves."""
    if not capture.dynamic.any():
        return capture
    made_from = {"frames": capture.rgb}
    flows = run.remember("Flow to the next frame", made_from, lambda: next_flows(capture.rgb, run), (Flows,))
    capture = replace(capture, objects=number_movers(capture.dynamic, flows, run))
    return replace(capture, velocity=velocities(capture, flows, run))


def steps(writers: Sequence[Writer], run: Run) -> list[Writer]:
    """The same writers, each reporting progress and checking for cancellation before it starts."""

    def wrap(index: int, writer: Writer) -> Writer:
        def write(capture: Capture, folder: Path) -> dict[str, Any] | None:
            run.progress(index / len(writers))
            return writer(capture, folder)

        return write

    return [wrap(i, w) for i, w in enumerate(writers)]
