"""Conformance of the streaming network: names, weights, whole streams with their pointers, and what lies between."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.geometry.rigid import quaternions_from_matrices
from backend.nets.checkpoint import tied_names
from backend.nets.point3r import Placed, Point3RConfig, Point3RNet
from backend.nets.point3r_stream import Point3RStream, StreamState
from backend.nets.rope3d import BASES
from backend.nets.vit import Rotary2D, grid_positions
from backend.streaming.frames import StreamedFrame
from backend.streaming.fusion import ORIGINAL, Candidates, Memory, threshold
from tests.point3r_recipe import hashed_state, shapes_of

from .rows import Arrays, Row, absent, count, guarded, near

#: Share of the mean size of an array's elements; and for confidence, poses and what is a share itself, as it is.
POINTS, NUMBER = 1e-4, 2e-5
#: Weights by their formula, whose last bit hangs on the order of its products.
FORMULA = 1e-6
#: Distances in thresholds, of which there may be hundreds between the frames.
MARGIN = 1e-4
#: Names of what the original's encoder in half precision left, and how much looser they are held: the last bit of a
#: float32 number flips that of a half one, so that 1e-7 of noise in the pictures moves points by up to 4e-4. Between
#: the two ways of turning lie 7e-4 and more.
HALF, HALF_NOISE = "__encfp16", 5
NUMBERS, COUNTS, MARGINS = ("conf_self", "conf_world", "camera_pose"), ("ptr_count", "n_added"), ("margin", "nn_gap")


def half_rotary_2d(positions: Tensor, head_width: int, base: float = 100.0) -> Rotary2D:
    """As `rotary_2d`, but in half precision throughout, angles included: the encoder of the original without CUDA's."""
    exponents = torch.arange(0, head_width // 2, 2, dtype=torch.float32) / (head_width // 2)
    angles = (positions.float().unsqueeze(-1) * base**-exponents).half().flatten(-2)
    return _HalfRotary2D(angles.cos(), angles.sin())


class _HalfRotary2D(Rotary2D):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x.half()).to(x.dtype)


