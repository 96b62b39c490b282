"""Compact: a capture as one small file for slow lines; depth as 16-bit logarithms, everything else without loss.

The file is `KNRC`, then pieces one after another, and at last a table in JSON, its length (u32, little-endian) and
`KNRC` again; docs/capture.md says what the table holds. A piece is some frames of an array (or a stretch of small
files): differences of neighbours, the bytes of equal weight together, then zstandard or zlib. Files that follow from
the arrays are left out and made again by `unpack`, except for `scene.glb`.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from .capture import CONF_NAME, DEPTH_NAME, RGB_NAME
from .errors import Cancelled, UserError
from .messages import NAME
from .png import confidence_codes, depth_codes, encode_png

MAGIC = b"KNRC"
VERSION = 1
FILE_NAME = "capture.kc"

PIECE = 4 * 1024 * 1024  # bytes of a piece before it is compressed, or one frame when that is more
PIECE_MAX = 256 * 1024 * 1024
TABLE_MAX = 64 * 1024 * 1024
ARRAYS_MAX = 256 * 1024**3
STEP_LEAST = 3.8e-5  # of the logarithm of a depth: finer than anything that is measured
LEVEL = 1  # higher ones take several times as long for 2 %

#: Arrays of a capture: the type of their numbers, how many axes they have, and the way they are packed.
ARRAYS = {
    "depth.npy": ("<f4", 3, "log16"),
    "conf.npy": ("<f2", 3, "half"),
    "velocity.npy": ("<f2", 4, "half"),
    "rgb.npy": ("|u1", 4, "colour"),
    "objects.npy": ("|u1", 3, "bytes"),
    "dynamic.npy": ("|b1", 3, "bits"),
}
LEFT_OUT = "scene.glb"
#: What a damaged file raises while it is read.
DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, struct.error),
    *(ArithmeticError, MemoryError, RecursionError),
)
FILTERS = ("none", "x", "y", "xy")
NOBODY: Callable[[], bool] = lambda: False  # noqa: E731


def codecs() -> tuple[str, ...]:
    """The compressions that this Python has, the best first."""
    return ("zstd", "zlib") if _zstd() is not None else ("zlib",)


def pack(folder: Path, file: Path, codec: str, abandoned: Callable[[], bool] = NOBODY) -> dict[str, Any]:
    """Write the capture in `folder` as one file; its table. Raises UserError, OSError, Cancelled."""
    info = json.loads((folder / "capture.json").read_text(encoding="utf-8"))
    arrays = {name: _open_array(folder / name, name) for name in ARRAYS if (folder / name).is_file()}
    derived = _derived(info, arrays)
    whole = {n for n in info["files"] if n not in arrays and n != LEFT_OUT and n not in derived} | {"capture.json"}
    table: dict[str, Any] = {"version": VERSION, "codec": codec, "arrays": [], "files": []}
    compress = _codec(codec)[0]
    with open(file, "wb") as out:
        out.write(MAGIC)
        for name, array in arrays.items():
            plan = _plan(name, array, compress)
            sizes = []
            for part in _parts(array.shape, array.dtype.itemsize):
                if abandoned():
                    raise Cancelled("Cancelled")
                sizes.append(out.write(compress(plan.to_bytes(array[part]))))
            table["arrays"].append({"name": name, "shape": list(array.shape), **plan.stated(), "pieces": sizes})
        for name in sorted(whole):
            sizes = []
            with open(folder / name, "rb") as content:
                for block in iter(lambda content=content: content.read(PIECE), b""):
                    sizes.append(out.write(compress(block)))
            table["files"].append({"name": name, "size": (folder / name).stat().st_size, "pieces": sizes})
        table["left_out"] = [LEFT_OUT] if LEFT_OUT in info["files"] else []
        table["derived"] = sorted({info["images"][d]["pattern"] for d in set(derived.values())})
        text = json.dumps(table, allow_nan=False).encode()
        out.write(text + struct.pack("<I", len(text)) + MAGIC)
    return table


def unpack(file: Path, folder: Path, abandoned: Callable[[], bool] = NOBODY) -> dict[str, Any]:
    """Write the capture in `file` to the empty `folder`, capture.json last; its table.

    Nothing is taken on trust: sizes are checked before a piece is opened. Raises UserError on a damaged file, OSError
    and Cancelled.
    """
    try:
        with open(file, "rb") as source:
            table = _read_table(source)
            decompress = _codec(table["codec"])[1]
            for row in table["arrays"]:
                _unpack_array(source, row, folder / row["name"], decompress, abandoned)
            for row in table["files"]:
                with open(folder / row["name"], "wb") as out:
                    for number, size in enumerate(row["pieces"]):
                        out.write(decompress(_exactly(source, size), min(PIECE, row["size"] - number * PIECE)))
        info = json.loads((folder / "capture.json").read_text(encoding="utf-8"))
        (folder / "capture.json").unlink()
        with np.errstate(all="ignore"):  # numbers that make no sense make no sense as pictures either
            _derive(info, folder, abandoned)
        info["files"] = {p.name: p.stat().st_size for p in sorted(folder.iterdir())}
        for name in table["left_out"]:
            info.pop(name.replace(".", "_"), None)
        error = max((row.get("max_relative_error", 0.0) for row in table["arrays"]), default=0.0)
        info["compact"] = {"depth_max_relative_error": error, **{k: table[k] for k in ("left_out", "derived")}}
        (folder / "capture.json").write_text(json.dumps(info, indent=1, allow_nan=False), encoding="utf-8")
        return table
    except DAMAGE as error:
        raise UserError(f"The result arrived damaged ({error})", "fetch it again") from error


@dataclass(frozen=True)
class _Plan:
    """How the frames of one array become bytes and back; `low` and `step` are of the logarithm of the depth."""

    way: str
    filter: str = "none"
    low: float = 0.0
    step: float = 0.0
    max_relative_error: float = 0.0

    def stated(self) -> dict[str, Any]:
        stated: dict[str, Any] = {"way": self.way, "filter": self.filter}
        if self.way == "log16":
            stated |= {"low": self.low, "step": self.step, "max_relative_error": self.max_relative_error}
        return stated

    def to_bytes(self, frames: np.ndarray) -> bytes:
        if self.way == "bits":
            return np.packbits(frames).tobytes()
        numbers = _differences(self._to_numbers(frames), self.filter)
        planes = numbers.view(np.uint8).reshape(*numbers.shape, numbers.dtype.itemsize)
        return np.moveaxis(planes, -1, 0).tobytes()

    def to_frames(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """The frames of `shape` in `data`, which must have the length that `length` says."""
        if self.way == "bits":
            return np.unpackbits(np.frombuffer(data, np.uint8), count=math.prod(shape)).reshape(shape).view(bool)
        dtype = np.dtype("<u2" if self.way in ("log16", "half") else "|u1")
        count, height, width = shape[:3]
        numbers = np.empty((count, self._channels(shape), height, width), dtype)
        planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, *numbers.shape)
        numbers.view(np.uint8).reshape(*numbers.shape, dtype.itemsize)[...] = np.moveaxis(planes, 0, -1)
        return self._from_numbers(_sums(numbers, self.filter), shape)

    def length(self, shape: tuple[int, ...]) -> int:
        """How many bytes frames of this shape are."""
        if self.way == "bits":
            return (math.prod(shape) + 7) // 8
        return self._channels(shape) * math.prod(shape[:3]) * (2 if self.way in ("log16", "half") else 1)

    def _channels(self, shape: tuple[int, ...]) -> int:
        return 4 if self.way == "single" else shape[3] if len(shape) == 4 else 1

    def _to_numbers(self, frames: np.ndarray) -> np.ndarray:
        """(count, channels, H, W) unsigned integers."""
        if self.way == "log16":
            known = frames > 0
            levels = np.rint((np.log(frames, where=known, out=np.zeros_like(frames)) - self.low) / self.step)
            return np.where(known, np.clip(levels, 0, 65534) + 1, 0).astype("<u2")[:, None]
        if self.way == "colour":
            red, green, blue = np.moveaxis(frames, -1, 0)
            return np.stack([red - green, green, blue - green], axis=1)
        kind = {"half": "<u2", "single": "|u1", "bytes": "|u1"}[self.way]
        frames = np.ascontiguousarray(frames if frames.ndim == 4 else frames[..., None]).view(kind)
        return np.ascontiguousarray(np.moveaxis(frames, -1, 1))

    def _from_numbers(self, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if self.way == "log16":
            return _depths(self.low, self.step)[numbers[:, 0]]
        if self.way == "colour":
            red, green, blue = np.moveaxis(numbers, 1, 0)
            return np.stack([red + green, green, blue + green], axis=-1)
        frames = np.ascontiguousarray(np.moveaxis(numbers, 1, -1))
        return frames.view({"half": "<f2", "single": "<f4", "bytes": "|u1"}[self.way]).reshape(shape)


def _plan(name: str, array: np.ndarray, compress: Callable[[bytes], bytes]) -> _Plan:
    """The way of an array with the filter that makes three of its frames smallest."""
    plan = _Plan(ARRAYS[name][2])
    if plan.way == "bits":
        return plan
    if plan.way == "log16":
        plan = _depth_plan(array)
    sample = np.stack([array[i] for i in sorted({0, len(array) // 2, len(array) - 1})])
    plans = [_Plan(**{**vars(plan), "filter": name}) for name in FILTERS]
    return min(plans, key=lambda each: len(compress(each.to_bytes(sample))))


def _depth_plan(depth: np.ndarray) -> _Plan:
    """Levels of the logarithm between the least and the largest depth; depths that are none are kept bit by bit."""
    least, most = math.inf, 0.0
    for part in _parts(depth.shape, 4):
        frames = depth[part]
        if not np.isfinite(frames).all() or (frames < 0).any():
            return _Plan("single")
        known = frames[frames > 0]
        if known.size:
            least, most = min(least, float(known.min())), max(most, float(known.max()))
    if most == 0:
        least = most = 1.0
    plan = _Plan("log16", low=math.log(least), step=max(math.log(most / least) / 65534, STEP_LEAST))
    table, error = _depths(plan.low, plan.step), 0.0
    for part in _parts(depth.shape, 4):
        frames = depth[part]
        known = frames > 0
        if known.any():
            back = table[plan._to_numbers(frames)[:, 0]][known]
            error = max(error, float(np.abs(back / frames[known].astype(np.float64) - 1).max()))
    return _Plan("log16", low=plan.low, step=plan.step, max_relative_error=error)


def _depths(low: float, step: float) -> np.ndarray:
    """(65536,) the depth that each level stands for; 0 stands for none."""
    return np.concatenate([[0.0], np.exp(low + step * np.arange(65535))]).astype(np.float32)


def _differences(numbers: np.ndarray, name: str) -> np.ndarray:
    """Each number less its left and its upper neighbour's, in the integers of its type."""
    for axis in {"none": (), "x": (-1,), "y": (-2,), "xy": (-1, -2)}[name]:
        numbers = np.diff(numbers, axis=axis, prepend=numbers.dtype.type(0))
    return np.ascontiguousarray(numbers)


