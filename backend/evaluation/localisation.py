"""How well pictures were localised, as papers state it: median errors, and the share within four pairs of limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: (metres, degrees) within which a picture counts as localised.
LIMITS = ((0.1, 1.0), (0.25, 2.0), (0.5, 5.0), (5.0, 10.0))


@dataclass(frozen=True)
class PlacingErrors:
    """Of `count` pictures: median errors in metres and degrees, and the shares within each of `LIMITS`.

    A picture that was not placed counts with infinite errors.
    """

    count: int
    median_m: float
    median_deg: float
    within: tuple[float, ...]

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.1%} within {m:g} m and {deg:g}°" for (m, deg), share in zip(LIMITS, self.within))
        return f"{self.count} pictures: median error {self.median_m:.3g} m, {self.median_deg:.3g}°; {shares}"


def placing_errors(errors_m: np.ndarray, errors_deg: np.ndarray) -> PlacingErrors:
    """The figures of (N,) errors of position and (N,) of rotation, infinite for pictures that were not placed.

    Raises ValueError when there are none.
    """
    errors_m, errors_deg = np.asarray(errors_m, np.float64), np.asarray(errors_deg, np.float64)
    if not len(errors_m) or errors_m.shape != errors_deg.shape:
        raise ValueError(f"{errors_m.shape} errors of position and {errors_deg.shape} of rotation")
    within = tuple(float(((errors_m <= m) & (errors_deg <= deg)).mean()) for m, deg in LIMITS)
    return PlacingErrors(len(errors_m), float(np.median(errors_m)), float(np.median(errors_deg)), within)
