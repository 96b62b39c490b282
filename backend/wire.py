"""The one door to `blender_addon.wire`: the backend reaches what both sides share through here alone."""

from blender_addon.wire import bundle, capture, connection, errors, framing, live, messages, paths, settings, z85
from blender_addon.wire.capture import (
    CONFIDENCE_CARD,
    CONFIDENCE_FILLED,
    CONFIDENCE_MEASURED,
    Capture,
    ClipInfo,
    EngineStamp,
    FrameReport,
    PlateMap,
    ShotReport,
    Tracks,
    read_capture,
    write_capture,
)
from blender_addon.wire.connection import Connection
from blender_addon.wire.errors import Cancelled, KinoraError, ProtocolError, UserError
from blender_addon.wire.facts import ClipFacts, Estimate
from blender_addon.wire.folders import check_writable, names_in, staged_folder
from blender_addon.wire.gltf import GltfFile
from blender_addon.wire.live import LiveFrame
from blender_addon.wire.settings import (
    ENGINES,
    ClassicalSettings,
    ClipSettings,
    EngineInfo,
    JobSettings,
    LensSettings,
    MonST3RSettings,
)

__all__ = [
    "CONFIDENCE_CARD",
    "CONFIDENCE_FILLED",
    "CONFIDENCE_MEASURED",
    "ENGINES",
    "Cancelled",
    "Capture",
    "ClassicalSettings",
    "ClipFacts",
    "ClipInfo",
    "ClipSettings",
    "Connection",
    "EngineInfo",
    "EngineStamp",
    "Estimate",
    "FrameReport",
    "GltfFile",
    "JobSettings",
    "KinoraError",
    "LensSettings",
    "LiveFrame",
    "MonST3RSettings",
    "PlateMap",
    "ProtocolError",
    "ShotReport",
    "Tracks",
    "UserError",
    "bundle",
    "capture",
    "check_writable",
    "connection",
    "errors",
    "framing",
    "live",
    "messages",
    "names_in",
    "paths",
    "read_capture",
    "settings",
    "staged_folder",
    "write_capture",
    "z85",
]
