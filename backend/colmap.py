"""The one door to pycolmap, which must never be the first in a process to bring a zlib.

The Linux wheel of pycolmap 4.2.1 exports its own copy of zlib's functions. When it loads before any other zlib, the PNG
code of OpenCV, Pillow and the standard library ends up half in one copy and half in the other, and the process dies
with a corrupted heap. With Python's own zlib loaded first, each keeps to its own.
"""

import zlib  # isort: skip

import pycolmap

__all__ = ["pycolmap", "zlib"]
