"""The MonST3R engine: point maps of pairs of frames by a published network, brought together into one moving scene.

It reads as the method goes: pictures -> pairs -> network -> optical flow -> alignment, window by window -> one solve
over all -> movers -> the camera refined on the plate. The parts are in `backend/monst3r/`, `backend/nets/` and
`backend/align/`; facts are in the sheet of MonST3R (Zhang et al. 2024, arXiv 2410.03825).

The world is the first placed camera's frame, scaled to a median depth of 5 units; with given cameras it is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from ..align.align import MoverOptions, align
from ..align.normal import Noise
from ..align.predictions import PairFlows, PairPredictions, Pairs
from ..align.windows import Joiner, Solution, Window, windows_of
from ..clip import Clip
from ..device import choose_device
from ..live import show_capture
from ..monst3r.between import Solved, fill_between
from ..monst3r.cost import graph_pairs, weights_needed
from ..monst3r.knowns import Given, given_cameras, known_part, looks_locked
from ..monst3r.models import FlowSource, PairSource, load_flow_source, load_pair_source
from ..monst3r.movers import plate_movers
from ..monst3r.pictures import Pictures, key_frames, pictures_of
from ..monst3r.preview import preview, preview_pairs
from ..monst3r.remembered import Remembered, remembered
from ..monst3r.report import to_capture
from ..monst3r.showing import early_frames
from ..nets.memory import free_bytes, release
from ..nets.weights import check_installed, find_installed
from ..refine import PLAN as REFINEMENT_PLAN
from ..refine import refine_camera
from ..run import Run
from ..wire import Capture, JobSettings, MonST3RSettings, UserError

SomePairs = TypeVar("SomePairs", bound=Pairs)
#: Pairs move to the device when it has so many times the room that they take.
ROOM = 3


class MonST3REngine:
    """MonST3R's network with an alignment of our own; see the module's docstring."""

    plan = (
        ("Preparing pictures", 0.03),
        ("Loading the network", 0.05),
        ("Comparing frames", 0.40),
        ("Optical flow", 0.15),
        ("Aligning", 0.18),
        ("Filling in", 0.02),
        ("Masking movers", 0.07),
        *((name, 0.10 * share) for name, share in REFINEMENT_PLAN),
    )

    def check(self, settings: JobSettings) -> None:
        """Raise one UserError for all weights that the settings need and this machine does not have."""
        check_installed(weights_needed(settings.engine_settings))

    def pair_source(
        self, pictures: np.ndarray, options: MonST3RSettings, device: torch.device, run: Run, total: int
    ) -> tuple[PairSource, tuple]:
        """What compares frames (T, H, W, 3), and the stamps of its weights. Tests put an oracle in its place."""
        return load_pair_source(pictures, options, device, run, total)

    def flow_source(self, pictures: np.ndarray, options: MonST3RSettings, run: Run) -> tuple[FlowSource | None, tuple]:
        """What finds optical flow, and the stamps of its weights."""
        return load_flow_source(pictures, options, run)

    def help(self, clip: Clip, settings: JobSettings, run: Run) -> None:
        """Ask the networks about windows of a job that runs elsewhere with the same clip."""
        options: MonST3RSettings = settings.engine_settings
        if options.mode == "preview":
            return
        device = choose_device(run)
        pictures = pictures_of(clip, settings.clip.long_side, run, square=options.model == "dust3r_224")
        keys = key_frames(clip.info.timestamps, options)
        pairs = graph_pairs(options, len(keys))
        windows = windows_of(pairs, len(keys), options.window_frames)
        network, _, flow, _ = self._sources(pictures, len(pairs), options, device, run)
        for number in run.sharing.order(len(windows)):
            edges = torch.as_tensor(keys)[windows[number].new_edges]
            for source in filter(None, (network, flow)):
                if source.kept and not source.knows(edges):
                    source.predict(edges)

    def _sources(
        self, pictures: Pictures, pairs: int, options: MonST3RSettings, device: torch.device, run: Run
    ) -> tuple[Remembered[PairPredictions], tuple, Remembered[PairFlows] | None, tuple]:
        """What answers questions about pairs and about flow, each with the stamps of its weights."""
        network, stamps = self.pair_source(pictures.rgb, options, device, run, pairs)
        flow, flow_stamps = self.flow_source(pictures.rgb, options, run)
        network, flow = remembered(network, stamps, flow, flow_stamps, pictures.rgb, pairs, options, device, run)
        return network, stamps, flow, flow_stamps

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """A capture of the clip. Raises UserError when weights are missing or the cameras cannot be placed."""
        options: MonST3RSettings = settings.engine_settings
        device = choose_device(run)
        with run.stage("Preparing pictures"):
            pictures = pictures_of(clip, settings.clip.long_side, run, square=options.model == "dust3r_224")
            given = given_cameras(clip, settings, pictures)
        times = np.array(clip.info.timestamps)
        if options.mode == "preview":
            return self._preview(clip, settings, pictures, given, device, run)

        keys = key_frames(clip.info.timestamps, options)
        pairs = graph_pairs(options, len(keys))
        windows = windows_of(pairs, len(keys), options.window_frames)
        with run.stage("Loading the network", 0.5):
            network, stamps, flow, flow_stamps = self._sources(pictures, len(pairs), options, device, run)
            mask_stamps = () if options.refine_masks == "none" else (find_installed(options.refine_masks).stamp(),)
        movers = None if clip.known_masks is None else pictures.to_grid(clip.known_masks)

        def look(frames: np.ndarray, *known: torch.Tensor) -> None:
            run.show(partial(early_frames, clip.info, pictures, given, frames, *known))

        def solve() -> tuple[Solution, bool]:
            with run.stage("Loading the network", 0.5):
                asked = [torch.as_tensor(keys)[window.new_edges] for window in windows]
                for source in filter(None, (network, flow)):
                    source.prepare(asked)
            joined, locked = self._solve(
                windows, keys, network, flow, given, movers, pictures, options, device, run, look
            )
            network.let_go()
            release(device)
            with run.stage("Aligning", 0.1):
                return joined.finish(run.progress), locked

        made_from = {
            "sources": [source and source.made_from for source in (network, flow)],
            "pairs": np.asarray(pairs),
            "keys": keys,
            "given": given,
            "movers": movers,
            "options": replace(options, refine_masks="none", refine_camera=False, metric_scale="none"),
        }
        if len(windows) > 1 and network.kept:
            run.ask_for_help(len(keys), "Alignment", made_from)
        solution, locked = run.remember("Alignment", made_from, solve, (Solution, Noise))
        solved = Solved(
            world_from_camera=np.linalg.inv(solution.camera_from_world),
            focal_px=solution.focal_px,
            depth=solution.depth,
            confidence=solution.confidence,
            scores=solution.scores,
            interpolated=np.zeros(len(keys), bool),
            wanted=np.ones(len(keys), bool),
        )
        with run.stage("Filling in"):
            solved = fill_between(solved, keys, times, flow, run, given.centre)
        with run.stage("Masking movers"):
            masks, plates = plate_movers(solved.scores, movers, clip, pictures, options, flow is not None, run)
        all_stamps = stamps + flow_stamps + mask_stamps
        capture = to_capture(clip, settings, pictures, solved, masks, plates, given, all_stamps, locked, run)
        show_capture(run, capture)
        if options.refine_camera and given.world_from_camera is None:
            capture = refine_camera(capture, clip, run, focal_free=given.focal_px is None)
        return replace(capture, timings=tuple(run.timings))

    def _solve(
        self,
        windows: list[Window],
        keys: np.ndarray,
        network: PairSource,
        flow: FlowSource | None,
        given: Given,
        movers: np.ndarray | None,
        pictures: Pictures,
        options: MonST3RSettings,
        device: torch.device,
        run: Run,
        look: Callable[..., None],
    ) -> tuple[Joiner, bool]:
        """The key frames solved window by window, and whether the camera was taken to stand still.

        `look` is shown the first window's frames and what `align` knows of them early.
        """
        knowns = given.knowns(keys, options)
        joiner = Joiner(len(keys), pictures.size, knowns, run.work_dir)
        part = 1 / len(windows)
        predictions: PairPredictions | None = None
        flows: PairFlows | None = None
        for window in windows:
            new = torch.as_tensor(keys)[window.new_edges]
            with run.stage("Comparing frames", part):
                found = replace(network.predict(new), edges=window.new_edges)
                predictions = found if not window.kept else predictions.rows(window.kept_rows).joined(found)
            with run.stage("Optical flow", part):
                if flow is not None:
                    motion = replace(flow.predict(new), edges=window.new_edges)
                    flows = motion if not window.kept else flows.rows(window.kept_rows).joined(motion)
            may_stand = options.camera == "auto" and len(windows) == 1 and given.world_from_camera is None
            if may_stand and flows is not None:
                knowns = replace(knowns, locked=looks_locked(flows))
            with run.stage("Aligning", 0.9 * part):
                frames = slice(window.begin, window.end)
                aligned = align(
                    at_hand(replace(predictions, edges=predictions.edges - window.begin), device),
                    None if flows is None else at_hand(replace(flows, edges=flows.edges - window.begin), device),
                    window.end - window.begin,
                    knowns=known_part(knowns, frames),
                    movers=MoverOptions(
                        None if movers is None else torch.from_numpy(movers[keys[frames]]),
                        options.find_movers and not (movers is not None and options.user_masks == "replace"),
                        options.mover_threshold,
                    ),
                    clean=options.clean_points,
                    device=device,
                    progress=run.progress,
                    look=partial(look, keys[frames]) if window.begin == 0 else None,
                )
                joiner.add(window, aligned)
        return joiner, knowns.locked

    def _preview(
        self, clip: Clip, settings: JobSettings, pictures: Pictures, given: Given, device: torch.device, run: Run
    ) -> Capture:
        """The rough capture of the preview mode; facts sheet, section 8.5, --real_time."""
        options: MonST3RSettings = settings.engine_settings
        if given.world_from_camera is not None:
            raise UserError("The preview does not take known camera poses", "use the full mode, or leave them out")
        pairs = preview_pairs(clip.frame_count)
        with run.stage("Loading the network"):
            network, stamps = self.pair_source(pictures.rgb, options, device, run, len(pairs))
            network, _ = remembered(network, stamps, None, (), pictures.rgb, len(pairs), options, device, run)
            network.prepare([pairs])
        with run.stage("Comparing frames"):
            predictions = network.predict(pairs)
        with run.stage("Aligning"):
            focal_px = None if given.focal_px is None else float(given.focal_px.mean())
            solved = preview(predictions, focal_px, run, given.centre)
        movers = None if clip.known_masks is None else pictures.to_grid(clip.known_masks)
        with run.stage("Masking movers"):
            masks, plates = plate_movers(solved.scores, movers, clip, pictures, options, False, run)
        capture = to_capture(clip, settings, pictures, solved, masks, plates, given, stamps, False, run)
        return replace(capture, timings=tuple(run.timings))


def at_hand(pairs: SomePairs, device: torch.device) -> SomePairs:
    """The pairs in the device's own memory when that has plenty of room, since each is read several times."""
    if device.type == "cpu" or ROOM * pairs.nbytes > free_bytes(device):
        return pairs
    return pairs.to(device)
