"""The capture folder: what is written is read back, whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.export import CAPTURE_FILES
from blender_addon.wire import capture as capture_module
from blender_addon.wire.capture import (
    Capture,
    FrameReport,
    MetricScale,
    read_capture,
    read_metadata,
    write_capture,
)
from blender_addon.wire.errors import UserError
from tests.worlds import as_capture, room

ROOT = Path(__file__).resolve().parents[2]
MOVERS = ("objects", "velocity")
ARRAYS = ("world_from_camera", "intrinsics", "rgb", "depth", "confidence", "dynamic")


@pytest.fixture(scope="module")
def capture() -> Capture:
    """Four frames with a plate of twice the size; the third has no camera."""
    made = as_capture(room(4), plate_size=(192, 128))
    world_from_camera, intrinsics = made.world_from_camera.copy(), made.intrinsics.copy()
    world_from_camera[2], intrinsics[2] = np.nan, np.nan
    frames = (*made.frames[:2], FrameReport(False), FrameReport(False, interpolated=True, low_confidence=True))
    return replace(
        made,
        world_from_camera=world_from_camera,
        intrinsics=intrinsics,
        frames=frames,
        settings={"engine": "synthetic"},
        timings=(("Looking", 1.25),),
        shot=replace(made.shot, warnings=("one frame is lost",), details={"pairs": 12}),
    )


@pytest.fixture
def written(capture, tmp_path) -> Path:
    return write_capture(capture, tmp_path / "shot")


@pytest.fixture
def with_movers(capture) -> Capture:
    """The same with what is optional: its panel is mover 1 and slides to the right."""
    velocity = capture.dynamic[..., None] * np.array([1.5, 0, -0.25], np.float16)
    return replace(capture, objects=capture.dynamic.astype(np.uint8), velocity=velocity)


def assert_same(a: Capture, b: Capture) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    for name in MOVERS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
    for name in set(vars(a)) - {*ARRAYS, *MOVERS, "tracks", "plate_masks", "folder"}:
        assert getattr(a, name) == getattr(b, name), name
    for name, values in vars(a.tracks).items():
        np.testing.assert_array_equal(values, getattr(b.tracks, name))


def test_reading_gives_back_what_was_written(capture, written):
    again = read_capture(written)
    assert_same(capture, again)
    assert again.folder == written
    assert_same(again, read_capture(written / "capture.json"))  # a file dialog may give the file


def test_a_read_capture_can_be_written_again(written, tmp_path):
    assert_same(read_capture(written), read_capture(write_capture(read_capture(written), tmp_path / "copy")))


def test_movers_are_read_as_they_were_written(capture, with_movers, tmp_path):
    again = read_capture(write_capture(with_movers, tmp_path / "movers"))
    assert_same(with_movers, again)
    assert all(isinstance(getattr(again, name), np.memmap) for name in MOVERS)
    assert_same(with_movers, read_capture(write_capture(again, tmp_path / "copy")))
    with pytest.raises(ValueError, match="velocity has shape"):
        replace(capture, velocity=with_movers.velocity[..., :2])


def test_movers_are_files_that_an_older_reader_does_not_look_for(written, with_movers, tmp_path):
    """It knows the schema and the top-level keys, and opens files by name: only the list of files may differ."""
    folder = write_capture(with_movers, tmp_path / "movers")
    assert {p.name for p in folder.iterdir()} - {p.name for p in written.iterdir()} == {f"{n}.npy" for n in MOVERS}
    mine, old = ({k: v for k, v in read_metadata(f).items() if k != "files"} for f in (folder, written))
    assert mine == old


def test_frames_without_a_camera_stay_without_one(written):
    assert read_capture(written).has_camera.tolist() == [True, True, False, True]
    text = (written / "capture.json").read_text(encoding="utf-8")
    assert "NaN" not in text  # NaN is not JSON
    assert json.loads(text)["cameras"]["intrinsics"][2] == [None] * 4


def test_large_arrays_are_not_loaded_until_used(written):
    again = read_capture(written)
    assert all(isinstance(getattr(again, name), np.memmap) for name in ("rgb", "depth", "confidence", "dynamic"))


def test_a_full_capture_holds_the_files_of_the_format(capture, tmp_path):
    folder = write_capture(capture, tmp_path / "shot", CAPTURE_FILES)
    images = [f"{kind}_{i:04d}.png" for kind in ("rgb", "depth", "conf", "dynamic_mask") for i in range(4)]
    others = ["pred_traj.txt", "pred_intrinsics.txt", "scene.glb", "rgb.npy", "depth.npy", "conf.npy", "dynamic.npy"]
    names = {p.name for p in folder.iterdir()}
    assert names == {*images, *others, "tracks.npz", "capture.json"}
    info = read_metadata(folder)
    assert set(info["files"]) == names - {"capture.json"}
    assert {"images", "scene_glb"} <= set(info)


def test_a_measured_scale_is_kept_beside_the_unit(capture, tmp_path):
    scale = MetricScale(0.37, 0.35, 0.40, 0.04, pairs=9, source="mast3r", weights=({"name": "mast3r"},))
    folder = write_capture(replace(capture, metric=False, scale=scale), tmp_path / "shot")
    found = read_capture(folder)
    assert found.scale == scale
    assert not found.metric
    np.testing.assert_array_equal(found.depth, capture.depth)
    assert read_metadata(write_capture(capture, tmp_path / "other")).get("scale") is None


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "long", None, []])
def test_a_scale_that_is_none_is_damage(capture, tmp_path, wrong):
    folder = write_capture(replace(capture, scale=MetricScale(1, 1, 1, 0, 1, "mast3r")), tmp_path / "shot")
    info = read_metadata(folder)
    info["scale"]["metres_per_unit"] = wrong
    (folder / "capture.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="damaged"):
        read_capture(folder)


def test_a_folder_with_other_things_is_refused(capture, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for replacing in (False, True):
        with pytest.raises(UserError, match="not empty; choose a new folder"):
            write_capture(capture, tmp_path, replace=replacing)
    with pytest.raises(UserError, match=r"notes.txt is a file; choose another"):
        write_capture(capture, tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"notes.txt is a file; choose another"):
        write_capture(capture, tmp_path / "notes.txt" / "shot")


def test_an_earlier_capture_is_replaced_only_when_asked(capture, written):
    later = replace(capture, metric=False)
    with pytest.raises(UserError, match="already holds a capture; choose another folder, or ask to replace it"):
        write_capture(later, written)
    assert read_capture(written).metric
    write_capture(later, written, replace=True)
    assert not read_capture(written).metric
    assert [p.name for p in written.parent.iterdir()] == ["shot"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_write_leaves_nothing(capture, tmp_path, interruption):
    def interrupt(capture, folder):
        assert (folder / "depth.npy").is_file()  # the work had begun
        raise interruption

    with pytest.raises(interruption):
        write_capture(capture, tmp_path / "shot", [interrupt])
    assert list(tmp_path.iterdir()) == []


def test_the_earlier_capture_stands_until_the_new_one_is_whole(capture, written):
    def look_and_fail(new, folder):
        assert_same(capture, read_capture(written))
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*; choose another folder or free some space"):
        write_capture(replace(capture, metric=False), written, [look_and_fail], replace=True)
    assert_same(capture, read_capture(written))
    assert [p.name for p in written.parent.iterdir()] == ["shot"]


def test_metadata_that_is_not_json_is_a_bug_and_leaves_nothing(capture, tmp_path):
    wrong = replace(capture, shot=replace(capture.shot, details={"error": float("nan")}))
    with pytest.raises(ValueError, match="JSON"):
        write_capture(wrong, tmp_path / "shot")
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from backend.export import CAPTURE_FILES
from blender_addon.wire import capture as capture_module
from backend.wire import UserError, write_capture
from tests.worlds import as_capture, room

capture = as_capture(room(4))
for size in map(int, sys.argv[2:]):  # no file may grow beyond this, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        write_capture(capture, Path(sys.argv[1]) / "shot", CAPTURE_FILES)
    except UserError as error:
        print(error.hint)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of a file")
@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path):
    """At sizes that stop the arrays, the images, and the GLB, which is the largest file."""
    sizes = ["50", "5000", "90000", "300000"]
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), *sizes], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.splitlines() == ["choose another folder or free some space"] * len(sizes), child.stderr
    assert list(tmp_path.iterdir()) == []


@contextmanager
def ordinary_rights():
    """Without the rights of root, to whom every folder is open."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits do not close a folder on Windows")
