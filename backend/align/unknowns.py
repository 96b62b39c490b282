"""The unknowns of an alignment, which of them are known already, and the linear system over all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .normal import LOCAL, Normal, relative
from .start import State

#: Weight that holds the mean log scale, which nothing measures, where it is.
HOLD = 1.0


@dataclass(frozen=True)
class Knowns:
    """What is given and kept. All of T frames; None where nothing is known.

    `focal_px` (T,) float64; `camera_from_world` (T, 4, 4) float64, NaN where a pose is not known; `per_frame_focal`
    has each frame a focal length of its own, held to its neighbours by `focal_steadiness` (the standard deviation of
    the change of its logarithm from frame to frame); `locked` says that the camera does not move at all.
    """

    focal_px: torch.Tensor | None = None
    camera_from_world: torch.Tensor | None = None
    per_frame_focal: bool = False
    focal_steadiness: float = 0.003
    locked: bool = False


class Unknowns:
    """Where each unknown stands in the vector of all: T poses of 6, E log scales, then log focal lengths.

    What is known stands at `count`, one past the end, and is cut off.
    """

    def __init__(self, edges: torch.Tensor, frame_count: int, knowns: Knowns) -> None:
        device = edges.device
        self.edges, self.frame_count, self.knowns = edges, frame_count, knowns
        pairs = len(edges)
        free_pose = torch.ones(frame_count, dtype=torch.bool, device=device)
        if knowns.locked:
            free_pose[:] = False
        elif knowns.camera_from_world is not None:
            free_pose = ~torch.isfinite(knowns.camera_from_world).all(-1).all(-1).to(device)
        else:
            free_pose[torch.bincount(edges.flatten(), minlength=frame_count).argmax()] = False  # the origin
        free_focal = knowns.focal_px is None
        lenses = frame_count if knowns.per_frame_focal else 1
        self.count = int(free_pose.sum()) * 6 + pairs + (lenses if free_focal else 0)
        self.scales_float = knowns.camera_from_world is None or int((~free_pose).sum()) < 2

        self.pose = torch.full((frame_count, 6), self.count, device=device)
        self.pose[free_pose] = torch.arange(int(free_pose.sum()) * 6, device=device).reshape(-1, 6)
        self.scale = int(free_pose.sum()) * 6 + torch.arange(pairs, device=device)
        first = int(free_pose.sum()) * 6 + pairs
        self.lens = torch.full((frame_count,), self.count, device=device)
        if free_focal:
            self.lens = first + (
                torch.arange(frame_count, device=device) if lenses > 1 else torch.zeros_like(self.lens)
            )
        i, j = edges.T
        #: (E, 15) where the unknowns of each pair stand: pose of i, pose of j, scale, lens of i, lens of j.
        self.of_pair = torch.cat(
            [self.pose[i], self.pose[j], self.scale[:, None], self.lens[i][:, None], self.lens[j][:, None]], 1
        )
        self._plan_frames()

    def _plan_frames(self) -> None:
        """Which (pair, side) touch each frame, and where their unknowns stand among those of that frame."""
        device = self.edges.device
        frame = self.edges.flatten().cpu()  # entry 2 e + side
        order = torch.argsort(frame, stable=True)
        counts = torch.bincount(frame, minlength=self.frame_count)
        widest = int(counts.max())
        slot = torch.arange(len(frame)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        entries = torch.full((self.frame_count, widest), -1)
        entries[frame[order], slot] = order
        of_pair = self.of_pair.cpu()
        columns, places = [], []
        for n in range(self.frame_count):
            mine = entries[n]
            mine = mine[mine >= 0]
            unique, inverse = torch.unique(of_pair[mine // 2], return_inverse=True)
            columns.append(unique)
            places.append(inverse)
        longest = max(len(c) for c in columns)
        self.columns = torch.full((self.frame_count, longest), self.count)
        self.places = torch.zeros(self.frame_count, widest, 15, dtype=torch.long)
        for n, (unique, inverse) in enumerate(zip(columns, places)):
            self.columns[n, : len(unique)] = unique
            self.places[n, : len(inverse)] = inverse.reshape(-1, 15)
        self.entries, self.columns, self.places = (a.to(device) for a in (entries, self.columns, self.places))

    def chain(self, state: State) -> torch.Tensor:
        """(E, 9, 15) from the unknowns of a pair's poses, scale and lenses to its own nine."""
        rotation, shift = relative(state, self.edges)
        pairs = len(self.edges)
        m = torch.zeros(pairs, LOCAL, 15, dtype=torch.float64, device=self.edges.device)
        x, y, z = shift.T
        none = torch.zeros_like(x)
        cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], -1).reshape(-1, 3, 3)
        m[:, :3, :3] = m[:, 3:6, 3:6] = -rotation
        m[:, :3, 3:6] = -cross @ rotation
        m[:, :6, 6:12] = torch.eye(6, dtype=torch.float64, device=m.device)
        m[:, 6:, 12:] = torch.eye(3, dtype=torch.float64, device=m.device)
        return m

    def assemble(self, normal: Normal, state: State, damping: float) -> System:
        """The system over all unknowns, with the depth of each pixel eliminated."""
        m = self.chain(state)
        size = self.count + 1
        h = torch.zeros(size, size, dtype=torch.float64, device=m.device)
        g = torch.zeros(size, dtype=torch.float64, device=m.device)
        index = self.of_pair
        h.index_put_((index[:, :, None], index[:, None, :]), m.mT @ normal.h @ m, accumulate=True)
        g.index_put_((index,), (m.mT @ normal.g[..., None])[..., 0], accumulate=True)
        inverse_depth = torch.where(normal.h_depth > 0, 1 / (normal.h_depth * (1 + damping) + 1e-12), 0.0)
        cross = (normal.cross @ m.float()[:, None]).flatten(0, 1)  # (2 E, P, 15)
        coupling = []
        for n in range(self.frame_count):
            mine = self.entries[n][self.entries[n] >= 0]
            if not len(mine):
                coupling.append(None)
                continue
            place = self.places[n, : len(mine)]
            columns = self.columns[n]
            spread = torch.zeros(len(mine), 15, len(columns), device=m.device)
            spread.scatter_(2, place[..., None], 1.0)
            c = torch.einsum("kpa,kal->pl", cross[mine], spread)
            scaled = c * inverse_depth[n][:, None]
            h.index_put_((columns[:, None], columns[None, :]), -(c.mT @ scaled).double(), accumulate=True)
            g.index_put_((columns,), -(scaled.mT @ normal.g_depth[n]).double(), accumulate=True)
            coupling.append(c)
        h, g = h[: self.count, : self.count], g[: self.count]
        if self.scales_float:
            at = self.scale
            mean = torch.zeros(self.count, dtype=torch.float64, device=m.device)
            mean[at] = 1 / len(at)
            h = h + HOLD * float(h.diagonal()[at].mean()) * torch.outer(mean, mean)
        self._steady_lens(h, g, state)
        return System(h, g, coupling, inverse_depth, normal.g_depth)

    def _steady_lens(self, h: torch.Tensor, g: torch.Tensor, state: State) -> None:
        if not (self.knowns.per_frame_focal and self.knowns.focal_px is None):
            return
        weight = self.knowns.focal_steadiness**-2
        a, b = self.lens[:-1], self.lens[1:]
        change = (state.log_focal[1:] - state.log_focal[:-1]) * weight
        on = torch.full_like(change, weight)
        for row, column, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            h.index_put_((row, column), sign * on, accumulate=True)
        g.index_put_((a,), -change, accumulate=True)
        g.index_put_((b,), change, accumulate=True)

    def moved(self, state: State, step: torch.Tensor, system: System) -> State:
        """The state after a step (count,) of the unknowns; depths follow."""
        padded = torch.cat([step, step.new_zeros(1)])
        pose = motion(padded[self.pose]) @ state.camera_from_world
        depth = state.log_depth.clone()
        for n, c in enumerate(system.coupling):
            if c is not None:
                by_step = (c.double() @ padded[self.columns[n]]).float()
                depth[n] -= ((system.g_depth[n] + by_step) * system.inverse_depth[n]).clamp(-1, 1)
        return replace(
            state,
            camera_from_world=pose,
            log_scale=state.log_scale + padded[self.scale],
            log_focal=state.log_focal + padded[self.lens],
            log_depth=depth,
        )


