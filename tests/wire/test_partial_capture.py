"""A partial capture is what was shown: the same cameras, points at their own pixels, and says that it is partial."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from backend.export import FORMATS
from backend.geometry.camera import unproject
from backend.live import depth_frame, points_of, tracks_frame
from blender_addon.wire.capture import ClipInfo, EngineStamp, PlateMap, read_capture
from blender_addon.wire.errors import Cancelled, UserError
from blender_addon.wire.live import LiveFrame
from blender_addon.wire.partial_capture import capture_of, write_partial
from tests.worlds import room

ENGINE = EngineStamp("point3r", "", "Some licence", False)
SETTINGS = {"engine": "point3r", "lens": {"focal_mm": 35.0}}
FRAMES, PLATE = 4, (480, 330)
WORLD = room(FRAMES, 240, 160)
#: The processed grid is half the plate without its five last rows.
GRID = PlateMap(0.5, 0.5)
INFO = ClipInfo(
    source="elsewhere.mp4",
    plate_size=PLATE,
    fps=Fraction(24),
    frame_indices=tuple(range(7, 7 + 2 * FRAMES, 2)),
    timestamps=tuple(i / 24 for i in range(7, 7 + 2 * FRAMES, 2)),
)


def sent(live: LiveFrame) -> LiveFrame:
    return LiveFrame.decode(live.encode())


def shown(t: int) -> LiveFrame:
    seen = {"rgb": WORLD.rgb[t], "depth": WORLD.depth[t], "dynamic": WORLD.dynamic[t], "grid": GRID}
    return sent(
        depth_frame(INFO, t, **seen, world_from_camera=WORLD.world_from_camera[t], intrinsics=WORLD.intrinsics[t])
    )


def test_each_point_comes_back_to_its_own_pixel():
    live = [shown(t) for t in (0, 1, 3)]
    capture = capture_of(live[::-1], "/shots/walk.mp4", ENGINE, SETTINGS)
    assert capture.depth.shape == (3, 80, 120)  # 38,400 pixels are thinned by two
    assert capture.partial_of == FRAMES
    assert capture.clip.source == "/shots/walk.mp4"
    assert capture.clip.frame_indices == (7, 9, 13)
    assert capture.clip.timestamps == (7 / 24, 9 / 24, 13 / 24)
    assert np.array_equal(capture.world_from_camera, WORLD.world_from_camera[[0, 1, 3]])
    assert np.allclose(capture.plate_intrinsics, GRID.intrinsics_to_plate(WORLD.intrinsics[[0, 1, 3]]), atol=1e-9)
    thin = np.s_[:, 1::2, 1::2]
    assert np.allclose(capture.depth, WORLD.depth[[0, 1, 3]][thin], rtol=1e-5)
    assert np.array_equal(capture.rgb, WORLD.rgb[[0, 1, 3]][thin])
    assert np.array_equal(capture.dynamic, WORLD.dynamic[[0, 1, 3]][thin])
    points = unproject(capture.depth[2], capture.intrinsics[2], capture.world_from_camera[2])
    assert np.allclose(points[capture.depth[2] > 0], live[2].points, atol=1e-4)
    assert (capture.confidence == (capture.depth > 0)).all()


def test_it_says_that_it_is_partial_and_what_it_does_not_know():
    capture = capture_of([shown(0), shown(1)], "walk.mp4", ENGINE, SETTINGS)
    assert capture.shot.warnings[0].startswith("Partial: 2 of 4 frames")
    assert (capture.shot.kind, capture.shot.focal_source, capture.metric) == ("moving", "user", False)
    assert capture_of([shown(0)], "walk.mp4", ENGINE, {}).shot.kind == "locked"


def test_points_of_no_grid_go_to_the_pixels_that_see_them():
    """A frame that only shows tracked points beside frames with depth, and frames that show nothing else."""
    rng = np.random.default_rng(1)
    points = unproject(WORLD.depth[1], WORLD.intrinsics[1], WORLD.world_from_camera[1])[WORLD.depth[1] > 0]
    some = rng.choice(len(points), 50, replace=False)
    colours = rng.integers(0, 256, (50, 3), dtype=np.uint8)
    of_camera = {
        "world_from_camera": WORLD.world_from_camera[1],
        "plate_intrinsics": GRID.intrinsics_to_plate(WORLD.intrinsics[1]),
    }
    tracks = sent(tracks_frame(INFO, 1, points_world=points[some], colours=colours, **of_camera))
    both, alone = (capture_of(live, "", ENGINE, {}) for live in ([shown(0), tracks], [tracks]))
    assert both.depth.shape[1:] == (80, 120)
    assert alone.depth.shape[1:] == (117, 171)  # about 20,000 pixels in the shape of the plate
    for capture in (both, alone):
        seen = capture.depth[-1] > 0
        assert 40 <= seen.sum() <= 50
        back = unproject(capture.depth[-1], capture.intrinsics[-1], capture.world_from_camera[-1])[seen]
        nearest = np.linalg.norm(back[:, None] - points[some], axis=-1).min(axis=1)
        assert nearest.max() < WORLD.depth.max() * 0.02


def test_the_nearest_of_several_points_is_seen():
    live = shown(0)
    behind = live.points + (live.points - live.world_from_camera[:3, 3])
    doubled = replace(
        live,
        points=np.concatenate([live.points, behind.astype(np.float32)]),
        colours=np.concatenate([live.colours, 255 - live.colours]),
        dynamic=np.concatenate([live.dynamic, live.dynamic]),
    )
    one, two = (capture_of([frame], "", ENGINE, {}) for frame in (live, doubled))
    assert np.array_equal(one.depth, two.depth)
    assert np.array_equal(one.rgb, two.rgb)


def test_written_it_is_a_capture_with_pictures_that_exports(tmp_path):
    told = []
    folder = write_partial([shown(0), shown(2)], tmp_path / "walk_partial", "walk.mp4", ENGINE, SETTINGS, told.append)
    assert told == [0.5, 1.0]
    back, made = read_capture(folder), capture_of([shown(0), shown(2)], "walk.mp4", ENGINE, SETTINGS)
    assert (back.partial_of, back.engine, back.shot) == (FRAMES, ENGINE, made.shot)
    assert np.array_equal(back.depth, made.depth)
    info = json.loads((folder / "capture.json").read_text(encoding="utf-8"))
    assert info["partial"] == {"of_frames": FRAMES}
    assert not set(info["left_out"]) & set(info["files"])
    with Image.open(folder / "rgb_0001.png") as image:
        assert np.array_equal(np.asarray(image), back.rgb[1])
    with Image.open(folder / "dynamic_mask_0001.png") as image:
        assert image.size == PLATE
        on = np.asarray(image)[2:320:4, 2::4] == 255
        assert np.array_equal(on, back.dynamic[1])
    for name, export in FORMATS.items():
        assert export(back, tmp_path / name).files


def test_given_up_or_impossible_it_leaves_nothing(tmp_path):
    def no(fraction: float) -> None:
        raise Cancelled("Cancelled")

    with pytest.raises(Cancelled):
        write_partial([shown(0)], tmp_path / "a", "", ENGINE, {}, no)
    with pytest.raises(UserError, match="No frame"):
        write_partial([], tmp_path / "a", "", ENGINE, {})
    with pytest.raises(UserError, match="which frames"):
        write_partial([replace(shown(0), clip=None)], tmp_path / "a", "", ENGINE, {})
    assert not list(tmp_path.iterdir())


def test_all_frames_of_a_long_clip_fit_with_all_they_carry():
    from blender_addon.wire import live

    for frames in (1, 65, 1000, 5000):
        assert frames * (points_of(frames) * live.POINT_BYTES + live.OVERHEAD_BYTES) <= live.JOB_BYTES
    assert points_of(1000) > 14_000
    assert points_of(live.MOST_FRAMES) == 1
