"""From an import in Blender to files that other programs open: camera, points, and both."""

from .formats import FORMATS, Format, Request, write

__all__ = ["FORMATS", "Format", "Request", "write"]
