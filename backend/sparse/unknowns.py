"""Which unknowns of a sparse alignment are free, which are one, and the step that the normal equations ask for."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from .reduced import CENTRE, FOCAL, LOCAL, SIZE, Normal

#: Conjugate gradient steps at most, and the relative residual that is enough.
CG_STEPS, CG_ENOUGH = 40, 1e-2


class Unknowns:
    """The free ones among N cameras' LOCAL: poses but of `root` or known ones, sizes, lenses, principal points.

    All arguments are (N,) bool but `root`; with `shared` the lenses and principal points that are not known are one.
    """

    def __init__(self, frames, known_pose, root: int, known_focal, shared: bool, free_centre: bool) -> None:
        column = np.full((len(frames), LOCAL), -1)
        free = frames & ~known_pose
        if not (frames & known_pose).any():
            free[root] = False
        column[free, :6] = np.arange(6 * free.sum()).reshape(-1, 6)
        self.count = 6 * int(free.sum())
        self._give(column, frames, SIZE, False)
        self._give(column, frames & ~known_focal, FOCAL, shared)
        if free_centre:
            for k in range(CENTRE.start, CENTRE.stop):
                self._give(column, frames, k, shared)
        column = column.reshape(-1)
        rows = np.flatnonzero(column >= 0)
        #: (N * LOCAL, count) ones: what a free unknown moves.
        self.spread = sparse.csr_matrix((np.ones(len(rows)), (rows, column[rows])), (len(column), self.count))

    def _give(self, column: np.ndarray, frames: np.ndarray, place: int, shared: bool) -> None:
        number = int(frames.sum())
        column[frames, place] = self.count if shared else self.count + np.arange(number)
        self.count += min(number, 1) if shared else number

    def step(self, normal: Normal, damping: float) -> tuple[np.ndarray, np.ndarray] | None:
        """(N, LOCAL) and (N * anchors,) steps; None where the equations have no solution.

        By conjugate gradients, preconditioned by the system without what ties anchors to each other: that one is solved
        through the cameras alone.
        """
        eliminated = self.spread.T @ (self.spread.T @ normal.eliminated()).T
        damp = damping * eliminated.diagonal()
        eliminated[np.diag_indices_from(eliminated)] += damp
        try:
            factor = cho_factor(eliminated)
        except LinAlgError:
            return None
        cameras = self.spread.T @ (self.spread.T @ normal.cameras).T
        cameras[np.diag_indices_from(cameras)] += damp
        crossing = (normal.crossing @ self.spread).tocsr()
        back = crossing.T.tocsr()
        own = normal.own_above

        def product(y, a):
            return cameras @ y + back @ a, crossing @ y + normal.own * a + normal.between @ a

        def nearly_solved(y, a):
            solved = cho_solve(factor, y - back @ (a / own))
            return solved, (a - crossing @ solved) / own

        y, a = np.zeros(self.count), np.zeros(len(own))
        left = -(self.spread.T @ normal.by_camera), -normal.by_anchor
        towards = nearly_solved(*left)
        direction = towards
        size = first = left[0] @ towards[0] + left[1] @ towards[1]
        for _ in range(CG_STEPS):
            if size <= CG_ENOUGH**2 * first:
                break
            pushed = product(*direction)
            along = size / (direction[0] @ pushed[0] + direction[1] @ pushed[1])
            y, a = y + along * direction[0], a + along * direction[1]
            left = left[0] - along * pushed[0], left[1] - along * pushed[1]
            towards = nearly_solved(*left)
            before, size = size, left[0] @ towards[0] + left[1] @ towards[1]
            direction = towards[0] + size / before * direction[0], towards[1] + size / before * direction[1]
        return (self.spread @ y).reshape(-1, LOCAL), a
