"""An import in steps: none of them is large, and given up after any of them nothing stays but what others made."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import bpy
import numpy as np
import pytest

from backend.export.images import add_images
from blender_addon.scene import ImportOptions
from blender_addon.scene.build import import_steps
from blender_addon.scene.graph import VERSION_KEY
from blender_addon.scene.nodes import PLAYER, shared_group
from blender_addon.scene.points import FRAME
from blender_addon.scene.steps import Step, all_or_nothing, finish, in_thread
from blender_addon.wire.capture import write_capture
from blender_addon.wire.errors import Cancelled
from tests.scene.captures import player_of, shown, small

FRAMES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_capture(small(FRAMES), tmp_path_factory.mktemp("steps") / "capture", [add_images])


def datablocks() -> dict[int, str]:
    return {d.session_uid: d.name_full for d in bpy.data.user_map()}


def advance(steps, count: int) -> int:
    """Take so many steps that do something; how many there were."""
    done = 0
    while done < count:
        try:
            step = next(steps)
        except StopIteration:
            break
        if step.waiting:
            time.sleep(0.001)
        else:
            done += 1
    return done


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_no_step_makes_more_than_one_frame_or_one_group_or_one_picture(storage, folder, scene):
    steps = import_steps(folder, scene, ImportOptions(storage=storage))
    seen, largest = set(datablocks()), {"frames": 0, "groups": 0, "pictures": 0}
    count = 0
    while advance(steps, 1):
        count += 1
        new = [d for d in bpy.data.user_map() if d.session_uid not in seen]
        seen |= {d.session_uid for d in new}
        made = {
            "frames": [d for d in new if isinstance(d, bpy.types.Object) and FRAME in d],
            "groups": [d for d in new if isinstance(d, bpy.types.GeometryNodeTree) and "Mesh" not in d.name],
            "pictures": [d for d in new if isinstance(d, (bpy.types.Image, bpy.types.MovieClip))],
        }
        largest = {name: max(largest[name], len(made[name])) for name in made}
    assert largest == {"frames": 1, "groups": 1, "pictures": 1}
    assert count > 3 * FRAMES
    assert scene.collection.children


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_in_steps_or_at_once_it_is_the_same(storage, folder, scene):
    options = ImportOptions(storage=storage, collection_name="A")
    sliced = finish(import_steps(folder, scene, options))
    whole = finish(import_steps(folder, scene, options))
    scene.frame_set(3)
    assert np.array_equal(shown(player_of(sliced))["position"], shown(player_of(whole))["position"])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_given_up_anywhere_it_leaves_only_what_the_artist_made_meanwhile(share, folder, scene):
    options = ImportOptions(storage="split")
    total = advance(import_steps(folder, scene, options), 10_000)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    before = datablocks()
    steps = import_steps(folder, scene, options)
    advance(steps, min(int(share * total), total - 3))
    mine = bpy.data.objects.new("Mine", bpy.data.meshes.new("Mine"))
    advance(steps, 2)
    steps.close()
    assert set(datablocks()) - set(before) == {mine.session_uid, mine.data.session_uid}


def test_a_shared_group_that_others_have_begun_to_use_stays(folder, scene):
    steps = import_steps(folder, scene, ImportOptions())
    while not any(tree.name == PLAYER and VERSION_KEY in tree for tree in bpy.data.node_groups):
        advance(steps, 1)
    advance(steps, 2)
    user = bpy.data.objects.new("Other", bpy.data.pointclouds.new("Other"))
    user.modifiers.new("", "NODES").node_group = shared_group(PLAYER)
    steps.close()
    assert user.modifiers[0].node_group.name == PLAYER
    assert not [tree.name for tree in bpy.data.node_groups if tree.users == 0]


def test_what_is_made_by_others_before_an_error_stays(scene):
    def failing():
        bpy.data.objects.new("Ours", None)
        yield Step("One", 0.0)
        raise ValueError("no")

    steps = all_or_nothing(failing())
    next(steps)
    bpy.data.objects.new("Theirs", None)
    with pytest.raises(ValueError, match="no"):
        next(steps)
    assert [ob.name for ob in bpy.data.objects] == ["Theirs"]


def test_what_is_made_by_others_while_a_thread_works_stays(scene):
    ready = threading.Event()

    def failing():
        yield from in_thread("Numbers", (0.0, 1.0), lambda progress: ready.wait(5))
        bpy.data.objects.new("Ours", None)
        yield Step("One", 1.0)
        raise ValueError("no")

    steps = all_or_nothing(failing())
    while not next(steps).waiting:
        pass
    bpy.data.objects.new("Theirs", None)
    ready.set()
    while "Ours" not in bpy.data.objects:
        next(steps)
    with pytest.raises(ValueError, match="no"):
        next(steps)
    assert [ob.name for ob in bpy.data.objects] == ["Theirs"]


def test_work_in_a_thread_returns_its_result_or_its_error():
    threads = []

    def work(progress):
        threads.append(threading.current_thread())
        return 42

    assert finish(in_thread("Numbers", (0.0, 1.0), work)) == 42
    assert threads[0] is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        finish(in_thread("Numbers", (0.0, 1.0), lambda progress: 1 / 0))


def test_work_in_a_thread_ends_when_it_is_given_up():
    ended = threading.Event()

    def work(progress):
        try:
            while True:
                progress(0.5)
                time.sleep(0.001)
        except Cancelled:
            ended.set()

    steps = in_thread("Numbers", (0.2, 0.6), work)
    next(steps)
    while (step := next(steps)).fraction != pytest.approx(0.4):
        assert step.waiting
    steps.close()
    assert ended.wait(5)
