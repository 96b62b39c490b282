"""Symmetric linear systems: dense ones, and banded ones with a border, as clips of many frames make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded


class Dense:
    """A symmetric matrix of n unknowns, all of it stored; what is added at n and beyond is dropped."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        self._h = torch.zeros(count + 1, count + 1, dtype=torch.float64, device=device)

    def add(self, rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor) -> None:
        """Add values at (rows, columns), which broadcast; both triangles must be given."""
        self._h.index_put_((rows, columns), values, accumulate=True)

    def diagonal(self) -> torch.Tensor:
        """(n,) the diagonal."""
        return self._h.diagonal()[: self.count]

    def dense(self) -> torch.Tensor:
        """(n, n) all of it."""
        return self._h[: self.count, : self.count]

    def solve(self, shift: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
        """x of (H + diag(shift)) x = right for (n, k) right sides; None where that is not positive definite."""
        factor, failed = torch.linalg.cholesky_ex(self.dense() + torch.diag(shift))
        return None if int(failed) else torch.cholesky_solve(right, factor)


@dataclass(frozen=True)
class Band:
    """An order of n unknowns in which they only meet within a band: `place` (n + 1,) where each stands, the last one
    dropped; the first `inner` stand in the band of this `width`, the rest in the border."""

    place: torch.Tensor
    inner: int
    width: int

    @property
    def stored(self) -> int:
        """Numbers that a matrix in this order takes."""
        border = len(self.place) - 1 - self.inner
        return (self.width + 1 + border) * self.inner + border**2


class Banded:
    """The same in a band with a border: a few unknowns, such as a common lens, meet all others."""

    def __init__(self, band: Band) -> None:
        self.band = band
        self.count = len(band.place) - 1
        self._border = self.count - band.inner
        self._h = torch.zeros(band.stored + 1, dtype=torch.float64, device=band.place.device)

    def add(self, rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor) -> None:
        """As `Dense.add`; of the two triangles the lower one is kept."""
        p, q = self.band.place[rows], self.band.place[columns]
        inner, trash = self.band.inner, len(self._h) - 1
        edge = (self.band.width + 1) * inner
        at = torch.where(p < inner, (p - q) * inner + q, edge + (p - inner) * inner + q)
        corner = edge + self._border * inner + (p - inner) * self._border + (q - inner)
        at = torch.where((p >= inner) & (q >= inner), corner, at)
        kept = (p >= q) & (p < self.count) & (q < self.count)
        at = torch.where(kept, at, trash)
        self._h.index_add_(0, at.flatten(), values.broadcast_to(at.shape).flatten())

    def _parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The band (width + 1, inner), diagonals first, the border (border, inner) and its corner."""
        inner, edge = self.band.inner, (self.band.width + 1) * self.band.inner
        end = edge + self._border * inner
        return (
            self._h[:edge].reshape(-1, inner),
            self._h[edge:end].reshape(-1, inner),
            self._h[end:-1].reshape(self._border, self._border),
        )

    def diagonal(self) -> torch.Tensor:
        """(n,) the diagonal, in the order of the unknowns."""
        band, _, corner = self._parts()
        return torch.cat([band[0], corner.diagonal()])[self.band.place[:-1]]

    def dense(self) -> torch.Tensor:
        """(n, n) all of it, in the order of the unknowns."""
        band, border, corner = self._parts()
        inner = self.band.inner
        whole = torch.zeros(self.count, self.count, dtype=torch.float64, device=self._h.device)
        for k, diagonal in enumerate(band[: self.count]):
            whole += torch.nn.functional.pad(torch.diag(diagonal[: inner - k], -k), (0, self._border) * 2)
        whole[inner:, :inner] = border
        whole[inner:, inner:] = torch.tril(corner)
        whole = torch.tril(whole) + torch.tril(whole, -1).T
        place = self.band.place[:-1]
        return whole[place][:, place]

    def solve(self, shift: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
        """As `Dense.solve`, by LAPACK on the processor."""
        band, border, corner = (part.cpu().numpy() for part in self._parts())
        inner, place = self.band.inner, self.band.place[:-1].cpu().numpy()
        ordered = np.empty((self.count, right.shape[1]))
        ordered[place] = right.cpu().numpy()
        shifts = np.empty(self.count)
        shifts[place] = shift.cpu().numpy()
        band = band.copy()
        band[0] += shifts[:inner]
        corner = np.tril(corner) + np.tril(corner, -1).T + np.diag(shifts[inner:])
        try:
            factor = cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
            solved = cho_solve_banded((factor, True), np.column_stack([ordered[:inner], border.T]), check_finite=False)
            first, by_border = solved[:, : right.shape[1]], solved[:, right.shape[1] :]
            second = np.linalg.solve(corner - border @ by_border, ordered[inner:] - border @ first)
        except (LinAlgError, np.linalg.LinAlgError):
            return None
        x = np.concatenate([first - by_border @ second, second])[place]
        return torch.from_numpy(x).to(right.device) if np.isfinite(x).all() else None
