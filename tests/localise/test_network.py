"""Localising by descriptors of a network: with ones that know the truth, and with a tiny network that knows nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from backend.engines.localise import LocaliseEngine
from backend.geometry.camera import transform
from backend.localise.found import Picture
from backend.localise.network import NetworkDescriber, NetworkMatcher
from backend.matching.reciprocal import Described
from backend.nets.precision import EXACT
from backend.run import Run
from backend.wire import LocaliseSettings, UserError
from tests.localise.sets import ROOM_M, LocaliseWith, errors, first, held_out, job, lens_of, localised, reference
from tests.oracle import TrueClip
from tests.recipe import matching_net
from tests.view_oracle import describe


class TrueDescriber:
    """Describes the point that a pixel shows, with some noise; pictures whose size is of no bucket are refused."""

    def __init__(self, plate: TrueClip, there: TrueClip) -> None:
        self.worlds = {"plate": plate, "map": there}
        self.asked: list[tuple] = []

    def describe(self, plate: Picture, view: Picture) -> tuple[Described, Described]:
        self.asked.append((plate.size, view.size))
        return self._one(plate), self._one(view)

    def _one(self, picture: Picture) -> Described:
        (which, frame), _, matrix = picture.key
        world, matrix = self.worlds[which], np.frombuffer(matrix).reshape(3, 3)
        width, height = picture.size
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        xy = np.stack([x, y], axis=-1) * (matrix[0, 0], matrix[1, 1]) + matrix[:2, 2]
        nearest = (xy - 0.5).astype(np.float32)
        depth = cv2.remap(world.depth[frame], nearest, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        xy = xy.reshape(-1, 2)
        fx, fy, cx, cy = world.intrinsics[frame]
        rays = np.stack([(xy[:, 0] - cx) / fx, (xy[:, 1] - cy) / fy, np.ones(len(xy))], -1)
        points = transform(world.world_from_camera[frame], rays * depth.reshape(-1, 1))
        rng = np.random.default_rng([frame, width, int(matrix[0, 2] + 1000)])
        vectors = describe(points) + rng.normal(0, 0.01, (len(points), 24))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        described = torch.from_numpy(vectors.reshape(height, width, -1).astype(np.float32))
        return Described(described, torch.full((height, width), 5.0))


def test_a_plate_is_placed_by_descriptors(tmp_path):
    plate, (true, capture) = first(held_out(), 1), reference()
    describer = TrueDescriber(plate, true)
    matcher = NetworkMatcher(describer, 1.001, Run())
    found = localised(plate, capture, tmp_path, lens_of(plate), LocaliseWith(matcher), compare=2)
    away, turned = errors(found, plate.world_from_camera)
    assert away.max() < 0.005 * ROOM_M
    assert turned.max() < 0.3
    assert found.shot.details["localised"]["matcher"] == "MASt3R"
    assert describer.asked
    assert all(side % 16 == 0 for sizes in describer.asked for size in sizes for side in size)


@pytest.mark.slow
def test_a_large_plate_is_matched_in_windows_too(tmp_path):
    plate, (true, capture) = held_out((960, 576), 1.2 * 960, 1), reference()
    describer = TrueDescriber(plate, true)
    matcher = NetworkMatcher(describer, 1.001, Run())
    found = localised(plate, capture, tmp_path, lens_of(plate), LocaliseWith(matcher), compare=1)
    away, turned = errors(found, plate.world_from_camera)
    assert away.max() < 0.002 * ROOM_M
    assert turned.max() < 0.1
    assert len(describer.asked) > 2
    assert found.frames[0].reprojection_error_px < 3  # the plate's pixels are a third of the capture's


def test_unsure_descriptors_are_not_used():
    plate, (true, capture) = first(held_out(), 1), reference()
    matcher = NetworkMatcher(TrueDescriber(plate, true), 6.0, Run())
    pictures = Picture(("plate", 0), plate.clip.frames[0]), Picture(("map", 0), np.asarray(capture.rgb[0]))
    assert len(matcher.match(*pictures, np.ones((192, 320), bool))) == 0


def test_only_pixels_with_a_point_are_matched():
    plate, (true, capture) = first(held_out(), 1), reference()
    matcher = NetworkMatcher(TrueDescriber(plate, true), 1.001, Run())
    known = np.zeros((192, 320), bool)
    known[:, 100:200] = True
    found = matcher.match(
        Picture(("plate", 0), plate.clip.frames[0]), Picture(("map", 0), np.asarray(capture.rgb[0])), known
    )
    assert len(found) > 50
    assert found.map_xy[:, 0].min() >= 98
    assert found.map_xy[:, 0].max() <= 202


def test_a_network_that_knows_nothing_places_nothing(tmp_path):
    describer = NetworkDescriber(matching_net(), torch.device("cpu"), EXACT)
    engine = LocaliseWith(NetworkMatcher(describer, 0.0, Run()))
    plate = first(held_out(), 1)
    with pytest.raises(UserError, match="does not seem to belong"):
        localised(plate, reference()[1], tmp_path, lens_of(plate), engine, compare=1)


def test_a_picture_is_encoded_once(monkeypatch):
    network = matching_net()
    describer = NetworkDescriber(network, torch.device("cpu"), EXACT)
    encoded = []
    monkeypatch.setattr(network, "encode", lambda image, of=network.encode: encoded.append(1) or of(image))
    rng = np.random.default_rng(0)
    pictures = [Picture(n, rng.integers(0, 255, (32, 48, 3)).astype(np.uint8)) for n in range(3)]
    one = describer.describe(pictures[0], pictures[1])
    describer.describe(pictures[0], pictures[2])
    again = describer.describe(pictures[0], pictures[1])
    assert len(encoded) == 3
    assert torch.equal(one[0].descriptors, again[0].descriptors)


def test_without_weights_the_classic_matcher_serves_unless_the_network_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path))
    engine = LocaliseEngine()
    assert engine.matcher(LocaliseSettings(), Run())[0].name == "classic"
    engine.check(job(matcher="auto"))
    with pytest.raises(UserError, match="weights of MASt3R are not on this machine"):
        engine.check(job(matcher="mast3r"))
