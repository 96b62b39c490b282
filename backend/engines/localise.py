"""The localising task: a clip or an image is put into the world of an earlier capture, whatever engine made that.

It reads as the method goes: the lens -> frames of the capture that look alike -> matches -> poses -> depth as the new
camera sees the capture's points. The parts are in `backend/localise/`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..clip import Clip
from ..live import tracks_frame
from ..localise.classic import ClassicMatcher
from ..localise.found import Matcher, Picture
from ..localise.localise import Localiser, Placed, Plate
from ..localise.reference import Reference
from ..localise.report import to_capture
from ..localise.views import Views
from ..nets.manifest import model_named
from ..nets.receipt import Receipt, weights_folder
from ..nets.weights import check_installed
from ..run import Run
from ..wire import Capture, JobSettings, LiveFrame, LocaliseSettings, UserError


class LocaliseEngine:
    """Puts a clip into the world of `clip.reference`; see the module's docstring."""

    plan = (
        ("Looking at the capture", 0.1),
        ("Matching the plate", 0.7),
        ("Fitting the cameras", 0.1),
        ("Measuring depth", 0.1),
    )

    def check(self, settings: JobSettings) -> None:
        """Raise UserError when the network's weights are asked for and are not on this machine."""
        if settings.engine_settings.matcher == "mast3r":
            check_installed(["mast3r"])

    def matcher(self, options: LocaliseSettings, run: Run) -> tuple[Matcher, tuple]:
        """What finds the same points, and the stamps of its weights. Tests put an oracle in its place."""
        here = Receipt(weights_folder()).installed(model_named("mast3r")) is not None
        if options.matcher == "classic" or (options.matcher == "auto" and not here):
            return ClassicMatcher(), ()
        from ..localise.network import load_matcher  # torch takes seconds to load, and is not needed without it

        return load_matcher(options, run)

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """The clip as a capture in its reference's world. Raises UserError where it is of another set."""
        if clip.reference is None:
            raise UserError("There is no capture to put the plate into", "name one that was made earlier")
        options: LocaliseSettings = settings.engine_settings
        plate, focal_source = plate_of(clip, settings)
        with run.stage("Looking at the capture"):
            reference = Reference(clip.reference)
            if options.near_frame >= clip.reference.frame_count:
                raise UserError(
                    f"The near frame {options.near_frame} is outside the capture, "
                    f"which has {clip.reference.frame_count} frames",
                    f"give one from 0 to {clip.reference.frame_count - 1}, or -1",
                )
            matcher, stamps = self.matcher(options, run)
            classic = matcher if isinstance(matcher, ClassicMatcher) else ClassicMatcher()
            views = Views(reference, classic, options.near_frame, run)
            views.look(options.compare)

        def shown(t: int, placed: Placed) -> None:
            run.show(lambda: [live_frame(clip, t, placed)])

        localised = Localiser(plate, reference, matcher, views, options, run, shown).localise()
        with run.stage("Measuring depth"):
            capture = to_capture(clip, settings, reference, localised, matcher.label, focal_source, stamps, run)
        return replace(capture, timings=tuple(run.timings))


def plate_of(clip: Clip, settings: JobSettings) -> tuple[Plate, str]:
    """The clip as what is to be localised, and where its focal length comes from. Raises UserError for given poses."""
    known = clip.known_cameras
    if known is not None and known.world_from_camera is not None:
        raise UserError("Camera poses are given for a plate whose cameras are to be found", "leave them out")
    width, height = clip.info.plate_size
    lens = np.tile([1.0, 1.0, width / 2, height / 2], (clip.frame_count, 1))
    focal_known = True
    if known is not None and known.plate_intrinsics is not None:
        lens = np.array(known.plate_intrinsics)
    elif settings.lens.focal_mm > 0:
        lens[:, :2] = settings.lens.focal_mm / settings.lens.sensor_width_mm * width
    else:
        focal_known = False
    plate = Plate(
        picture=lambda t: Picture(("plate", int(t)), clip.frames[t]),
        mask=lambda t: None if clip.known_masks is None else np.asarray(clip.known_masks[t]),
        to_plate=clip.store_map.to_plate,
        size=(width, height),
        intrinsics=lens,
        focal_known=focal_known,
        times=np.array(clip.info.timestamps),
    )
    return plate, "user" if focal_known else "solved"


def live_frame(clip: Clip, t: int, placed: Placed) -> LiveFrame | None:
    """What is known of a frame while the others are still being placed."""
    agree = placed.sightings.where(placed.pose.inliers)
    picture, (x, y) = clip.frames[t], np.floor(clip.store_map.to_grid(agree.plate_xy)).astype(int).T
    height, width = picture.shape[:2]
    return tracks_frame(
        clip.info,
        t,
        points_world=agree.points_world,
        colours=picture[y.clip(0, height - 1), x.clip(0, width - 1)],
        world_from_camera=placed.pose.world_from_camera,
        plate_intrinsics=placed.pose.intrinsics,
    )
