"""Settings of a job: one tree of frozen dataclasses whose fields carry label, limits, unit and help.

The panel, the command line and the wire are all made from these fields, so a setting is written once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .errors import UserError
from .options import Settings, option


@dataclass(frozen=True)
class ClipSettings(Settings):
    """Which frames of the clip are used, and at what size."""

    first_frame: int = option(0, "First Frame", "First frame of the clip to use, counted from 0", minimum=0)
    last_frame: int = option(
        -1, "Last Frame", "Last frame of the clip to use, counted from 0; -1 is the end of the clip", minimum=-1
    )
    frame_step: int = option(1, "Step", "Use every n-th frame", minimum=1, maximum=100, unit="frames")
    long_side: int = option(
        512,
        "Resolution",
        "Long side of the point grid; the camera and the masks are always given at plate resolution",
        minimum=128,
        maximum=2048,
        unit="px",
    )


@dataclass(frozen=True)
class LensSettings(Settings):
    """What is known of the lens that shot the plate."""

    focal_mm: float = option(
        0.0,
        "Focal Length",
        "Focal length of the lens, kept as given; 0 when it is not known",
        minimum=0.0,
        maximum=5000.0,
        unit="mm",
    )
    sensor_width_mm: float = option(
        36.0, "Sensor Width", "Width of the sensor that the plate shows", minimum=1.0, maximum=200.0, unit="mm"
    )
    k1: float = option(
        0.0,
        "Distortion K1",
        "First radial term of the lens, OpenCV convention; 0 when the plate is undistorted",
        minimum=-2.0,
        maximum=2.0,
        advanced=True,
    )
    k2: float = option(
        0.0,
        "Distortion K2",
        "Second radial term of the lens, OpenCV convention",
        minimum=-2.0,
        maximum=2.0,
        advanced=True,
    )


def metric_scale_option() -> Any:
    """What engines have whose captures are not in metres."""
    return option(
        "none",
        "Metric Scale",
        "Measure how many metres the unit of the capture is; everything else stays in its own unit",
        choices=(
            ("none", "Not Measured", "The capture has a unit of its own"),
            ("mast3r", "MASt3R", "By what a network sees in metres: weights of 2.8 GB, no commercial use"),
        ),
    )


@dataclass(frozen=True)
class ClassicalSettings(Settings):
    """Settings of the classical engine."""

    max_features: int = option(
        500,
        "Tracks",
        "Points followed through the picture at a time for the camera solve; more is slower and helps on soft plates",
        minimum=100,
        maximum=4000,
        advanced=True,
    )
    find_movers: bool = option(
        True, "Find Movers", "Mask what moves by itself and solve the camera a second time without it"
    )
    mover_threshold: float = option(
        1.0,
        "Threshold",
        "How far a pixel must leave its epipolar line to count as moving; lower masks more",
        minimum=0.2,
        maximum=5.0,
        unit="factor",
    )
    fill_holes: bool = option(
        True, "Fill Holes", "Fill pixels without a measured depth from their surroundings, at low confidence"
    )
    movers_as_cards: bool = option(
        True, "Movers as Cards", "Stand moving subjects as flat cards where they touch the ground, at low confidence"
    )
    metric_scale: str = metric_scale_option()


@dataclass(frozen=True)
class MonST3RSettings(Settings):
    """Settings of the MonST3R engine; docs/monst3r.md says which flag of the original each one answers."""

    mode: str = option(
        "full",
        "Mode",
        "How much work goes into the capture",
        choices=(
            ("full", "Full", "Align all frames, find movers, refine the camera"),
            ("preview", "Preview", "Compare each frame with the middle one: rough cameras and points, in seconds"),
        ),
    )
    model: str = option(
        "monst3r",
        "Model",
        "The published weights that say where each pixel is",
        choices=(
            ("monst3r", "MonST3R", "For scenes with movement"),
            ("dust3r_512", "DUSt3R", "For scenes that stand still"),
            ("dust3r_224", "DUSt3R 224", "Small and square: faster, coarser, and the picture's ends are cut off"),
        ),
        advanced=True,
    )
    precision: str = option(
        "auto",
        "Precision",
        "How exactly the network calculates",
        choices=(
            ("auto", "Automatic", "Fast on graphics cards that can, exact elsewhere"),
            ("exact", "Exact", "32-bit numbers throughout"),
            ("fast", "Fast", "16-bit numbers in the trunk"),
            ("fastest", "Fastest", "16-bit numbers throughout"),
            ("compiled", "Fast and Compiled", "As Fast, compiled for the card: minutes before the first pair"),
        ),
        advanced=True,
    )
    scene_graph: str = option(
        "swinstride",
        "Pairs",
        "Which frames are compared with each other",
        choices=(
            ("swinstride", "Every Second Neighbour", "Neighbours at distances 1, 3, 5 and so on"),
            ("swin", "Neighbours", "Neighbours at distances 1, 2, 3 and so on"),
            ("swin2stride", "Every Third Neighbour", "Neighbours at distances 1, 4, 7 and so on"),
            ("logwin", "Doubling Distances", "Neighbours at distances 1, 2, 4, 8 and so on"),
            ("complete", "All", "Every frame with every other one: for short clips"),
            ("oneref", "First Frame", "Every frame with the first one: for small motion"),
        ),
        advanced=True,
    )
    neighbours: int = option(
        5, "Neighbours", "How many neighbours each frame is compared with", minimum=1, maximum=30, advanced=True
    )
    cyclic: bool = option(
        False, "Cyclic", "The clip ends where it began: compare its last frames with its first", advanced=True
    )
    solve_every: int = option(
        1,
        "Solve Every",
        "Solve every n-th frame; the ones between get their camera, depth and mask from these",
        minimum=1,
        maximum=100,
        unit="frames",
    )
    solve_fps: float = option(
        0.0,
        "Solve Rate",
        "Solve about so many frames a second, and fill in the ones between; 0 goes by Solve Every",
        minimum=0.0,
        maximum=240.0,
        advanced=True,
    )
    flow: str = option(
        "raft_large",
        "Optical Flow",
        "What follows pixels from frame to frame: it makes the camera precise and tells what moves",
        choices=(
            ("raft_large", "RAFT", "A network of 20 MB"),
            ("raft_small", "RAFT Small", "Faster and coarser"),
            ("classical", "Classic", "Without a network: follows large motion less well"),
            ("none", "None", "Cameras from the point maps alone, and no movers"),
        ),
    )
    flow_updates: int = option(
        12, "Flow Updates", "How often RAFT improves its flow", minimum=1, maximum=64, advanced=True
    )
    find_movers: bool = option(True, "Find Movers", "Mask what moves by itself and keep it from bending the camera")
    mover_threshold: float = option(
        1.0,
        "Threshold",
        "How far a pixel must leave the motion of the camera to count as moving; lower masks more",
        minimum=0.2,
        maximum=5.0,
        unit="factor",
    )
    refine_masks: str = option(
        "none",
        "Refine Masks",
        "Sharpen the masks with SAM 2, whose weights are got separately",
        choices=(
            ("none", "No", "As the optical flow tells, sharpened along the edges of the picture"),
            ("sam2_tiny", "SAM 2 Tiny", "The fastest"),
            ("sam2_small", "SAM 2 Small", "Between the others"),
            ("sam2_large", "SAM 2 Large", "The best masks; takes the longest"),
        ),
    )
    user_masks: str = option(
        "add",
        "Given Masks",
        "What masks that you give do",
        choices=(("add", "Add", "They are added to what is found"), ("replace", "Replace", "Nothing else is masked")),
        advanced=True,
    )
    camera: str = option(
        "auto",
        "Camera",
        "How the camera moves",
        choices=(
            ("auto", "Automatic", "As the picture tells"),
            ("moving", "Moving", "It travels or turns"),
            ("locked", "Locked Off", "It does not move at all"),
        ),
    )
    zoom: bool = option(False, "Zoom", "The focal length changes within the clip: solve it for each frame")
    refine_camera: bool = option(
        True, "Refine Camera", "Bundle adjustment of points tracked on the plate, kept where it lowers the error"
    )
    clean_points: bool = option(
        True, "Clean Points", "Take the confidence from points that hang in front of what other frames see"
    )
    min_confidence: float = option(
        1.5, "Confidence", "Points below this confidence are hidden at first", minimum=1.0, maximum=100.0, advanced=True
    )
    window_frames: int = option(
        100,
        "Window",
        "Longer clips are solved in windows of so many frames, so that memory does not grow",
        minimum=10,
        maximum=2000,
        unit="frames",
        advanced=True,
    )
    pairs_at_once: int = option(
        0,
        "Pairs at Once",
        "Most pairs the network is given at a time; 0 fits the memory",
        minimum=0,
        maximum=256,
        advanced=True,
    )
    metric_scale: str = metric_scale_option()


@dataclass(frozen=True)
class MASt3RSettings(Settings):
    """Settings of the MASt3R engine; docs/mast3r.md says which option of the original each one answers."""

    footage: str = option(
        "auto",
        "Footage",
        "Whether the frames follow each other",
        choices=(
            ("auto", "Automatic", "A video is a sequence, a folder of images is a set"),
            ("sequence", "Sequence", "Each frame shows nearly what the one before it shows"),
            ("set", "Set", "Photographs of one place, in any order"),
        ),
    )
    scene_graph: str = option(
        "auto",
        "Pairs",
        "Which frames are compared with each other",
        choices=(
            ("auto", "Automatic", "All of few frames; else doubling distances in a sequence, the most alike in a set"),
            ("complete", "All", "Every frame with every other one: for a few dozen"),
            ("retrieval", "Most Alike", "Each frame with those that look most like it"),
            ("swin", "Neighbours", "Neighbours at distances 1, 2, 3 and so on"),
            ("logwin", "Doubling Distances", "Neighbours at distances 1, 2, 4, 8 and so on"),
            ("oneref", "First Frame", "Every frame with the first one: for small motion"),
        ),
        advanced=True,
    )
    neighbours: int = option(
        6, "Neighbours", "How many other frames each frame is compared with", minimum=1, maximum=30, advanced=True
    )
    key_images: int = option(
        20,
        "Key Images",
        "With the most alike: so many images that differ most are all compared with each other",
        minimum=2,
        maximum=200,
        advanced=True,
    )
    cyclic: bool = option(
        False, "Cyclic", "The clip ends where it began: compare its last frames with its first", advanced=True
    )
    solve_every: int = option(
        1,
        "Solve Every",
        "Solve every n-th frame of a sequence; the ones between get their camera and depth from these",
        minimum=1,
        maximum=100,
        unit="frames",
    )
    solve_fps: float = option(
        0.0,
        "Solve Rate",
        "Solve about so many frames of a sequence a second, and fill in the ones between; 0 goes by Solve Every",
        minimum=0.0,
        maximum=240.0,
        advanced=True,
    )
    lenses: str = option(
        "auto",
        "Lens",
        "How many focal lengths are solved when the lens is not known; a known one is kept",
        choices=(
            ("auto", "Automatic", "One for a sequence, each image its own in a set"),
            ("shared", "Shared", "All frames were shot with one lens at one focal length"),
            ("each", "Per Image", "Each image has a focal length of its own, as after zooming"),
        ),
    )
    principal_point: bool = option(
        False,
        "Principal Point",
        "Solve where the lens looks, too; without it the middle of the picture, which is more precise",
        advanced=True,
    )
    match_confidence: float = option(
        0.0,
        "Min Match",
        "Pairs none of whose matches is surer than this are left out",
        minimum=0.0,
        maximum=30.0,
        advanced=True,
    )
    clean_points: bool = option(
        True, "Clean Points", "Take the confidence from points that hang in front of what other frames see"
    )
    min_confidence: float = option(
        1.5, "Confidence", "Points below this confidence are hidden at first", minimum=1.0, maximum=100.0, advanced=True
    )
    refine_camera: bool = option(
        True,
        "Refine Camera",
        "Bundle adjustment of points tracked on the plate of a sequence, kept where it lowers the error",
    )
    precision: str = option(
        "auto",
        "Precision",
        "How exactly the network calculates",
        choices=(
            ("auto", "Automatic", "Fast on graphics cards that can, exact elsewhere"),
            ("exact", "Exact", "32-bit numbers throughout"),
            ("fast", "Fast", "16-bit numbers in the trunk"),
            ("fastest", "Fastest", "16-bit numbers throughout"),
            ("compiled", "Fast and Compiled", "As Fast, compiled for the card: minutes before the first pair"),
        ),
        advanced=True,
    )
    pairs_at_once: int = option(
        0,
        "Pairs at Once",
        "Most pairs the network is given at a time; 0 fits the memory",
        minimum=0,
        maximum=256,
        advanced=True,
    )


@dataclass(frozen=True)
class LocaliseSettings(Settings):
    """Settings for putting a plate, a clip or one image, into the world of an earlier capture."""

    reference: str = option(
        "", "Reference", "Id of the job on this backend whose capture the plate is put into", advanced=True
    )
    still: bool = option(
        False, "Only This Image", "The plate is the chosen image alone, even where it is one of a numbered sequence"
    )
    near_frame: int = option(
        -1,
        "Near Frame",
        "Frame of the capture, counted from 0, that shows what the plate begins with; -1 finds it",
        minimum=-1,
        unit="frames",
    )
    matcher: str = option(
        "auto",
        "Matching",
        "What finds the same points in the plate and the capture",
        choices=(
            ("auto", "Automatic", "MASt3R where its weights are installed, else Classic"),
            ("classic", "Classic", "SIFT features: no weights, any computer, similar views and light"),
            ("mast3r", "MASt3R", "A network of 2.8 GB: far apart views, no commercial use"),
        ),
    )
    zoom: bool = option(
        False, "Zoom", "The focal length changes within the plate: find it for each frame, where it is not known"
    )
    compare: int = option(
        5,
        "Compare With",
        "How many frames of the capture each frame of the plate is matched with",
        minimum=1,
        maximum=50,
        unit="frames",
        advanced=True,
    )
    max_error_px: float = option(
        0.0,
        "Largest Error",
        "How far a point may be off on the plate and still count; 0 takes 0.6 % of the picture's diagonal",
        minimum=0.0,
        maximum=100.0,
        unit="px",
        advanced=True,
    )
    match_confidence: float = option(
        1.001,
        "Min Match",
        "MASt3R's matches below this confidence are not used",
        minimum=0.0,
        maximum=100.0,
        advanced=True,
    )
    precision: str = option(
        "auto",
        "Precision",
        "How exactly the network calculates",
        choices=(
            ("auto", "Automatic", "Fast on graphics cards that can, exact elsewhere"),
            ("exact", "Exact", "32-bit numbers throughout"),
            ("fast", "Fast", "16-bit numbers in the trunk"),
        ),
        advanced=True,
    )


@dataclass(frozen=True)
class EngineInfo:
    """What an artist must know of an engine before choosing it.

    It works with clips of at least `least_frames`.
    """

    name: str
    label: str
    description: str
    licence: str
    commercial_use: bool
    settings: type[Settings]
    least_frames: int = 3


ENGINES: dict[str, EngineInfo] = {
    "classical": EngineInfo(
        name="classical",
        label="Classic",
        description="Structure from motion and optical flow: no weights, no download, any computer",
        licence="GPL-3.0-or-later",
        commercial_use=True,
        settings=ClassicalSettings,
    ),
    "monst3r": EngineInfo(
        name="monst3r",
        label="MonST3R",
        description="Dense geometry of moving scenes by a network: weights of 2.3 GB, a graphics card is advised",
        licence="CC-BY-NC-SA-4.0",
        commercial_use=False,
        settings=MonST3RSettings,
    ),
    "mast3r": EngineInfo(
        name="mast3r",
        label="MASt3R",
        description="Sets that stand still, in metres, from two images on, by a network: weights of 2.8 GB",
        licence="CC-BY-NC-SA-4.0",
        commercial_use=False,
        settings=MASt3RSettings,
        least_frames=2,
    ),
}


#: What else is done with a clip: jobs as those of the engines, but each is asked for in a place of its own.
TASKS: dict[str, EngineInfo] = {
    "localise": EngineInfo(
        name="localise",
        label="Localise",
        description="Puts a clip or an image into the world of an earlier capture",
        licence="GPL-3.0-or-later",
        commercial_use=True,
        settings=LocaliseSettings,
        least_frames=1,
    ),
}


def engine_info(name: str) -> EngineInfo:
    """The engine or task of that name. Raises UserError when there is none."""
    info = ENGINES.get(name) or TASKS.get(name)
    if info is None:
        raise UserError(f"There is no engine '{name[:80]}'", f"choose one of {', '.join(ENGINES)}")
    return info


@dataclass(frozen=True)
class JobSettings:
    """Everything that decides a result, apart from the footage: the one settings object of a job."""

    engine: str = "classical"
    clip: ClipSettings = field(default_factory=ClipSettings)
    lens: LensSettings = field(default_factory=LensSettings)
    engine_settings: Settings = field(default_factory=ClassicalSettings)

    GROUPS: ClassVar[tuple[str, ...]] = ("clip", "lens", "engine_settings")

    def __post_init__(self) -> None:
        expected = engine_info(self.engine).settings
        if type(self.engine_settings) is not expected:
            raise UserError(f"The engine '{self.engine}' takes {expected.__name__}")

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` takes back."""
        return {"engine": self.engine, **{name: getattr(self, name).to_json() for name in self.GROUPS}}

    @classmethod
    def from_json(cls, data: Any) -> JobSettings:
        """Settings from what came over the wire. Raises UserError that names the offending setting."""
        if not isinstance(data, dict):
            raise UserError("Job settings must be a table")
        engine = data.get("engine", "classical")
        info = engine_info(str(engine))
        unknown = sorted(set(map(str, data)) - {"engine", *cls.GROUPS})
        if unknown:
            raise UserError(f"Unknown group of settings '{unknown[0][:80]}'", "update the add-on and the backend")
        return cls(
            engine=info.name,
            clip=ClipSettings.from_json(data.get("clip", {})),
            lens=LensSettings.from_json(data.get("lens", {})),
            engine_settings=info.settings.from_json(data.get("engine_settings", {})),
        )

    def canonical(self) -> bytes:
        """The same bytes for the same settings, on every machine: part of a job's identity."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