@pytest.mark.parametrize("bits", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_is_said(capture, tmp_path, bits):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(bits)
    try:
        for folder in (closed, closed / "shot"):
            with ordinary_rights(), pytest.raises(UserError, match=r"written.*; choose another"):
                write_capture(capture, folder)
    finally:
        closed.chmod(0o755)
    assert list(closed.iterdir()) == []


def edit(change):
    """A damage that edits the content of capture.json."""

    def damage(folder: Path) -> None:
        path = folder / "capture.json"
        info = json.loads(path.read_text(encoding="utf-8"))
        change(info)
        path.write_text(json.dumps(info), encoding="utf-8")

    return damage


def cut(name: str):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 1)


def overwrite(name: str, data: bytes | None = None):
    """A damage that keeps a file's size but not its content, or gives it the content `data`."""
    return lambda folder: (folder / name).write_bytes(data or b"?" * (folder / name).stat().st_size)


DAMAGES = {
    "no capture.json": (lambda folder: (folder / "capture.json").unlink(), "choose the folder that holds capture.json"),
    "capture.json is not JSON": (cut("capture.json"), "damaged"),
    "capture.json is not text": (overwrite("capture.json", b"\xff\xfe\x00"), "damaged"),
    "capture.json is a list": (overwrite("capture.json", b"[]"), "damaged"),
    "another format": (edit(lambda info: info.update(format="video")), "not a capture"),
    "a later schema": (edit(lambda info: info.update(schema=99)), "newer Kinora; update the add-on"),
    "no schema": (edit(lambda info: info.pop("schema")), "damaged"),
    "a rate of nothing": (edit(lambda info: info["clip"].update(fps=[24, 0])), "damaged"),
    "an unknown field": (edit(lambda info: info["clip"].update(colour="red")), "damaged"),
    "a frame too few": (edit(lambda info: info["frames"].pop()), "damaged"),
    "cameras of another length": (edit(lambda info: info["cameras"]["world_from_camera"].pop()), "damaged"),
    "a camera that is a word": (edit(lambda info: info["cameras"]["intrinsics"].append("x")), "damaged"),
    "a missing array": (lambda folder: (folder / "depth.npy").unlink(), "depth.npy is missing or cut; make it again"),
    "a cut array": (cut("conf.npy"), "conf.npy is missing or cut; make it again"),
    "lost movers": (lambda folder: (folder / "objects.npy").unlink(), "objects.npy is missing or cut"),
    "an array of something else": (overwrite("dynamic.npy"), "damaged"),
    "tracks of something else": (overwrite("tracks.npz"), "damaged"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_capture_is_refused_with_a_sentence(with_movers, tmp_path, damage, message):
    folder = write_capture(with_movers, tmp_path / "shot")
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_capture(folder)


def test_an_array_that_would_run_code_is_refused(written):
    """Python objects in an .npy file are pickles: never loaded."""
    np.save(written / "depth.npy", np.array([print], dtype=object), allow_pickle=True)
    edit(lambda info: info["files"].update({"depth.npy": (written / "depth.npy").stat().st_size}))(written)
    with pytest.raises(UserError, match="damaged"):
        read_capture(written)


def test_arrays_that_do_not_fit_together_are_a_bug(capture):
    with pytest.raises(ValueError, match="rgb has shape"):
        replace(capture, rgb=capture.rgb[:, :-1])
    with pytest.raises(ValueError, match="frames has 3 entries for 4 frames"):
        replace(capture, frames=capture.frames[:3])


def test_a_moved_capture_is_the_same_capture(capture, written, tmp_path):
    moved = shutil.move(written, tmp_path / "elsewhere")
    assert_same(capture, read_capture(moved))


def test_plate_and_processed_pixels_are_each_others_inverse(capture):
    cropped = replace(capture.plate_map, ox=7.5, oy=-3)
    xy = np.random.default_rng(0).uniform(-50, 500, (20, 2))
    np.testing.assert_allclose(cropped.to_plate(cropped.to_grid(xy)), xy)
    # A camera and its pixels go through the same map: a ray keeps its direction.
    k = np.array([100.0, 120.0, 48.0, 32.0])
    plate_k = cropped.intrinsics_to_plate(k)
    ray = (xy - k[2:]) / k[:2]
    np.testing.assert_allclose((cropped.to_plate(xy) - plate_k[2:]) / plate_k[:2], ray)
    np.testing.assert_allclose(cropped.intrinsics_to_grid(plate_k), k)


def spoil(folder, change):
    """Change capture.json by hand."""
    info = json.loads((folder / "capture.json").read_text())
    change(info)
    (folder / "capture.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["files"].update({"../../.ssh/id_rsa": 1}),
        lambda info: info["files"].update({"/etc/passwd": 1}),
        lambda info: info["files"].update({"a/../../b": 1}),
        lambda info: info["files"].update({"C:\\x": 1}),
        lambda info: info["clip"].update(image_names=["../../secret.png"] * 4),
        lambda info: info["clip"].update(image_names=[7] * 4),
        lambda info: info["clip"].update(fps=["1e99999999", 1]),
        lambda info: info["clip"].update(fps=[25, 0]),
        lambda info: info["clip"].update(frame_indices=list(range(10**5))),
        lambda info: info["cameras"].update(intrinsics=[[[[]]]]),
        lambda info: info["cameras"].update(world_from_camera="x" * 10**6),
        lambda info: info.update(frames={"a": 1}),
        lambda info: info.update(schema="1"),
    ],
)
def test_a_capture_that_was_made_to_harm_is_refused_in_words(written, change):
    spoil(written, change)
    with pytest.raises(UserError, match=r"damaged|outside"):
        read_capture(written)


def test_a_table_of_absurd_depth_or_size_is_refused_in_words(written, monkeypatch):
    (written / "capture.json").write_text("[" * 10**6)
    with pytest.raises(UserError, match="damaged"):
        read_capture(written)
    monkeypatch.setattr(capture_module, "JSON_MAX", 10**6)
    (written / "capture.json").write_text(" " * 10**6 + "{}")
    with pytest.raises(UserError, match="more than 1000000 bytes"):
        read_capture(written)


LITERALS = [b"{'descr': '<f4\0'", b"{'descr': (((", b"{'shape': 9**9**9}", b"x" * 20_000, b"'''"]


@pytest.mark.parametrize("literal", LITERALS, ids=range(len(LITERALS)))
def test_an_array_whose_header_is_no_literal_is_refused_in_words(written, literal):
    header = b"\x93NUMPY\x02\x00" + len(literal).to_bytes(4, "little") + literal
    (written / "depth.npy").write_bytes(header)
    spoil(written, lambda info: info["files"].update({"depth.npy": len(header)}))
    with pytest.raises(UserError, match="damaged"):
        read_capture(written)


def test_arrays_of_another_kind_and_compressed_tracks_are_refused(written, capture):
    np.save(written / "depth.npy", np.zeros(capture.depth.shape, "S16"))
    spoil(written, lambda info: info["files"].update({"depth.npy": (written / "depth.npy").stat().st_size}))
    with pytest.raises(UserError, match=r"depth\.npy holds"):
        read_capture(written)
    np.save(written / "depth.npy", np.full(capture.depth.shape, None, object), allow_pickle=True)
    spoil(written, lambda info: info["files"].update({"depth.npy": (written / "depth.npy").stat().st_size}))
    with pytest.raises(UserError, match="damaged"):
        read_capture(written)
    np.save(written / "depth.npy", capture.depth)
    np.savez_compressed(written / "tracks.npz", points_world=np.zeros((10**6, 3)))
    spoil(
        written,
        lambda info: info["files"].update({n: (written / n).stat().st_size for n in ("depth.npy", "tracks.npz")}),
    )
    with pytest.raises(UserError, match="compressed"):
        read_capture(written)
