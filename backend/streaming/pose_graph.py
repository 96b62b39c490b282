"""Frames tied to each other by how one stands to the other, and the similarities of all that fit these ties best.

A node takes points in a frame's camera, as its depth has them, to the world: a camera, and a scale for its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from ..geometry.rigid import Similarity

#: Rounds at most, and the step (7 numbers of any node) below which they end.

ROUNDS, ENOUGH = 40, 1e-6
#: A tie that misses by so many standard deviations counts half.
LOOSE = 3.0


@dataclass(frozen=True)
class Tie:
    """Frame j's points in camera i, in i's unit, are `i_from_j` of them; standard deviations of log scale, turn
    (radians) and shift (in i's unit) are `noise` (3,)."""

    i: int
    j: int
    i_from_j: Similarity
    noise: tuple[float, float, float]


@dataclass(frozen=True)
class Nodes:
    """N similarities, world from camera: `log_scale` (N,), `rotation` (N, 3, 3), `shift` (N, 3)."""

    log_scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, many: Sequence[Similarity]) -> Nodes:
        return cls(
            np.log([s.scale for s in many]),
            np.stack([s.rotation for s in many]),
            np.stack([np.asarray(s.translation, np.float64) for s in many]),
        )

    def __getitem__(self, index) -> Nodes:
        return Nodes(self.log_scale[index], self.rotation[index], self.shift[index])

    def similarity(self, n: int) -> Similarity:
        """One of them."""
        return Similarity(float(np.exp(self.log_scale[n])), self.rotation[n], self.shift[n])

    def after(self, first: Nodes) -> Nodes:
        """The similarities that apply `first` and then these."""
        scale = np.exp(self.log_scale)[:, None]
        moved = scale * np.einsum("nab,nb->na", self.rotation, first.shift) + self.shift
        return Nodes(self.log_scale + first.log_scale, self.rotation @ first.rotation, moved)

    def inverse(self) -> Nodes:
        back = np.swapaxes(self.rotation, -1, -2)
        return Nodes(
            -self.log_scale, back, -np.exp(-self.log_scale)[:, None] * np.einsum("nab,nb->na", back, self.shift)
        )

    def vectors(self) -> np.ndarray:
        """(N, 7) log scale, turn, shift."""
        turn = Rotation.from_matrix(self.rotation).as_rotvec()
        return np.concatenate([self.log_scale[:, None], turn, self.shift], axis=1)

    def stepped(self, step: np.ndarray) -> Nodes:
        """After a step (N, 7) in each one's own axes."""
        turn = Rotation.from_rotvec(step[:, 1:4]).as_matrix()
        return self.after(Nodes(step[:, 0], turn, step[:, 4:]))


def solve_graph(start: Nodes, ties: Sequence[Tie]) -> tuple[Nodes, np.ndarray]:
    """The nodes that fit the ties best, and (M,) by how many standard deviations each tie misses.

    Node 0 stays where it is, as do nodes without a tie. Gauss-Newton with Cauchy weights, so that a tie which
    contradicts the others counts little.
    """
    if not ties:
        return start, np.zeros(0)
    i, j = np.array([t.i for t in ties]), np.array([t.j for t in ties])
    measured = Nodes.of([t.i_from_j for t in ties])
    weight = 1 / np.repeat(np.array([t.noise for t in ties]), (1, 3, 3), axis=1)
    nodes, count, damping = start, len(start.log_scale), 1e-9
    value, step_of = _cost(nodes, i, j, measured, weight)
    for _ in range(ROUNDS):
        matrix, gradient = step_of(count)
        matrix = matrix.tocsc()[7:, 7:]
        own = matrix.diagonal()
        damped = matrix + sparse.diags(np.where(own > 0, damping * own, 1.0))
        step = np.r_[np.zeros(7), -spsolve(damped, gradient[7:])].reshape(count, 7)
        trial = nodes.stepped(step)
        trial_value, trial_step_of = _cost(trial, i, j, measured, weight)
        if trial_value < value:
            nodes, value, step_of = trial, trial_value, trial_step_of
            damping = max(damping / 10, 1e-9)
            if np.abs(step).max() < ENOUGH:
                break
        else:
            damping = max(damping, 1e-7) * 10
            if damping > 1e6:
                break
    return nodes, np.sqrt(_missed(nodes, i, j, measured, weight)[2])


def _missed(nodes: Nodes, i, j, measured: Nodes, weight: np.ndarray) -> tuple[Nodes, np.ndarray, np.ndarray]:
    """By how much each tie misses, the same as (M, 7) in standard deviations, and (M,) the mean square of these."""
    error = measured.inverse().after(nodes[i].inverse().after(nodes[j]))
    off = error.vectors() * weight
    return error, off, (off**2).mean(1)


def _cost(nodes: Nodes, i, j, measured: Nodes, weight: np.ndarray):
    """The cost of the nodes, and what gives the normal equations there."""
    error, off, square = _missed(nodes, i, j, measured, weight)
    robust = 1 / (1 + square / LOOSE**2)

    def normal(count: int):
        # What is off, E = Z^-1 X_i^-1 X_j, becomes E (step of j), and (Z^-1 (step of i)^-1 Z) E.
        by_j = np.zeros((len(i), 7, 7)) + np.eye(7)
        by_j[:, 4:, 4:] = np.exp(error.log_scale)[:, None, None] * error.rotation
        before = np.zeros((len(i), 7, 7)) + np.eye(7)
        before[:, 4:, 0], before[:, 4:, 1:4] = error.shift, -_cross(error.shift)
        by_j = by_j * weight[:, :, None]
        by_i = -(before @ _seen_through(measured.inverse())) * weight[:, :, None]
        rows = np.concatenate([by_i, by_j], axis=2)
        blocks = np.einsum("mra,m,mrb->mab", rows, robust, rows)
        pull = np.einsum("mra,m,mr->ma", rows, robust, off)
        place = np.concatenate([7 * i[:, None] + np.arange(7), 7 * j[:, None] + np.arange(7)], axis=1)
        row, column = (np.broadcast_to(a, blocks.shape).reshape(-1) for a in (place[:, :, None], place[:, None, :]))
        matrix = sparse.coo_matrix((blocks.reshape(-1), (row, column)), (7 * count, 7 * count))
        return matrix, np.bincount(place.reshape(-1), pull.reshape(-1), 7 * count)

    return float(np.log1p(square / LOOSE**2).sum()), normal


def _seen_through(m: Nodes) -> np.ndarray:
    """(M, 7, 7) the small step M (step) M^-1, linear in the step."""
    seen = np.zeros((len(m.log_scale), 7, 7))
    seen[:, 0, 0] = 1
    seen[:, 1:4, 1:4] = m.rotation
    seen[:, 4:, 0] = -m.shift
    seen[:, 4:, 1:4] = _cross(m.shift) @ m.rotation
    seen[:, 4:, 4:] = np.exp(m.log_scale)[:, None, None] * m.rotation
    return seen


def _cross(v: np.ndarray) -> np.ndarray:
    """(M, 3, 3) that multiply as the cross product with (M, 3) does."""
    (x, y, z), zero = v.T, np.zeros(len(v))
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
