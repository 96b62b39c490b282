"""The MASt3R engine: a set that stands still, in metres, from matches and point maps of pairs of images.

It reads as the method goes: pictures -> pairs -> network, of whose answers only matches and sums are kept -> cameras
and anchors of depth -> every pixel -> frames between the solved ones -> the camera refined on the plate. The parts are
in `backend/mast3r/`, `backend/nets/`, `backend/matching/` and `backend/sparse/`; facts are in the sheet of MASt3R
(Leroy et al. 2024, arXiv 2406.09756) and MASt3R-SfM (Duisterhof et al. 2024, arXiv 2409.19152).

The world is the frame of one of the cameras, in metres as the network was trained; with given cameras it is theirs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ..clip import Clip
from ..device import choose_device
from ..live import show_capture
from ..mast3r.choices import is_sequence, shares_lens, solved_frames, with_something_still
from ..mast3r.compared import Compared, compare, stands_still
from ..mast3r.cost import weights_needed
from ..mast3r.models import LaterViews, load_view_source
from ..mast3r.pairs import choose_pairs
from ..mast3r.report import to_capture
from ..mast3r.showing import aligned_frames
from ..mast3r.solving import every_pixel, lens_disagreement, solve
from ..mast3r.spreading import over_all_frames
from ..matching.fast import match_views
from ..monst3r.knowns import given_cameras
from ..monst3r.models import precision_of
from ..monst3r.pictures import pictures_of
from ..nets.memory import release
from ..nets.weights import check_installed
from ..refine import PLAN as REFINEMENT_PLAN
from ..refine import refine_camera
from ..run import Run
from ..wire import Capture, JobSettings, MASt3RSettings


class MASt3REngine:
    """MASt3R's network with a matching and an alignment of our own; see the module's docstring."""

    plan = (
        ("Preparing pictures", 0.03),
        ("Loading the network", 0.05),
        ("Choosing pairs", 0.02),
        ("Comparing images", 0.50),
        ("Aligning", 0.22),
        ("Placing every pixel", 0.06),
        ("Filling in", 0.02),
        *((name, 0.10 * share) for name, share in REFINEMENT_PLAN),
    )

    def check(self, settings: JobSettings) -> None:
        """Raise UserError for weights that the settings need and this machine does not have."""
        check_installed(weights_needed(settings.engine_settings))

    def view_source(
        self, pictures: np.ndarray, options: MASt3RSettings, device: torch.device, run: Run
    ) -> tuple[LaterViews, tuple]:
        """What compares frames (T, H, W, 3), and the stamps of its weights. Tests put an oracle in its place."""
        return load_view_source(pictures, options, device, run)

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """A capture of the clip. Raises UserError when weights are missing or hardly an image can be placed."""
        options: MASt3RSettings = settings.engine_settings
        device = choose_device(run)
        with run.stage("Preparing pictures"):
            pictures = pictures_of(clip, settings.clip.long_side, run)
            given = given_cameras(clip, settings, pictures)
            masks = None if clip.known_masks is None else pictures.to_grid(clip.known_masks)
        sequence = is_sequence(options, clip.info.kind)
        times = np.array(clip.info.timestamps)
        keys = with_something_still(solved_frames(options, clip.info.timestamps, sequence), masks)

        with run.stage("Loading the network", 0.5):
            source, stamps = self.view_source(pictures.rgb, options, device, run)
        with run.stage("Choosing pairs"):
            asked = {
                "frames": run.content(pictures.rgb),
                "keys": keys,
                "network": stamps,
                "precision": str(precision_of(options, device)),
                "device": device.type,
            }
            pairs = choose_pairs(source, keys, sequence, options, asked, run)
        key_masks = None if masks is None else masks[keys]

        def ask() -> Compared:
            with run.stage("Loading the network", 0.5):
                source.open()
            with run.stage("Comparing images"):
                found = compare(source, match_views, pairs, keys, key_masks, pictures.size, run, given.centre)
            source.let_go()
            release(device)
            return found

        made_from = {
            **asked,
            "pairs": np.asarray(pairs),
            "masks": key_masks,
            "centre": given.centre,
        }
        compared = run.remember("Compared images", made_from, ask, (Compared,))
        locked = sequence and given.world_from_camera is None and stands_still(compared)
        with run.stage("Aligning"):
            solution = solve(compared, keys, given, shares_lens(options, sequence), locked, options, run)
        with run.stage("Placing every pixel"):
            aligned = every_pixel(compared, solution, options.clean_points, run)
        run.show(partial(aligned_frames, clip.info, pictures, keys, aligned, options.min_confidence))
        with run.stage("Filling in"):
            placed = over_all_frames(aligned, keys, times, pictures.rgb, sequence, run)
        details = {
            "pairs": len(pairs),
            "matches": len(compared.xy_1),
            "lens_disagreement": lens_disagreement(compared.focal_px, solution.focal_px),
            "match_error_px": float(np.nanmedian(solution.residual_px)),
            "size_spread": float(solution.size_spread),  # how little the frames agree on the metre, as a share of it
        }
        capture = to_capture(clip, settings, pictures, placed, masks, given, stamps, sequence, locked, details, run)
        show_capture(run, capture)
        if sequence and options.refine_camera and given.world_from_camera is None:
            capture = refine_camera(capture, clip, run, focal_free=given.focal_px is None)
        return replace(capture, timings=tuple(run.timings))
