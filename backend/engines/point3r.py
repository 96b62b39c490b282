"""The Point3R engine: a clip passed once through a network that remembers places, frame by frame; long clips, and soon.

It reads as the method goes: pictures -> network, frame by frame, each shown at once -> the path of the camera ->
movers -> the camera refined on the plate. The parts are in `backend/point3r/`, `backend/streaming/` and
`backend/nets/`; facts are in the sheet of Point3R (Wu et al. 2025, arXiv 2507.02863).

The world is about the first frame's camera, in metres as the network was trained; with given cameras it is theirs.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..clip import Clip
from ..device import choose_device
from ..live import show_capture
from ..monst3r.knowns import given_cameras
from ..monst3r.models import load_flow_source, precision_of
from ..monst3r.movers import plate_movers
from ..monst3r.pictures import pictures_of
from ..nets.memory import release
from ..nets.weights import check_installed, find_installed
from ..point3r.cost import weights_needed
from ..point3r.models import LaterStream, fusion_of, load_stream
from ..point3r.moving import motion_of, stands_still
from ..point3r.passing import all_known, pass_through, pieces_of
from ..point3r.path import PassedFrames, path_of
from ..point3r.placing import check_fitting, lens_of, place, pose_options
from ..point3r.report import to_capture
from ..point3r.showing import Window
from ..refine import PLAN as REFINEMENT_PLAN
from ..refine import refine_camera
from ..run import Run
from ..streaming.focal import centre_of
from ..wire import Capture, JobSettings, Point3RSettings


class Point3REngine:
    """Point3R's network with poses, memory and masks of our own; see the module's docstring."""

    plan = (
        ("Preparing pictures", 0.04),
        ("Loading the network", 0.04),
        ("Passing the clip through", 0.58),
        ("Refining the path", 0.14),
        ("Masking movers", 0.10),
        *((name, 0.10 * share) for name, share in REFINEMENT_PLAN),
    )

    def check(self, settings: JobSettings) -> None:
        """Raise one UserError for all weights that the settings need and this machine does not have."""
        check_installed(weights_needed(settings.engine_settings))

    def stream_source(self, options: Point3RSettings, device: torch.device) -> tuple[LaterStream, tuple]:
        """What frames are pushed through, and the stamps of its weights. Tests put an oracle in its place."""
        return load_stream(options, device)

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """A capture of the clip. Raises UserError when weights are missing or the cameras cannot be placed."""
        options: Point3RSettings = settings.engine_settings
        device = choose_device(run)
        with run.stage("Preparing pictures"):
            pictures = pictures_of(clip, settings.clip.long_side, run)
            given = given_cameras(clip, settings, pictures)
            masks = None if clip.known_masks is None else pictures.to_grid(clip.known_masks)
            locked = stands_still(pictures.rgb, options, given, run)
        poses = pose_options(options, given)
        with run.stage("Loading the network"):
            source, stamps = self.stream_source(options, device)
            flow, flow_stamps = load_flow_source(pictures.rgb, options, run) if options.find_movers else (None, ())
            mask_stamps = () if options.refine_masks == "none" else (find_installed(options.refine_masks).stamp(),)
            made_from = {
                "network": stamps,
                "precision": str(precision_of(options, device)),
                "device": device.type,
                "memory": fusion_of(options),
                "poses": poses,
                "masks": run.content(masks),
            }
            pieces = pieces_of(pictures.rgb, made_from, run)
            if not all_known(pieces, run):
                source.open()
        with run.stage("Passing the clip through"):
            window = Window(clip.info, pictures, options, given, locked, run)
            passed = pass_through(source, pictures.rgb, masks, pieces, poses, run, window.show)
            source.let_go()
            release(device)
        with run.stage("Refining the path"):
            check_fitting(passed, poses.source)
            focal_px = lens_of(passed, given, options.zoom)
            frames = PassedFrames(pictures.rgb, passed, masks, focal_px, given.centre or centre_of(*pictures.size))
            path = path_of(frames, options, locked, pieces[-1], run)
            placed = place(passed, path.world_from_camera, path.scale, given, locked, focal_px, poses.source)
        with run.stage("Masking movers"):
            scores = motion_of(placed, flow, device, options.find_movers, run)
            moving, plates = plate_movers(scores, masks, clip, pictures, options, options.find_movers, run)
        details = {"pointers": int(passed.pointers[-1]), "loops": len(path.loops)}
        all_stamps = stamps + flow_stamps + mask_stamps
        capture = to_capture(clip, settings, pictures, placed, moving, plates, given, all_stamps, locked, details, run)
        # while frames passed, they were shown where the network had them
        show_capture(run, capture, world=int(given.world_from_camera is not None))
        if options.refine_camera and given.world_from_camera is None:
            capture = refine_camera(capture, clip, run, focal_free=given.focal_px is None)
        return replace(capture, timings=tuple(run.timings))
