"""The unknowns of an alignment, which of them are known already, and the linear system over all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..wire import UserError
from .linear import Band, Banded, Dense
from .normal import LOCAL, Normal, relative
from .start import State

#: Fewer unknowns than this are solved by a dense system, on a graphics card and on a processor.
LEAST_BANDED = (6000, 1200)
#: More unknowns than this, which meet each other all over, are too many: 3.2 GB.
MOST_DENSE = 20_000
#: Weight that holds the mean log scale, which nothing measures, where it is.
HOLD = 1.0


@dataclass(frozen=True)
class Knowns:
    """What is given and kept. All of T frames; None where nothing is known.

    `focal_px` (T,) float64; `camera_from_world` (T, 4, 4) float64, NaN where a pose is not known; `per_frame_focal`
    has each frame a focal length of its own, held to its neighbours by `focal_steadiness` (the standard deviation of
    the change of its logarithm from frame to frame); `centre` is the principal point, None for (W/2, H/2); `locked`
    says that the camera does not move at all.
    """

    focal_px: torch.Tensor | None = None
    camera_from_world: torch.Tensor | None = None
    per_frame_focal: bool = False
    focal_steadiness: float = 0.003
    locked: bool = False
    centre: tuple[float, float] | None = None


#: Everything is to be solved.
NOTHING_KNOWN = Knowns()


class Unknowns:
    """Where each unknown stands in the vector of all: T poses of 6, E log scales, then log focal lengths.

    What is known stands at `count`, one past the end, and is cut off.
    """

    def __init__(self, edges: torch.Tensor, frame_count: int, knowns: Knowns) -> None:
        device = edges.device
        self.edges, self.frame_count, self.knowns = edges, frame_count, knowns
        pairs = len(edges)
        met = torch.bincount(edges.flatten(), minlength=frame_count)
        free_pose = met > 0
        known_poses = 0
        if knowns.camera_from_world is not None:
            known = free_pose & torch.isfinite(knowns.camera_from_world).all(-1).all(-1).to(device)
            known_poses = int(known.sum())
            free_pose &= ~known
        if knowns.locked:
            free_pose[:] = False
        elif not known_poses:
            free_pose[met.argmax()] = False  # the origin
        free_focal = knowns.focal_px is None
        lenses = frame_count if knowns.per_frame_focal else 1
        self.count = int(free_pose.sum()) * 6 + pairs + (lenses if free_focal else 0)
        self.scales_float = known_poses < 2

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
        self.band = self._band()

    def _plan_frames(self) -> None:
        """Of each frame that has pairs: the pairs, on which side of them it stands, its unknowns, and their places."""
        device = self.edges.device
        edges, of_pair = self.edges.cpu(), self.of_pair.cpu()
        self.frames = []
        for n in range(self.frame_count):
            pair, side = torch.nonzero(edges == n, as_tuple=True)
            if not len(pair):
                continue
            columns, places = torch.unique(of_pair[pair], return_inverse=True)
            places = places[:, None].expand(-1, LOCAL, -1).contiguous()
            self.frames.append((n, *(a.to(device) for a in (pair, side, columns, places))))

    def _band(self) -> Band | None:
        """The order by frames, where it makes a band that is much smaller than the whole; else None."""
        device = self.edges.device
        if self.count < LEAST_BANDED[device.type == "cpu"]:
            return None
        frame = torch.full((self.count + 1,), self.frame_count, device=device)  # a common lens, and what is dropped
        frame[self.pose.flatten()] = torch.arange(self.frame_count, device=device).repeat_interleave(6)
        frame[self.scale] = self.edges.max(dim=1).values
        if self.knowns.per_frame_focal:
            frame[self.lens] = torch.arange(self.frame_count, device=device)
        frame[self.count] = self.frame_count
        inner = int((frame[:-1] < self.frame_count).sum())
        place = torch.empty_like(frame)
        place[torch.argsort(frame[:-1], stable=True)] = torch.arange(self.count, device=device)
        place[self.count] = self.count
        width = 0
        for _, _, _, columns, _ in self.frames:
            within = place[columns]
            within = within[within < inner]
            width = max(width, int(within.max() - within.min())) if len(within) else width
        band = Band(place, inner, width)
        if 3 * band.stored < self.count**2:
            return band
        if self.count > MOST_DENSE:
            raise UserError(
                f"{self.frame_count} frames are too many for pairs that reach over the whole clip",
                "use fewer frames, or compare neighbours only, and not in a circle",
            )
        return None

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
        matrix = Dense(self.count, m.device) if self.band is None else Banded(self.band)
        g = torch.zeros(self.count + 1, dtype=torch.float64, device=m.device)
        index = self.of_pair
        for part in torch.arange(len(index), device=m.device).split(512):
            some, own = index[part], m[part]
            matrix.add(some[:, :, None], some[:, None, :], own.mT @ normal.h[part] @ own)
        g.index_put_((index,), (m.mT @ normal.g[..., None])[..., 0], accumulate=True)
        inverse_depth = torch.where(normal.h_depth > 0, 1 / (normal.h_depth * (1 + damping) + 1e-12), 0.0)
        chain = m.float()
        for n, pair, side, columns, places in self.frames:
            spread = torch.zeros(len(pair), LOCAL, len(columns), device=m.device)
            spread.scatter_add_(2, places, chain[pair])
            cross = normal.cross[pair, side].movedim(0, 1).flatten(1)  # (P, pairs of the frame x 9)
            coupling = cross @ spread.flatten(0, 1)
            scaled = coupling * inverse_depth[n][:, None]
            matrix.add(columns[:, None], columns[None, :], -(coupling.mT @ scaled).double())
            g.index_put_((columns,), -(scaled.mT @ normal.g_depth[n]).double(), accumulate=True)
        held = None
        if self.scales_float:
            held = torch.zeros(self.count, dtype=torch.float64, device=m.device)
            held[self.scale] = float(HOLD * matrix.diagonal()[self.scale].mean()) ** 0.5 / len(self.scale)
        self._steady_lens(matrix, g, state)
        return System(matrix, g[: self.count], held, m, inverse_depth)

    def _steady_lens(self, matrix: Dense | Banded, g: torch.Tensor, state: State) -> None:
        if not (self.knowns.per_frame_focal and self.knowns.focal_px is None):
            return
        weight = self.knowns.focal_steadiness**-2
        a, b = self.lens[:-1], self.lens[1:]
        change = (state.log_focal[1:] - state.log_focal[:-1]) * weight
        on = torch.full_like(change, weight)
        for row, column, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            matrix.add(row, column, sign * on)
        g.index_put_((a,), -change, accumulate=True)
        g.index_put_((b,), change, accumulate=True)

    def moved(self, state: State, step: torch.Tensor, system: System, normal: Normal) -> State:
        """The state after a step (count,) of the unknowns; depths follow."""
        padded = torch.cat([step, step.new_zeros(1)])
        pose = motion(padded[self.pose]) @ state.camera_from_world
        own = (system.chain @ padded[self.of_pair][..., None]).float()[:, None]  # (E, 1, 9, 1)
        by_step = (normal.cross @ own)[..., 0]
        pull = normal.g_depth.clone()
        for side in (0, 1):
            pull.index_add_(0, self.edges[:, side], by_step[:, side])
        return replace(
            state,
            camera_from_world=pose,
            log_scale=state.log_scale + padded[self.scale],
            log_focal=state.log_focal + padded[self.lens],
            log_depth=state.log_depth - (pull * system.inverse_depth).clamp(-1, 1),
        )


@dataclass(frozen=True)
class System:
    """(H + v v^T) step = -g, with what is needed to find the depths again: see `Unknowns.moved`.

    v (n,) is `held`, the one direction that only a hold on it fixes, or None.
    """

    matrix: Dense | Banded
    g: torch.Tensor
    held: torch.Tensor | None
    chain: torch.Tensor
    inverse_depth: torch.Tensor

    def step(self, damping: float) -> torch.Tensor | None:
        """The damped step (Levenberg and Marquardt), None where the system is not positive definite."""
        diagonal = self.matrix.diagonal().abs()
        shift = diagonal * damping + 1e-9 * diagonal.mean()
        if self.held is None:
            found = self.matrix.solve(shift, -self.g[:, None])
            return None if found is None else found[:, 0]
        found = self.matrix.solve(shift, torch.stack([-self.g, self.held], dim=1))
        if found is None:
            return None
        step, along = found.T  # Sherman and Morrison
        return step - along * (self.held @ step) / (1 + self.held @ along)


def motion(twist: torch.Tensor) -> torch.Tensor:
    """(T, 4, 4) rigid motions of twists (T, 6), translation first, by the exponential map."""
    matrix = torch.zeros(*twist.shape[:-1], 4, 4, dtype=twist.dtype, device=twist.device)
    v, w = twist[..., :3], twist[..., 3:]
    x, y, z = w.unbind(-1)
    matrix[..., 0, 1], matrix[..., 0, 2], matrix[..., 1, 2] = -z, y, -x
    matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1] = z, -y, x
    matrix[..., :3, 3] = v
    return torch.linalg.matrix_exp(matrix)
