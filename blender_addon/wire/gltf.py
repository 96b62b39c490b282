"""The container of a GLB file: arrays become accessors of one binary chunk (glTF 2.0, sections 3.6 and 4.4)."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

# Assembled here rather than by a library: trimesh writes no animation, and pygltflib would add a dependency that
# holds the same JSON tree without packing arrays into it.

ARRAY_BUFFER = 34962
FLOAT = 5126
SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


class GltfFile:
    """A glTF document under construction: `document` is its JSON, `add` appends to one of its lists."""

    def __init__(self, generator: str) -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0", "generator": generator}}
        self._chunks: list[bytes] = []
        self._length = 0

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append to the list `kind` ('nodes', 'meshes', ...) and return the item's index there."""
        items = self.document.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def floats(self, values: np.ndarray, *, vertices: bool = False) -> int:
        """Store (N,), (N, 3) or (N, 4) numbers as float32 and return their accessor; `vertices` for attributes."""
        array = np.ascontiguousarray(values, "<f4")
        columns = array.reshape(len(array), -1)
        view = {"buffer": 0, "byteOffset": self._length, "byteLength": array.nbytes}
        if vertices:
            view["target"] = ARRAY_BUFFER
        self._chunks.append(array.tobytes())
        self._length += array.nbytes  # float32 alone, so every offset is a multiple of four
        return self.add(
            "accessors",
            {
                "bufferView": self.add("bufferViews", view),
                "componentType": FLOAT,
                "count": len(array),
                "type": SHAPES[columns.shape[1]],
                "min": columns.min(axis=0).tolist(),
                "max": columns.max(axis=0).tolist(),
            },
        )

    def to_bytes(self) -> bytes:
        """The whole GLB file."""
        if self._length:
            self.document["buffers"] = [{"byteLength": self._length}]
        text = json.dumps(self.document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        parts = [struct.pack("<I4s", len(text), b"JSON"), text]
        if self._length:
            parts += [struct.pack("<I4s", self._length, b"BIN\0"), *self._chunks]
        return b"".join([struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, parts))), *parts])
