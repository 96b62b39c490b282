"""`scene.glb`, held to glTF 2.0 by its own bytes, by trimesh, by Blender's importer and by the Khronos validator."""

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import trimesh

from backend.export.cloud import frame_cloud, scattered_pixels
from backend.export.glb import add_scene
from backend.wire import FrameReport
from tests.worlds import as_capture, room

from .conftest import FRAMES, LOST

HERE = Path(__file__).resolve().parent
SMALL = {"points_per_frame": 400}
COMPONENTS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
FLOAT = 5126


class Glb:
    """A GLB file taken apart by the letter of the specification, without the writer's help."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        json_length, json_type = struct.unpack_from("<I4s", data, 12)
        assert json_type == b"JSON"
        self.document = json.loads(data[20 : 20 + json_length])
        binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
        assert binary_type == b"BIN\0"
        assert json_length % 4 == binary_length % 4 == 0
        self.binary = data[28 + json_length :]
        assert len(self.binary) == binary_length == self.document["buffers"][0]["byteLength"]

    def values(self, accessor: int) -> np.ndarray:
        row = self.document["accessors"][accessor]
        view = self.document["bufferViews"][row["bufferView"]]
        part = self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(part, "<f4").reshape(row["count"], COMPONENTS[row["type"]])

    def node(self, name: str) -> dict:
        return next(n for n in self.document["nodes"] if n["name"] == name)

    def channel(self, name: str, path: str) -> tuple[np.ndarray, np.ndarray, str]:
        """Times, values and interpolation of one animated property."""
        animation = self.document["animations"][0]
        node = self.document["nodes"].index(self.node(name))
        (channel,) = [c for c in animation["channels"] if c["target"] == {"node": node, "path": path}]
        sampler = animation["samplers"][channel["sampler"]]
        return self.values(sampler["input"])[:, 0], self.values(sampler["output"]), sampler["interpolation"]


@pytest.fixture(scope="module", params=["exact", "holed"])
def scene(request, tmp_path_factory):
    """(capture, path of its scene.glb)"""
    folder = tmp_path_factory.mktemp(request.param)
    capture = request.getfixturevalue(request.param)
    add_scene(capture, folder, **SMALL)
    return capture, folder / "scene.glb"


def test_accessors_lie_in_their_buffer_and_state_their_bounds(scene):
    glb = Glb(scene[1])
    end = 0
    for view in glb.document["bufferViews"]:
        assert view["byteOffset"] == end  # gapless, and each four-byte aligned
        assert view["byteOffset"] % 4 == 0
        end += view["byteLength"]
    assert end == len(glb.binary)
    for index, row in enumerate(glb.document["accessors"]):
        view = glb.document["bufferViews"][row["bufferView"]]
        assert row["componentType"] == FLOAT
        assert view["byteLength"] == row["count"] * COMPONENTS[row["type"]] * 4 > 0
        values = glb.values(index)
        assert np.isfinite(values).all()
        assert values.min(axis=0).tolist() == row["min"]
        assert values.max(axis=0).tolist() == row["max"]


def test_every_time_step_has_a_node_and_a_camera_looks_on(scene):
    capture, path = scene
    glb = Glb(path)
    root = glb.document["nodes"][glb.document["scenes"][0]["nodes"][0]]
    children = [glb.document["nodes"][i]["name"] for i in root["children"]]
    assert children == [*(f"frame_{i:04d}" for i in range(FRAMES)), "camera", "camera_path"]
    for i in range(FRAMES):
        assert ("mesh" in glb.node(f"frame_{i:04d}")) == capture.has_camera[i]


def test_exactly_one_time_step_is_shown_at_any_time(scene):
    capture, path = scene
    glb = Glb(path)
    starts = np.array(capture.clip.timestamps)
    for frame in range(FRAMES):
        for time in (starts[frame], starts[frame] + 0.02):  # at its start, and within it
            scales = []
            for other in range(FRAMES):
                times, values, how = glb.channel(f"frame_{other:04d}", "scale")
                assert how == "STEP"
                assert (np.diff(times) > 0).all()
                scales.append(values[np.searchsorted(times, np.float32(time), side="right") - 1].tolist())
            assert scales == [[1.0] * 3 if other == frame else [0.0] * 3 for other in range(FRAMES)]


def test_the_camera_sees_each_point_at_its_pixel(scene):
    """Through glTF's own camera: nodes and lens from the file, y up and looking down its negative z."""
    capture, path = scene
    glb = Glb(path)
    width, height = capture.processed_size
    lens = glb.document["cameras"][0]["perspective"]
    assert lens["aspectRatio"] == pytest.approx(width / height)
    times, positions, _ = glb.channel("camera", "translation")
    _, xyzw, _ = glb.channel("camera", "rotation")
    known = np.flatnonzero(capture.has_camera)
    np.testing.assert_allclose(times, np.array(capture.clip.timestamps)[known], atol=1e-6)
    for row, frame in enumerate(known):
        points = glb.values(
            glb.document["meshes"][glb.node(f"frame_{frame:04d}")["mesh"]]["primitives"][0]["attributes"]["POSITION"]
        )
        world_from_camera = trimesh.transformations.quaternion_matrix(np.roll(xyzw[row], 1))
        p = (points - positions[row]) @ world_from_camera[:3, :3]
        assert (p[:, 2] < 0).all()
        scale = height / 2 / np.tan(lens["yfov"] / 2)
        pixels = np.stack([width / 2 - p[:, 0] / p[:, 2] * scale, height / 2 + p[:, 1] / p[:, 2] * scale], axis=1)
        # Every point was measured at the centre of a processed pixel.
        np.testing.assert_allclose(pixels % 1, 0.5, atol=2e-3)


