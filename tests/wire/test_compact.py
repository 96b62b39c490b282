"""The compact encoding: small, exact but for the depth, whose error it states, and safe to open whoever made it."""

import json
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from backend.export import CAPTURE_FILES
from backend.wire import UserError, compact, read_capture, write_capture
from tests.worlds import as_capture, room

SIZE = (64, 48)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Five frames with holes in the depth, noise in everything, numbered movers and a file nobody knows."""
    made, rng = as_capture(room(frames=5, width=SIZE[0], height=SIZE[1])), np.random.default_rng(1)
    depth = made.depth * (1 + 0.002 * rng.standard_normal(made.depth.shape)).astype(np.float32)
    depth[:, :4] = 0
    depth[2, 10, 10] = 1e4
    made = replace(
        made,
        depth=depth.astype(np.float32),
        confidence=rng.random(depth.shape).astype(np.float16),
        rgb=rng.integers(0, 256, made.rgb.shape, dtype=np.uint8),
        objects=made.dynamic.astype(np.uint8) * 7,
        velocity=(rng.standard_normal((*depth.shape, 3)) * made.dynamic[..., None]).astype(np.float16),
    )
    folder = tmp_path_factory.mktemp("captures") / "exact"
    note = lambda capture, folder: (folder / "note.txt").write_text("kept as it is") and None  # noqa: E731
    return write_capture(made, folder, [*CAPTURE_FILES, note])


@pytest.fixture(params=compact.codecs())
def packed(request, capture, tmp_path):
    compact.pack(capture, tmp_path / "capture.kc", request.param)
    return tmp_path / "capture.kc"


def unpacked(packed):
    out = packed.parent / "out"
    out.mkdir()
    compact.unpack(packed, out)
    return out


def test_both_compressions_are_there():
    assert compact.codecs() == ("zstd", "zlib")


def test_everything_but_the_depth_comes_back_bit_by_bit(capture, packed):
    before, after = read_capture(capture), read_capture(unpacked(packed))
    for name in ("rgb", "confidence", "dynamic", "objects", "velocity", "world_from_camera", "intrinsics"):
        assert np.array_equal(getattr(before, name), getattr(after, name), equal_nan=name in ("intrinsics",)), name
    assert after.folder.joinpath("note.txt").read_text() == "kept as it is"
    assert after.folder.joinpath("pred_traj.txt").read_bytes() == capture.joinpath("pred_traj.txt").read_bytes()
    assert packed.stat().st_size < sum(p.stat().st_size for p in capture.iterdir()) / 2


def test_the_depth_is_as_near_as_the_capture_says(capture, packed):
    before, after = (np.asarray(read_capture(f).depth, np.float64) for f in (capture, unpacked(packed)))
    known = before > 0
    assert np.array_equal(known, after > 0)
    error = np.abs(after[known] / before[known] - 1).max()
    stated = json.loads((packed.parent / "out" / "capture.json").read_text())["compact"]["depth_max_relative_error"]
    assert error == pytest.approx(stated, rel=0.05)
    assert 1e-6 < stated < 1.2e-4


def test_pictures_are_made_again_and_what_is_left_out_is_told(capture, packed):
    out = unpacked(packed)
    info = json.loads((out / "capture.json").read_text())
    assert info["compact"]["left_out"] == ["scene.glb"]
    assert info["compact"]["derived"] == ["conf_%04d.png", "depth_%04d.png", "rgb_%04d.png"]
    assert "scene_glb" not in info
    assert {p.name for p in out.iterdir()} == {p.name for p in capture.iterdir()} - {"scene.glb"}
    assert info["files"] == {p.name: p.stat().st_size for p in out.iterdir() if p.name != "capture.json"}
    levels = 1 + 65535 * info["compact"]["depth_max_relative_error"]
    names = ("rgb_0003.png", "conf_0003.png", "dynamic_mask_0003.png", "depth_0003.png")
    for name, most in zip(names, (0, 0, 0, levels)):
        one, two = (np.asarray(Image.open(folder / name)) for folder in (capture, out))
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        assert np.abs(one.astype(int) - two.astype(int)).max() <= most, name


@pytest.mark.parametrize(
    "depth",
    [
        np.zeros((3, 4, 5), np.float32),
        np.full((3, 4, 5), 2.5, np.float32),
        np.full((3, 4, 5), np.nan, np.float32),
        np.full((3, 4, 5), -1, np.float32),
        np.geomspace(1e-20, 1e20, 60, dtype=np.float32).reshape(3, 4, 5),
    ],
    ids=["nothing", "flat", "not a number", "negative", "forty decades"],
)
def test_any_depth_comes_back(depth, tmp_path):
    np.save(tmp_path / "depth.npy", depth)
    (tmp_path / "capture.json").write_text(json.dumps({"files": {"depth.npy": 1}}))
    compact.pack(tmp_path, tmp_path / "capture.kc", "zstd")
    after = np.load(unpacked(tmp_path / "capture.kc") / "depth.npy")
    assert (after.dtype, after.shape) == (np.float32, depth.shape)
    np.testing.assert_allclose(after, depth, rtol=1e-3 if np.ptp(depth) > 1e3 else 1.2e-4)


def test_the_range_of_the_depth_is_used(tmp_path):
    """Levels lie no closer than anything is measured: noise below that costs no bits."""
    rng = np.random.default_rng(2)
    np.save(tmp_path / "depth.npy", (4 + rng.random((6, 64, 64)) * 0.2).astype(np.float32))
    (tmp_path / "capture.json").write_text(json.dumps({"files": {}}))
    row = compact.pack(tmp_path, tmp_path / "capture.kc", "zstd")["arrays"][0]
    assert row["step"] == compact.STEP_LEAST
    assert row["max_relative_error"] < 2.1e-5
    assert 8 * sum(row["pieces"]) / (6 * 64 * 64) < 14


# Files that somebody made to do harm


def tampered(packed, change):
    """The file with another table."""
    data = packed.read_bytes()
    length = struct.unpack("<I", data[-8:-4])[0]
    table = json.loads(data[-8 - length : -8])
    change(table)
    text = json.dumps(table).encode()
    packed.write_bytes(data[: -8 - length] + text + struct.pack("<I", len(text)) + data[-4:])
    return packed


def refuse(packed):
    out = packed.parent / "bad"
    out.mkdir(exist_ok=True)
    with pytest.raises(UserError, match="damaged"):
        compact.unpack(packed, out)
    return out


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["arrays"][0].update(shape=[2**30, 2**30, 2**30]),
        lambda t: t["arrays"][0].update(shape=[5, 48]),
        lambda t: t["arrays"][0].update(shape=[5, -48, 64]),
        lambda t: t["arrays"][0].update(shape=[5, 48, 65]),
        lambda t: t["arrays"][0].update(shape=[5, True, 64]),
        lambda t: t["arrays"][0].update(shape="abc"),
        lambda t: t["arrays"][0].update(name="../depth.npy"),
        lambda t: t["arrays"][0].update(name="depth.npy", way="colour"),
        lambda t: t["arrays"][0].update(filter="z"),
        lambda t: t["arrays"][0].update(low=float("nan")),
        lambda t: t["arrays"][0].update(pieces=[10**15]),
        lambda t: t["arrays"][0].update(pieces=[-1]),
        lambda t: t["arrays"].append(t["arrays"][0]),
        lambda t: t["files"][0].update(name="../../evil.txt"),
        lambda t: t["files"][0].update(name="a/b"),
        lambda t: t["files"][0].update(size=2**50),
        lambda t: t["files"].clear(),
        lambda t: t.update(codec="pickle"),
        lambda t: t.update(version=99),
        lambda t: t.pop("arrays"),
        lambda t: t.update(arrays=7),
    ],
)
def test_a_table_that_lies_is_refused(packed, change):
    out = refuse(tampered(packed, change))
    assert sum(p.stat().st_size for p in out.iterdir()) < 10 * 2**20
    assert not (packed.parent / "evil.txt").exists()


@pytest.mark.parametrize("codec", compact.codecs())
def test_a_bomb_is_not_opened(codec):
    """A piece that would become larger than its array's frames is refused before it is."""
    compress, decompress = compact._codec(codec)
    bomb = compress(bytes(256 * 2**20))
    assert len(bomb) < 2_000_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="not as long"):
        decompress(bomb, 1000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8_000_000


@pytest.mark.parametrize("keep", [0, 3, 7, 20, 0.5, 0.99])
def test_a_cut_file_is_refused(packed, keep):
    data = packed.read_bytes()
    packed.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    refuse(packed)


def test_flipped_bits_never_do_more_than_fail(packed):
    """Most are seen; where one is not, as in a plain stretch of zlib's, what comes out has the size that it should."""
    data, rng = packed.read_bytes(), np.random.default_rng(3)
    for place in rng.integers(0, len(data), 12):
        packed.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        out = packed.parent / f"flip{place}"
        out.mkdir(exist_ok=True)
        try:
            compact.unpack(packed, out)
        except UserError:
            continue
        assert np.load(out / "depth.npy").shape == (5, SIZE[1], SIZE[0])
