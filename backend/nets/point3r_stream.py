"""Frames pushed one at a time through the streaming network; what it remembers of them is all that stays on the device.

Facts sheet of Point3R, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..geometry.rigid import matrices_from_quaternions, poses_from
from ..streaming.frames import StreamedFrame
from ..streaming.fusion import ORIGINAL, Candidates, FusionOptions, Memory, forget, fuse, readable
from ..streaming.sight import Sight, sight_of_points
from ..wire import UserError
from .point3r import Point3RNet
from .point3r_heads import FrameMaps
from .precision import EXACT, Precision
from .predict import network_input


@dataclass(frozen=True)
class StreamState:
    """What stays of `frames` pictures of a size (height, width).

    `slots` (1, S, 2 C) are the pose memory, `patches` (T, 3) where the last frame's patches are in the world.
    """

    frames: int
    size: tuple[int, int]
    slots: Tensor
    patches: Tensor
    memory: Memory


class Point3RStream:
    """A `FrameStream` of a network, which is moved to `device` and brought to `precision`.

    `state` is None before the first frame.
    """

    def __init__(
        self,
        network: Point3RNet,
        options: FusionOptions = ORIGINAL,
        precision: Precision = EXACT,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device, self.options = torch.device(device), options
        self.network = network.calculating(precision).to(self.device)
        self.state: StreamState | None = None

    @torch.inference_mode()
    def push(self, rgb: np.ndarray) -> StreamedFrame:
        """The result for the next frame (H, W, 3) uint8.

        Raises ValueError where its size is not that of the first, and UserError where the network's answer is not made
        of numbers; the stream is then as before.
        """
        net, state, size = self.network, self.state, rgb.shape[:2]
        if state and size != state.size:
            raise ValueError(f"a frame of {size} in a stream of {state.size} (height, width)")
        retriever, grid = net.pose_retriever, net.config.grid(*size)
        tokens = net.encode(network_input(rgb[None], self.device))
        with net.precision.applied():
            picture = retriever.picture(tokens)
            slots = state.slots if state else retriever.mem
            pose = retriever.read(slots, picture) if state else net.pose_token
        if state:
            read = readable(state.memory, state.patches, self.options)
            decoded = net.later(tokens, pose, read.features, net.placed(state.patches, read.positions))
        else:
            decoded = net.first(tokens)
        with net.precision.applied():
            slots = retriever.write(slots, picture, decoded.pose)
        maps = net.heads(decoded, grid)
        patches = net.patch_means(maps.points_world)
        confidence = net.patch_means(maps.confidence_world[..., None])[:, 0]
        candidates = Candidates(patches, net.remembered(tokens, decoded, maps.points_world), confidence)
        if state:
            memory = fuse(state.memory, candidates, self.options)
            memory = forget(memory, self._sight(maps, confidence), self.options) if self.options.life else memory
        else:
            memory = Memory.of(candidates, self.options)
        index = state.frames if state else 0
        frame = _on_host(index, maps, len(memory))
        self.state = StreamState(index + 1, size, slots, patches, memory)
        return frame

    def pointers(self) -> np.ndarray:
        """(P, 3) float32: where the memory has something, in the stream's world."""
        return self.state.memory.positions.float().cpu().numpy() if self.state else np.zeros((0, 3), np.float32)

    def save(self) -> Mapping[str, np.ndarray]:
        """The state after the frames so far as plain arrays; empty before the first."""
        if self.state is None:
            return {}
        s, memory = self.state, self.state.memory
        saved = {"frames": np.int64(s.frames), "size": np.array(s.size, np.int64)}
        saved |= {name: getattr(s, name).cpu().numpy().copy() for name in ("slots", "patches")}
        return saved | {f"memory.{f.name}": getattr(memory, f.name).cpu().numpy().copy() for f in fields(memory)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a saved state. Raises ValueError when it is not one of this network's."""
        if not state:
            self.reset()
            return
        try:
            made = {name: torch.tensor(np.asarray(state[name]), device=self.device) for name in ("slots", "patches")}
            memory = {f.name: torch.tensor(np.asarray(state[f"memory.{f.name}"])) for f in fields(Memory)}
            height, width = (int(n) for n in state["size"])
            restored = StreamState(
                int(state["frames"]), (height, width), **made, memory=Memory(**memory).to(self.device)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a stream ({error})") from error
        if wrong := self._unlike(restored):
            raise ValueError(f"not the state of a stream of this network: {wrong}")
        self.state = restored

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a new world."""
        self.state = None

    def _sight(self, maps: FrameMaps, confidence: Tensor) -> Sight:
        """What a frame sees, by its points alone; where it is as little sure as of its doubtful patches, nothing."""
        least = torch.quantile(confidence.float(), self.options.doubtful)
        return sight_of_points(maps.points_camera[0], maps.points_world[0], maps.confidence_world[0], least)

    def _unlike(self, state: StreamState) -> str:
        """What in a state does not fit the network; '' if it fits."""
        c, memory = self.network.config, state.memory
        rows, columns = c.grid(*state.size)
        wanted = {
            "slots": (state.slots, tuple(self.network.pose_retriever.mem.shape)),
            "patches": (state.patches, (rows * columns, 3)),
            "positions": (memory.positions, (len(memory), 3)),
            "features": (memory.features, (len(memory), c.dec_embed_dim)),
            "confidence": (memory.confidence, (len(memory),)),
        }
        shapes = (
            f"{name} {tuple(t.shape)} instead of {shape}" for name, (t, shape) in wanted.items() if t.shape != shape
        )
        kinds = (f"{name} in {t.dtype}" for name, (t, _) in wanted.items() if t.dtype != torch.float32)
        return next(shapes, "") or next(kinds, "")


def _on_host(index: int, maps: FrameMaps, pointers: int) -> StreamedFrame:
    """One frame's maps as they leave the device. Raises UserError where they are not made of numbers."""
    names = ("points_camera", "confidence_camera", "points_world", "confidence_world", "pose")
    arrays = {name: getattr(maps, name)[0].cpu().numpy() for name in names}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(
            f"The network gave no numbers for frame {index}", "choose full precision, or download the weights again"
        )
    pose = arrays.pop("pose").astype(np.float64)
    rotation = matrices_from_quaternions(pose[[4, 5, 6, 3]])
    return StreamedFrame(index, **arrays, world_from_camera=poses_from(rotation, pose[:3]), pointers=pointers)
