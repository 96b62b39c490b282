"""From a capture to a Blender scene: points, camera, plate and masks; NumPy and bpy, no interface, no sockets."""

from .build import import_capture
from .options import ImportOptions
from .report import ImportReport

__all__ = ["ImportOptions", "ImportReport", "import_capture"]