@dataclass(frozen=True)
class System:
    """H step = -g, with what is needed to find the depths again: see `Unknowns.moved`."""

    h: torch.Tensor
    g: torch.Tensor
    coupling: list[torch.Tensor | None]
    inverse_depth: torch.Tensor
    g_depth: torch.Tensor

    def step(self, damping: float) -> torch.Tensor | None:
        """The damped step (Levenberg and Marquardt), None where the system is not positive definite."""
        diagonal = self.h.diagonal()
        damped = self.h + torch.diag(diagonal.abs() * damping + 1e-9 * diagonal.abs().mean())
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            return None
        return -torch.cholesky_solve(self.g[:, None], factor)[:, 0]


def motion(twist: torch.Tensor) -> torch.Tensor:
    """(T, 4, 4) rigid motions of twists (T, 6), translation first, by the exponential map."""
    matrix = torch.zeros(*twist.shape[:-1], 4, 4, dtype=twist.dtype, device=twist.device)
    v, w = twist[..., :3], twist[..., 3:]
    x, y, z = w.unbind(-1)
    matrix[..., 0, 1], matrix[..., 0, 2], matrix[..., 1, 2] = -z, y, -x
    matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1] = z, -y, x
    matrix[..., :3, 3] = v
    return torch.linalg.matrix_exp(matrix)