class WatchedNet(Point3RNet):
    """The network, which notes what lies between a frame and its answer: also what it passes over, the last memory."""

    half = False

    def __init__(self, config: Point3RConfig) -> None:
        super().__init__(config)
        self.seen: dict[str, Tensor] = {}

    def encoder_rotation(self, grid: tuple[int, int], device: torch.device) -> Rotary2D:
        if not self.half:
            return super().encoder_rotation(grid, device)
        return half_rotary_2d(grid_positions(grid), self.config.enc_embed_dim // self.config.enc_num_heads)

    def encode(self, images: Tensor) -> Tensor:
        self.seen["enc"] = super().encode(images)
        return self.seen["enc"]

    def levels(
        self, tokens: Tensor, pose: Tensor, memory: Tensor, placed: Placed | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        made = list(super().levels(tokens, pose, memory, placed))
        depth = self.config.dec_depth
        turns = (placed.memory, placed.picture_for_memory) if placed else ()
        last = self.dec_blocks_memory[-1](made[-1][1], made[-2][0], *turns)
        self.seen |= {"pose_in": pose, "mem_in": memory, "mem_out": self.dec_norm_memory(last)}
        self.seen |= {"dec_mid": made[depth // 2 - 1][0], "dec_3q": made[3 * depth // 4 - 1][0]}
        self.seen["dec_last"] = self.dec_norm(made[-1][0])
        return iter(made)

    def value(self, points_world: Tensor) -> Tensor:
        self.seen["geo_feat"] = super().value(points_world)
        return self.seen["geo_feat"]


@dataclass
class StreamRecord:
    """Everything that a file of streams may hold of ours: `arrays` by their names; `between`, by frame, of stream 0."""

    arrays: dict[str, np.ndarray]
    between: list[Mapping[str, np.ndarray]] = field(default_factory=list)


def stream_record(net: WatchedNet, frames: np.ndarray, half: bool = False) -> StreamRecord:
    """Streams (T, B, H, W, 3) uint8, one after the other, frame by frame; `half`: as the encoder of the original."""
    net.half = half
    record, columns = StreamRecord({}), []
    for b in range(frames.shape[1]):
        stream, rows, before = Point3RStream(net, ORIGINAL), [], None
        for t, picture in enumerate(frames[:, b]):
            said = stream.push(picture)
            state = stream.state
            rows.append(_of_frame(said, state, before))
            record.arrays[f"ptr_pos_f{t}_b{b}"] = state.memory.positions.numpy()
            record.arrays[f"ptr_feat_f{t}_b{b}"] = state.memory.features.numpy()
            if b == 0:
                seen = {**net.seen, "img_mem": state.slots}
                record.between.append({name: each.numpy() for name, each in seen.items()})
            before = state.memory
        columns.append(rows)
    for name in columns[0][0]:
        record.arrays[name] = np.stack([np.stack([row[name] for row in rows]) for rows in columns], 1)
    record.arrays["frames_u8"] = frames
    return record


def _of_frame(said: StreamedFrame, state: StreamState, memory: Memory | None) -> dict[str, np.ndarray]:
    """One frame's arrays; `memory` is that before it."""
    maps = {"pts_self": said.points_camera, "conf_self": said.confidence_camera}
    maps |= {"pts_world": said.points_world, "conf_world": said.confidence_world}
    quaternion = np.roll(quaternions_from_matrices(said.world_from_camera[:3, :3]), 1)
    pose = np.concatenate([said.world_from_camera[:3, 3], quaternion * np.copysign(1, quaternion[0])])
    decided = {"n_added": said.pointers, "threshold": np.nan, "margin": np.nan, "nn_gap": np.nan}
    if memory:
        decided = {"n_added": said.pointers - len(memory), **_decisions(memory, state.patches)}
    return {**maps, **decided, "ptr_count": said.pointers, "camera_pose": pose, "img_pos": state.patches.numpy()}


def _decisions(memory: Memory, patches: Tensor) -> dict[str, float]:
    """The threshold between old and new for a frame's patches (N, 3), and how far they stay from another decision."""
    frame = Candidates(patches, torch.zeros(len(patches), 1), torch.ones(len(patches)))
    near_enough = threshold(memory, frame, ORIGINAL)
    distances = torch.cdist(patches, memory.positions, compute_mode="donot_use_mm_for_euclid_dist")
    first, second = distances.topk(2, largest=False).values.T / near_enough
    merged = first < 1
    gap = (second - first)[merged].min() if merged.any() else 9.0
    return {"threshold": float(near_enough), "margin": float((first - 1).abs().min()), "nn_gap": float(gap)}


def check_keys(folder: Path) -> Iterator[Row]:
    """`full512_keys.txt`: names and shapes of the published network, second names included."""
    path = folder / "full512_keys.txt"
    if not path.is_file():
        yield absent(path.name)
        return
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    published = {name: tuple(map(int, shape.split("x"))) for name, shape in lines}
    ours = shapes_of(Point3RConfig())
    ours |= {second: ours[first] for second, first in tied_names(ours).items()}
    wrong = [name for name in ours.keys() | published.keys() if ours.get(name) != published.get(name)]
    yield count("full512_keys.txt", sorted(wrong), len(published), of="names and shapes")


def check_streams(folder: Path) -> Iterator[Row]:
    """`tiny_dpt_CASE.npz` and `tiny_linear_CASE.npz`: whole streams, in each way of turning that was recorded."""
    for network in ("tiny_dpt", "tiny_linear"):
        paths = [path for path in sorted(folder.glob(f"{network}_*.npz")) if not path.stem.endswith("_trace")]
        if not paths or not (folder / f"{network}.json").is_file():
            yield absent(network)
            continue
        fields = json.loads((folder / f"{network}.json").read_text(encoding="utf-8"))
        yield count(f"{network}.json", _contradicted(fields), len(fields))
        state = load_file(folder / "tiny_dpt.safetensors")
        if network == "tiny_linear":
            state = {name: each for name, each in state.items() if not name.startswith("downstream_head.")}
            state |= load_file(folder / "tiny_linear_head.safetensors")
        net = WatchedNet.from_state(config_of(fields), state)
        for path in paths:
            yield from guarded(path.stem, partial(_stream, net, path))


def check_formula(folder: Path) -> Iterator[Row]:
    """`NAME_hash.json` and `.npz`: networks whose weights follow the formula; the published one needs 3.4 GB."""
    paths = sorted(folder.glob("*_hash.json"))
    if not paths:
        yield absent("full512_hash.json")
    for path in paths:
        yield from guarded(path.stem, partial(_formula, path))
        gc.collect()


def _formula(path: Path) -> Iterator[Row]:
    fields = json.loads(path.read_text(encoding="utf-8"))
    config, arrays = config_of(fields), Arrays(path.with_suffix(".npz"))
    state = hashed_state(shapes_of(config), fields["salt"], fields["gains"])
    for name in (name for name in arrays if name.startswith("probe__")):
        weight = state[name.removeprefix("probe__")].flatten()[: len(arrays[name])]
        yield near(f"{arrays.label} {name}", weight, arrays[name], FORMULA)
    net = WatchedNet.from_state(config, state)
    del state
    yield from _compared(net, arrays, None)


def _stream(net: WatchedNet, path: Path) -> Iterator[Row]:
    trace = path.with_name(f"{path.stem}_trace.npz")
    yield from _compared(net, Arrays(path), Arrays(trace) if trace.is_file() else None)


def _compared(net: WatchedNet, arrays: Arrays, trace: Arrays | None) -> Iterator[Row]:
    """A row for each array that was recorded of a set of streams, in one way of turning and, if recorded, the other."""
    frames, ours = arrays["frames_u8"], {}
    if any(name.endswith(HALF) for name in arrays):
        ours = {f"{name}{HALF}": each for name, each in stream_record(net, frames, half=True).arrays.items()}
    record = stream_record(net, frames)
    ours |= record.arrays
    between = [{**seen, **samples(seen)} for seen in record.between]
    ours |= {f"f{t}_{name}": each for t, seen in enumerate(between) for name, each in seen.items()}
    for name in arrays:
        if name != "frames_u8" and not name.startswith("probe__"):
            yield _row(f"{arrays.label} {name}", name, ours, arrays[name])
    if trace:
        ours = {f"f{t}_{name}": each for t, seen in enumerate(record.between) for name, each in seen.items()}
        for name in trace:
            yield _row(f"{trace.label} {name}", name, ours, trace[name])


def samples(seen: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is recorded of a large network's frame: every 16th channel, and row of the pose memory."""
    return {
        "enc_sample": seen["enc"][0, :, ::16],
        "dec_last_sample": seen["dec_last"][0, :, ::16],
        "geo_sample": seen["geo_feat"][0, :, ::16],
        "pose_in": seen["pose_in"].ravel(),
        "img_mem_sample": seen["img_mem"][0, ::16, ::16],
    }


def _row(label: str, name: str, ours: Mapping[str, np.ndarray], theirs: np.ndarray) -> Row:
    if name not in ours:
        return Row(label, False, note="the network has nothing of this name")
    kind = name.removesuffix(HALF)
    looser = HALF_NOISE if name.endswith(HALF) else 1
    if kind in COUNTS:
        return near(label, ours[name], theirs, 0)
    if kind in NUMBERS or kind in MARGINS:
        return near(label, ours[name], theirs, looser * (NUMBER if kind in NUMBERS else MARGIN))
    size = float(np.nanmean(np.abs(theirs))) or 1.0
    return near(label, np.asarray(ours[name]) / size, theirs / size, looser * POINTS)


def config_of(fields: Mapping[str, Any]) -> Point3RConfig:
    """The configuration of a recorded network."""
    value, dpt = fields["value_encoder"], fields.get("dpt", {})
    sizes = {name: fields[name] for name in Point3RConfig.__dataclass_fields__ if name in fields and name != "img_size"}
    sizes |= {"value_depth": value["depth"], "value_num_heads": value["heads"]}
    if dpt:
        sizes |= {"dpt_feature_dim": dpt["feature_dim"], "dpt_last_dim": dpt["feature_dim"] // 2}
        sizes |= {"dpt_layer_dims": tuple(dpt["layer_dims"])}
    return Point3RConfig(**sizes, head=fields["head_type"])


def _contradicted(fields: Mapping[str, Any]) -> list[str]:
    """What the network has as a constant, and the recorded one otherwise."""
    config, value = config_of(fields), fields["value_encoder"]
    shapes = shapes_of(config)
    ours = {
        "layernorm_eps": Point3RNet(config).enc_norm.eps,
        "rope2d_base": config.rope_base,
        "rope3d_bases": list(BASES),
        "fusion_divisor": round(1 / ORIGINAL.near),
        "depth_mode": "exp",
        "conf_mode": "exp, vmin=1",
        "pose_mode": "exp",
        "retriever_heads": config.dec_num_heads,
        "n_params": sum(math.prod(shape) for shape in shapes.values()),
        "n_state_keys": len(shapes.keys() | tied_names(shapes)),
    }
    wrong = [name for name, own in ours.items() if name in fields and fields[name] != own]
    return wrong + [f"value_encoder.{name}" for name in ("dim", "out") if value[name] != config.enc_embed_dim]
