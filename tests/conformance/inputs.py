"""Conformance of what comes before the network: resized and cropped pictures, frames of a video, lists of pairs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import PIL

from backend.align.graph import make_pairs
from backend.monst3r.preprocess import prepare, read_image, video_frame_indices
from backend.nets.predict import network_input
from backend.wire import UserError

from .rows import Arrays, Row, absent, count, guarded, near, unchecked


def check_preprocessing(folder: Path) -> Iterator[Row]:
    """`preprocess/preprocess.json` with its sources, `subsample9.npz` and `full_u8.npz`."""
    place = folder / "preprocess"
    if not (place / "preprocess.json").is_file():
        yield absent("preprocessing")
        return
    recorded = json.loads((place / "preprocess.json").read_text(encoding="utf-8"))
    tolerance = 0 if recorded.get("pillow") == PIL.__version__ else 1
    stored = {n: Arrays(place / f"{n}.npz") for n in ("subsample9", "full_u8") if (place / f"{n}.npz").is_file()}
    for key, entry in recorded.get("images", {}).items():
        yield from guarded(key, partial(_picture, place, key, entry, stored, tolerance))
    for arrays in stored.values():
        yield from arrays.left("its picture is not in preprocess.json")
    if any("dynamic_mask_sum" in e for e in recorded.get("images", {}).values() if isinstance(e, dict)):
        yield unchecked("dynamic_mask_sum", "the original reads pictures as masks by mistake; nothing here does")
    for key in recorded.keys() - {"images", "video_frame_indices", "pillow", "opencv", "torch"}:
        yield unchecked(f"preprocess.json {key}", "nothing here answers to it")
    videos = recorded.get("video_frame_indices", {})
    wrong = []
    for key, indices in videos.items():
        p = dict(part.split("=") for part in key.split("|"))
        limit = None if p["num_frames"] == "None" else int(p["num_frames"])
        ours = video_frame_indices(float(p["video_fps"]), int(p["total"]), float(p["fps"]), limit)
        if ours != indices:
            wrong.append(key)
    yield count("video_frame_indices", wrong, len(videos)) if videos else absent("video_frame_indices")


def _picture(place: Path, key: str, entry: dict | str, stored: dict[str, Arrays], tolerance: int) -> Iterator[Row]:
    file, *options = key.split("|")
    o = dict(option.split("=") for option in options)
    if not (place / file).is_file():
        yield absent(key)
        return
    try:
        rgb = prepare(read_image(place / file), int(o["size"]), o["crop"] == "1", o["square_ok"] == "1").rgb
    except UserError as error:
        yield Row(key, isinstance(entry, str), note=f"refused: {error.message}")
        return
    if isinstance(entry, str):
        yield Row(key, False, note=f"accepted, but {entry}")
        return
    tensor = network_input(rgb[None]).numpy()
    yield near(f"{key} true_shape", [rgb.shape[:2]], entry["true_shape"], 0)
    if "tensor_shape" in entry:
        yield near(f"{key} tensor_shape", tensor.shape, entry["tensor_shape"], 0)
    name = f"{file}_s{o['size']}"
    comparisons = [
        ("subsample9", entry.get("sub9"), rgb[::9, ::9]),
        ("full_u8", f"{name}_c{o['crop']}_q{o['square_ok']}", rgb),
    ]
    if o["crop"] == "1" and o["square_ok"] == "0":
        comparisons.append(("full_u8", name, rgb))
    shown = False
    for part, array, ours in comparisons:
        if part in stored and array in stored[part]:
            shown = True
            yield stored[part].near(array, ours.astype(int), tolerance)
    hashes = {"sha256_u8": rgb, "sha256_f32": tensor}
    same = {h: hashlib.sha256(a.tobytes()).hexdigest() == entry[h] for h, a in hashes.items() if h in entry}
    for name, equal in same.items():
        if equal:
            yield Row(f"{key} {name}", True, 0, 0)
        elif tolerance and shown and not same.get("sha256_u8", False):
            yield unchecked(f"{key} {name}", f"another Pillow, {PIL.__version__}; the stored pixels were compared")
        else:
            yield Row(f"{key} {name}", False, note="another hash")
    if "mask_false_count" in entry:
        black = int((rgb.astype(int).sum(-1) <= 0.01 * 255).sum())
        if same.get("sha256_u8", True):
            yield near(f"{key} mask_false_count", black, entry["mask_false_count"], 0)
        else:
            yield unchecked(f"{key} mask_false_count", "the pixels are not exactly the same")


def check_pairs(folder: Path) -> Iterator[Row]:
    """`pairs/pairs.json` as multisets, `pairs/counts.json`."""
    lists, counts = folder / "pairs" / "pairs.json", folder / "pairs" / "counts.json"
    if lists.is_file():
        recorded = json.loads(lists.read_text(encoding="utf-8"))
        wrong = [key for key, pairs in recorded.items() if _pairs(key) != Counter(map(tuple, pairs))]
        yield count("pairs.json", wrong, len(recorded), of="lists")
    else:
        yield absent("pairs.json")
    if counts.is_file():
        recorded = json.loads(counts.read_text(encoding="utf-8"))
        wrong = [key for key, number in recorded.items() if _pairs(key).total() != number]
        yield count("counts.json", wrong, len(recorded), of="counts")
    else:
        yield absent("counts.json")


def _pairs(key: str) -> Counter:
    graph, *options = key.split("|")
    o = dict(option.split("=") for option in options)
    prefilter = o.get("prefilter", "none")
    try:
        chosen = None if prefilter == "none" else prefilter
        return Counter(make_pairs(graph, int(o["N"]), o.get("sym", "1") == "1", chosen))
    except UserError:
        return Counter({"refused": -1})  # equal to no list, and to no count