def test_trimesh_reads_every_point_and_turns_the_axes(scene):
    capture, path = scene
    read = trimesh.load(path)
    for frame in np.flatnonzero(capture.has_camera):
        cloud = read.geometry[f"frame_{frame:04d}"]
        assert cloud.vertices.shape == (400, 3)
    matrix, _ = read.graph.get("frame_0000")
    np.testing.assert_allclose(matrix, np.diag([1, -1, -1, 1]), atol=1e-12)
    assert (f"frame_{LOST:04d}" in read.geometry) == capture.has_camera[LOST]


def test_what_does_not_reach_the_default_confidence_is_left_out(exact, tmp_path):
    confidence = exact.confidence.copy()
    confidence[:, 32:] = 0.1
    unsure = replace(exact, confidence=confidence, confidence_default=0.3)
    description = add_scene(unsure, tmp_path)["scene_glb"]
    assert description["points"] == FRAMES * 32 * 96
    assert description["min_confidence"] == 0.3


def test_the_budget_holds_for_a_frame_and_for_all(exact, tmp_path):
    assert add_scene(exact, tmp_path, points_per_frame=100)["scene_glb"]["points"] == FRAMES * 100
    assert add_scene(exact, tmp_path, points_in_all=400)["scene_glb"]["points_per_frame"] == 400 // FRAMES


def test_a_smaller_cloud_keeps_the_same_pixels_in_every_frame(exact):
    """Of a locked-off shot, the still part of the cloud does not flicker."""
    still = as_capture(room(3, motion="locked", with_box=False))
    pixels = scattered_pixels(96, 64)
    first, last = (frame_cloud(still, i, pixels=pixels, most=50).points_world for i in (0, 2))
    np.testing.assert_array_equal(first, last)


def test_a_single_frame_is_a_scene_too(tmp_path):
    add_scene(as_capture(room(1)), tmp_path, **SMALL)
    glb = Glb(tmp_path / "scene.glb")
    assert glb.channel("frame_0000", "scale")[1].tolist() == [[1.0] * 3] * 2


def test_a_capture_without_any_camera_has_time_steps_without_points(exact, tmp_path):
    frames = tuple(FrameReport(False) for _ in range(FRAMES))
    lost = replace(exact, world_from_camera=np.full((FRAMES, 4, 4), np.nan), frames=frames)
    assert add_scene(lost, tmp_path)["scene_glb"]["frames_without_camera"] == list(range(FRAMES))
    assert "cameras" not in Glb(tmp_path / "scene.glb").document


def test_times_that_do_not_increase_are_refused(exact, tmp_path):
    stuck = replace(exact, clip=replace(exact.clip, timestamps=(0.0, 0.1, 0.1, 0.2, 0.3)))
    with pytest.raises(ValueError, match="increase"):
        add_scene(stuck, tmp_path)


@pytest.mark.slow
def test_blenders_own_importer_shows_the_same(tmp_path):
    """One time step a frame, the camera where it was, and the plate's colours on the points."""
    capture = as_capture(room(FRAMES), fps=Fraction(24))
    add_scene(capture, tmp_path, **SMALL)
    out = tmp_path / "blender.json"
    subprocess.run(
        [sys.executable, HERE / "blender_reads_glb.py", tmp_path / "scene.glb", out],
        check=True,
        capture_output=True,
        timeout=120,
    )
    read = json.loads(out.read_text(encoding="utf-8"))
    assert read["shown"] == [[f"frame_{i:04d}"] for i in range(FRAMES)]
    # OpenCV's world (x, y down, z forward) is (x, z, -y) in Blender's, whose cameras have y up and z back.
    turn = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    expected = turn @ capture.world_from_camera @ np.diag([1, -1, -1, 1])
    np.testing.assert_allclose(read["cameras"], expected, atol=1e-5)
    pixels = scattered_pixels(96, 64)
    cloud = frame_cloud(capture, 1, pixels=pixels, most=400)
    np.testing.assert_allclose(read["points"], cloud.points_world @ turn[:3, :3].T, atol=1e-4)
    np.testing.assert_allclose(np.array(read["colours"]) * 255, cloud.colours, atol=1)
    assert read["lens"] == pytest.approx(0.9 * 36, rel=1e-3)  # focal length of 0.9 image widths


@pytest.fixture(scope="session")
def khronos_validator() -> Path:
    """The module `gltf-validator` of the Khronos Group, installed once into the checkout's cache by npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed, and the Khronos validator runs in them")
    prefix = HERE.parents[1] / ".cache" / "gltf-validator"
    module = prefix / "node_modules" / "gltf-validator"
    if not (module / "package.json").is_file():
        prefix.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-save", "--no-fund", "--no-audit", "--prefix", str(prefix)]
        subprocess.run([*install, "gltf-validator@2.0.0-dev.3.10"], check=True, timeout=300)
    return module


def khronos_issues(validator: Path, file: Path) -> dict:
    command = [shutil.which("node"), HERE / "khronos_validator.cjs", validator, file]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8", timeout=120)
    return json.loads(done.stdout)["issues"]


@pytest.mark.slow
def test_the_khronos_validator_finds_nothing(scene, khronos_validator):
    issues = khronos_issues(khronos_validator, scene[1])
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]


@pytest.mark.slow
def test_the_khronos_validator_finds_what_is_wrong(scene, khronos_validator, tmp_path):
    """The check itself is checked: a file with one false bound is not valid."""
    data = scene[1].read_bytes()
    broken = data.replace(b'"count":400', b'"count":399', 1)
    assert broken != data
    (tmp_path / "broken.glb").write_bytes(broken)
    assert khronos_issues(khronos_validator, tmp_path / "broken.glb")["numErrors"] > 0
