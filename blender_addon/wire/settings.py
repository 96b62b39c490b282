"""Settings of a job: one tree of frozen dataclasses whose fields carry label, limits, unit and help.

The panel, the command line and the wire are all made from these fields, so a setting is written once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .engine_settings import ClassicalSettings, LocaliseSettings, MASt3RSettings, MonST3RSettings, Point3RSettings
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
    "point3r": EngineInfo(
        name="point3r",
        label="Point3R",
        description="Long clips in one pass, in metres, shown as they come, by a network: weights of 3.3 GB",
        licence="CC-BY-NC-SA-4.0",
        commercial_use=False,
        settings=Point3RSettings,
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
