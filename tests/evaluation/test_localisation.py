"""Figures of localisation: medians and shares within limits."""

import numpy as np
import pytest

from backend.evaluation.localisation import placing_errors


def test_a_picture_must_be_within_both_limits():
    found = placing_errors(np.array([0.05, 0.2, 0.3, 0.6, np.inf]), np.array([3.0, 1.5, 3.0, 2.0, np.inf]))
    assert found.within == (0.0, 0.2, 0.6, 0.8)
    assert (found.count, found.median_m, found.median_deg) == (5, 0.3, 3.0)
    assert str(found) == (
        "5 pictures: median error 0.3 m, 3°; 0.0% within 0.1 m and 1°, 20.0% within 0.25 m and 2°, "
        "60.0% within 0.5 m and 5°, 80.0% within 5 m and 10°"
    )


def test_no_pictures_have_no_figures():
    with pytest.raises(ValueError, match="errors of position"):
        placing_errors(np.zeros(0), np.zeros(0))
