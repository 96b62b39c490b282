"""Localising the same plate again: what an earlier job matched is known, and the same seed gives the same cameras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import backend.localise.localise as localising
from backend.run import Run
from backend.stage_memory import StageMemory
from tests.localise.sets import LocaliseWith, OracleMatcher, first, held_out, job, lens_of, reference


class Counting(OracleMatcher):
    """An oracle that counts how often it is asked, and finds nothing in some frames of the capture."""

    asked = 0
    blind = ()

    def match(self, plate, view, known):
        self.asked += 1
        found = super().match(plate, view, known)
        return found.where(np.zeros(len(found), bool)) if view.key[1] in self.blind else found


def cameras(matcher, work, memory=None, **options) -> np.ndarray:
    plate = first(held_out(), 2)
    clip = replace(plate.clip, reference=reference()[1])
    run = Run(work_dir=work, memory=memory)
    return LocaliseWith(matcher).reconstruct(clip, job(lens_of(plate), **options), run).world_from_camera


def oracle() -> Counting:
    true, capture = reference()
    return Counting(held_out(), true, capture)


def test_costly_matches_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(localising, "KEPT_FROM_S", 0.0)
    memory, one, two = StageMemory(tmp_path / "cache"), oracle(), oracle()
    path = cameras(one, tmp_path, memory, compare=3)
    again = cameras(two, tmp_path, memory, compare=3, max_error_px=3.0)
    assert one.asked > 0
    assert two.asked == 0
    assert np.allclose(path, again, atol=0.02)


def test_the_same_job_gives_the_same_cameras(tmp_path):
    assert (cameras(oracle(), tmp_path, compare=3) == cameras(oracle(), tmp_path, compare=3)).all()


def test_a_frame_that_is_not_found_at_first_is_looked_for_in_more_of_the_capture(tmp_path):
    """The hint leads to frames in which nothing is found; those beside them are tried next."""
    matcher = oracle()
    matcher.blind = (0, 1)
    path = cameras(matcher, tmp_path, compare=2, near_frame=0)
    assert np.linalg.norm(path[:, :3, 3] - held_out().world_from_camera[:2, :3, 3], axis=1).max() < 0.03