def _sums(numbers: np.ndarray, name: str) -> np.ndarray:
    for axis in {"none": (), "x": (-1,), "y": (-2,), "xy": (-2, -1)}[name]:
        np.cumsum(numbers, axis=axis, dtype=numbers.dtype, out=numbers)
    return numbers


def _parts(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """The frames of each piece."""
    count = max(1, PIECE // max(1, math.prod(shape[1:]) * itemsize))
    for first in range(0, shape[0], count):
        yield slice(first, min(shape[0], first + count))


def _open_array(path: Path, name: str) -> np.ndarray:
    array = np.load(path, mmap_mode="r")
    dtype, axes, _ = ARRAYS[name]
    if array.dtype.str != dtype or array.ndim != axes or not array.size:
        raise UserError(f"{name} is not an array of a capture", "fetch the result as it is")
    return array


def _unpack_array(
    source: IO[bytes],
    row: dict[str, Any],
    path: Path,
    decompress: Callable[[bytes, int], bytes],
    abandoned: Callable[[], bool],
) -> None:
    dtype, shape = np.dtype(ARRAYS[row["name"]][0]), tuple(row["shape"])
    plan = _Plan(**{key: row[key] for key in ("way", "filter", "low", "step") if key in row})
    with open(path, "wb") as out:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        parts = list(_parts(shape, dtype.itemsize))
        if len(parts) != len(row["pieces"]):
            raise ValueError(f"{row['name']} has a wrong number of pieces")
        for part, size in zip(parts, row["pieces"]):
            if abandoned():
                raise Cancelled("Cancelled")
            here = (part.stop - part.start, *shape[1:])
            frames = plan.to_frames(decompress(_exactly(source, size), plan.length(here)), here)
            out.write(np.ascontiguousarray(frames).astype(dtype, copy=False).data)


def _read_table(source: IO[bytes]) -> dict[str, Any]:
    """The table of a file, its sizes checked; the file then stands before the first piece."""
    end = source.seek(0, 2)
    source.seek(max(0, end - 8))
    length, magic = struct.unpack("<I4s", _exactly(source, 8))
    if magic != MAGIC or length > min(TABLE_MAX, end - 12):
        raise ValueError("it has no table")
    source.seek(end - 8 - length)
    table = json.loads(_exactly(source, length))
    source.seek(0)
    if _exactly(source, 4) != MAGIC or table["version"] != VERSION:
        raise ValueError("it is of a newer Kinora, or no capture at all")
    total = 0
    for row in table["arrays"]:
        dtype, axes, way = ARRAYS[row["name"]]
        shape, size = row["shape"], np.dtype(dtype).itemsize
        if len(shape) != axes or not all(type(n) is int and 0 < n < 2**31 for n in shape):
            raise ValueError(f"{row['name']} has no possible shape")
        if row["way"] not in (way, "single" if way == "log16" else way) or row["filter"] not in FILTERS:
            raise ValueError(f"{row['name']} is packed in an unknown way")
        if (way == "colour" and shape[3] != 3) or math.prod(shape[1:]) * size > PIECE_MAX:
            raise ValueError(f"{row['name']} has no possible shape")
        if not all(math.isfinite(row.get(key, 0.0)) for key in ("low", "step", "max_relative_error")):
            raise ValueError(f"{row['name']} has no possible range")
        total += math.prod(shape) * size
    for row in table["files"]:
        if not NAME.fullmatch(row["name"]) or type(row["size"]) is not int or row["size"] < 0:
            raise ValueError("a file has no possible name or size")
        if len(row["pieces"]) != -(-row["size"] // PIECE):
            raise ValueError(f"{row['name']} has a wrong number of pieces")
        total += row["size"]
    names = [row["name"] for row in (*table["arrays"], *table["files"])]
    sizes = [size for row in (*table["arrays"], *table["files"]) for size in row["pieces"]]
    if len(set(names)) != len(names) or "capture.json" not in names or total > ARRAYS_MAX:
        raise ValueError("it does not hold one capture")
    if any(type(size) is not int or size < 0 for size in sizes) or 4 + sum(sizes) != end - 8 - length:
        raise ValueError("its pieces are not as long as its table says")
    return table


def _derived(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """The pictures that follow from arrays and can be made again, and which of `images` each belongs to."""
    images, derived = info.get("images", {}), {}
    for key, name, source in (("rgb", RGB_NAME, "rgb.npy"), *_GREY):
        if source in arrays and images.get(key, {}).get("pattern") == name.replace("{:04d}", "%04d"):
            names = [name.format(frame) for frame in range(len(arrays[source]))]
            if all(each in info["files"] for each in names):
                derived |= dict.fromkeys(names, key)
    return derived


_GREY = (("depth", DEPTH_NAME, "depth.npy"), ("conf", CONF_NAME, "conf.npy"))


def _derive(info: dict[str, Any], folder: Path, abandoned: Callable[[], bool]) -> None:
    """Make the pictures again that were not sent."""
    arrays = {name: np.load(folder / name, mmap_mode="r") for name in ARRAYS if (folder / name).is_file()}
    for name, key in _derived(info, arrays).items():
        if abandoned():
            raise Cancelled("Cancelled")
        frame, about = int(name.rpartition("_")[2].partition(".")[0]), info["images"][key]
        if key == "rgb":
            pixels = arrays["rgb.npy"][frame]
        elif key == "depth":
            pixels = depth_codes(arrays["depth.npy"][frame], about["scale"])
        else:
            pixels = confidence_codes(arrays["conf.npy"][frame], about["scale"])
        (folder / name).write_bytes(encode_png(np.asarray(pixels)))


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise ValueError("it is cut")
    return data


def _zstd() -> Any:
    """The module that has zstandard in this Python: its own, or the package that comes with Blender."""
    try:
        from compression import zstd
    except ImportError:
        try:
            import zstandard as zstd
        except ImportError:
            return None
    return zstd


def _codec(name: str) -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]:
    """compress(data), and decompress(data, size), which never makes more than `size` bytes and raises ValueError."""
    if name == "zlib":
        return lambda data: zlib.compress(data, LEVEL), _inflate
    zstd = _zstd() if name == "zstd" else None
    if zstd is None:
        raise ValueError(f"it needs {name}, which is not there")
    if hasattr(zstd, "get_frame_info"):
        stated = lambda data: zstd.get_frame_info(data).decompressed_size  # noqa: E731
        compress, failure = lambda data: zstd.compress(data, LEVEL), zstd.ZstdError
        expand = lambda data, size: _expand_frame(zstd.ZstdDecompressor(), data, size)  # noqa: E731
    else:
        stated, failure = zstd.frame_content_size, zstd.ZstdError
        compress = zstd.ZstdCompressor(level=LEVEL).compress
        expand = lambda data, size: zstd.ZstdDecompressor().decompress(data)  # noqa: E731 - by what the frame states

    def decompress(data: bytes, size: int) -> bytes:
        try:
            if stated(data) != size:  # before anything is made of it
                raise ValueError("a piece is not as long as it should be")
            return expand(data, size)
        except failure as error:
            raise ValueError("a piece is damaged") from error

    return compress, decompress


def _expand_frame(decompressor: Any, data: bytes, size: int) -> bytes:
    """One frame of `size` bytes and no more: what a frame states need not be true, and others may follow it."""
    out = decompressor.decompress(data, size) if size else b""
    more = b"" if decompressor.eof else decompressor.decompress(b"" if size else data, 1)
    if len(out) != size or more or not decompressor.eof or decompressor.unused_data:
        raise ValueError("a piece is not as long as it should be")
    return out


def _inflate(data: bytes, size: int) -> bytes:
    try:
        inflater = zlib.decompressobj()
        out = inflater.decompress(data, size) if size else b""
        if len(out) != size or inflater.decompress(inflater.unconsumed_tail or b"", 1):
            raise ValueError("a piece is not as long as it should be")
    except zlib.error as error:
        raise ValueError("a piece is damaged") from error
    return out
