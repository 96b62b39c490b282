"""Point clouds as binary PLY files, in the form that Blender's Import PLY node reads."""

from __future__ import annotations

import numpy as np

from .attributes import COLOR

_KINDS = {"|u1": "uchar", "<f4": "float"}


def encode_ply(positions: np.ndarray, attributes: dict[str, np.ndarray]) -> bytes:
    """A file of (N, 3) positions with attributes by name: binary little-endian, one element `vertex`.

    (N, 3) uint8 sRGB colours are `red green blue`, as they are: Blender makes them linear when it reads them. Other
    (N, 3) are `name_x name_y name_z`; (N,) bool and uint8 are uchar, other numbers float.
    """
    columns = dict(zip("xyz", np.asarray(positions, "<f4").T))
    for name, values in attributes.items():
        numbers = np.asarray(values, "u1" if values.dtype in (bool, np.uint8) else "<f4")
        if numbers.ndim == 1:
            columns[name] = numbers
        else:
            parts = ("red", "green", "blue") if name == COLOR else [f"{name}_{axis}" for axis in "xyz"]
            columns |= dict(zip(parts, numbers.T))
    vertices = np.empty(len(positions), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        vertices[name] = values
    properties = "".join(f"property {_KINDS[values.dtype.str]} {name}\n" for name, values in columns.items())
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    return header.encode("ascii") + vertices.tobytes()
