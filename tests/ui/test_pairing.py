"""Backends on other machines: paired in one paste, several of them, secrets in no .blend and in no log."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import bpy
import pytest
import zmq

from blender_addon import backends
from blender_addon.ui.preferences import backend_choice
from blender_addon.wire.connection import Connection, key_of_code

from .conftest import pump_until
from .test_panels import Recorder, in_sidebar


def pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


@pytest.fixture
def preferences(home):
    """The add-on enabled with preferences, in a data folder of its own."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.preferences.addon_enable(module="blender_addon")
    yield bpy.context.preferences.addons["blender_addon"].preferences
    bpy.ops.preferences.addon_disable(module="blender_addon")


@pytest.fixture
def now(preferences):
    from blender_addon.ui.session import current

    return current()


def connection(host: str = "gpu-box", own_key: bool = False, port: int = 5555) -> Connection:
    """What a backend there would hand out: with a key pair for the client, or for one that has its own."""
    return Connection(f"tcp://{host}:{port}", pair()[0], *(("", "") if own_key else pair()))


def test_one_paste_pairs_and_chooses_the_backend(preferences):
    given = connection()
    assert bpy.ops.kinora.backend_pair(code=f"  {given.to_code()}\n") == {"FINISHED"}
    assert (preferences.backend, preferences.remote_backend) == ("REMOTE", "gpu-box")
    assert Connection.read(backend_choice(bpy.context).connection_file) == given


def test_the_code_is_taken_from_the_clipboard(preferences):
    given = connection("10.0.0.7")
    bpy.context.window_manager.clipboard = given.to_code()
    if bpy.context.window_manager.clipboard != given.to_code():
        pytest.skip("this Blender has no clipboard without a window")
    assert bpy.ops.kinora.backend_pair() == {"FINISHED"}
    assert list(backends.known()) == ["10.0.0.7"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda code: "hello", "not a pairing code"),
        (lambda code: code[:-20], "cut off"),
        (lambda code: code[:40] + ("A" if code[40] != "A" else "B") + code[41:], "changed on the way"),
    ],
    ids=["something else", "cut", "changed"],
)
def test_a_wrong_paste_is_one_sentence_and_changes_nothing(preferences, spoil, says):
    with pytest.raises(RuntimeError, match=says) as error:
        bpy.ops.kinora.backend_pair(code=spoil(connection().to_code()))
    assert str(error.value).strip().count("\n") == 0
    assert backends.known() == {}
    assert preferences.backend == "LOCAL"


def test_without_a_key_in_the_code_this_computers_own_is_used(preferences):
    bpy.ops.kinora.backend_pair(code=connection(own_key=True).to_code())
    public, secret = backends.own_pair()
    kept = Connection.read(backends.file_of("gpu-box"))
    assert (kept.client_public_key, kept.client_secret_key) == (public, secret)
    assert backends.own_pair() == (public, secret), "it stays the same"


def test_this_computers_key_is_handed_over_without_its_secret(preferences, capfd):
    """What is copied is what `keys allow` takes; the secret half stays in its file."""
    public, secret = backends.own_pair()
    assert bpy.ops.kinora.copy_own_key() == {"FINISHED"}
    said = "".join(capfd.readouterr())
    key = next(word for word in said.split() if word.startswith("kinorakey-"))
    assert key_of_code(key) == public
    assert secret not in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_keys_are_readable_by_their_owner_alone(preferences, home):
    bpy.ops.kinora.backend_pair(code=connection(own_key=True).to_code())
    for file in (*home.rglob("*.json"),):
        if file.name != "backend.json":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((home / "backends").stat().st_mode) == 0o700


def test_no_secret_gets_into_a_blend_file_or_the_preferences(preferences, tmp_path):
    given = connection()
    code = given.to_code()
    bpy.ops.kinora.backend_pair(code=code, name="Render Box")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"), compress=False)
    written = (tmp_path / "shot.blend").read_bytes()
    for secret in (given.client_secret_key, given.client_public_key, code[8:60]):
        assert secret.encode() not in written
        assert secret not in str([getattr(preferences, p.identifier) for p in preferences.bl_rna.properties])
    for name in ("backend_pair", "backend_add", "copy_own_key"):
        options = getattr(bpy.types, f"KINORA_OT_{name}").bl_options
        assert "REGISTER" not in options, "registered operators are written to the Info log with their properties"


def test_several_backends_are_chosen_by_name(preferences):
    first, second, same_name = connection("a"), connection("b"), connection("a", port=7)
    for given in (first, second, same_name):
        bpy.ops.kinora.backend_pair(code=given.to_code())
    assert list(backends.known()) == ["a", "a 2", "b"]
    for name, given in (("a", first), ("b", second), ("a 2", same_name)):
        bpy.ops.kinora.backend_choose(name=name)
        assert Connection.read(backend_choice(bpy.context).connection_file) == given
    bpy.ops.kinora.backend_choose(name="")
    assert not backend_choice(bpy.context).remote
    with pytest.raises(RuntimeError, match="No backend called 'c' is known; paste its pairing code"):
        bpy.ops.kinora.backend_choose(name="c")


def test_the_same_backend_pasted_again_is_updated_not_doubled(preferences):
    given = connection("old-address")
    bpy.ops.kinora.backend_pair(code=given.to_code(), name="Farm")
    bpy.ops.kinora.backend_pair(code=replace(given, address="tcp://new:1").to_code())
    assert list(backends.known()) == ["Farm"]
    assert Connection.read(backends.file_of("Farm")).address == "tcp://new:1"


def test_a_backend_gets_another_name_and_the_address_of_a_tunnel(preferences):
    given = connection()
    bpy.ops.kinora.backend_pair(code=given.to_code())
    bpy.ops.kinora.backend_edit(new_name="Über/Farm", address="127.0.0.1:7777")
    assert preferences.remote_backend == "Über_Farm"
    assert Connection.read(backends.file_of("Über_Farm")) == replace(given, address="tcp://127.0.0.1:7777")
    with pytest.raises(RuntimeError, match="'nonsense' is not an address; write it as host:port"):
        bpy.ops.kinora.backend_edit(address="nonsense")
    bpy.ops.kinora.backend_pair(code=connection("other").to_code())
    with pytest.raises(RuntimeError, match="Another backend is called 'über_farm'"):
        bpy.ops.kinora.backend_edit(name="other", new_name="über_farm")


def test_a_connection_file_is_copied_so_that_it_can_be_removed(preferences, tmp_path):
    given = connection("studio")
    given.write(tmp_path / "gpu.json")
    assert bpy.ops.kinora.backend_add(filepath=str(tmp_path / "gpu.json")) == {"FINISHED"}
    (tmp_path / "gpu.json").unlink()
    assert Connection.read(backend_choice(bpy.context).connection_file) == given
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RuntimeError, match="is not a connection file of Kinora"):
        bpy.ops.kinora.backend_add(filepath=str(tmp_path / "other.json"))


def test_a_forgotten_backend_leaves_no_key_behind(preferences, home):
    given = connection()
    bpy.ops.kinora.backend_pair(code=given.to_code())
    assert bpy.ops.kinora.backend_forget() == {"FINISHED"}
    assert not any(given.client_secret_key in file.read_text() for file in home.rglob("*.json"))
    assert preferences.remote_backend == ""
    assert not bpy.ops.kinora.backend_forget.poll()


def test_a_damaged_file_says_so_and_can_be_forgotten(preferences):
    bpy.ops.kinora.backend_pair(code=connection().to_code())
    backends.file_of("gpu-box").write_text("{")
    seen: list[str] = []
    with in_sidebar():
        from blender_addon.ui.pairing import draw_remote

        draw_remote(Recorder(seen), bpy.context, preferences)
    assert "gpu-box Its file is damaged" in " ".join(seen)
    assert bpy.ops.kinora.backend_forget() == {"FINISHED"}


def test_another_computer_needs_online_access(preferences, now):
    bpy.ops.kinora.backend_pair(code=connection("192.0.2.7").to_code())
    assert not bpy.app.online_access
    bpy.ops.kinora.backend_start()
    pump_until(now, lambda: now.state == "OFF")
    assert "offline" in now.note
    assert "System" in now.hint


def test_a_backend_reached_through_loopback_needs_none(preferences, now, tmp_path):
    """The near end of a tunnel: the whole way from the server's key to READY."""
    from tests.serving import server

    with server(tmp_path / "far") as broker:
        bpy.ops.kinora.backend_pair(code=replace(broker.connection, instance="", pid=0).to_code(), name="Far")
        bpy.ops.kinora.backend_start()
        pump_until(now, lambda: now.state == "READY")
        assert now.choice.remote
        bpy.ops.kinora.backend_stop()
    assert now.state == "OFF"


def test_a_backend_in_use_is_not_left_while_it_works(preferences, now, tmp_path):
    bpy.ops.kinora.backend_pair(code=connection("a").to_code())
    now.state, now.choice = "READY", backend_choice(bpy.context)
    from blender_addon.ui.reconstruction import Reconstruction, SceneRef

    now.jobs = [Reconstruction(SceneRef.of(bpy.context.scene), Path("c.mp4"), tmp_path, None, state="RUNNING")]
    for act in (
        lambda: bpy.ops.kinora.backend_choose(name=""),
        lambda: bpy.ops.kinora.backend_forget(),
    ):
        with pytest.raises(RuntimeError, match="A job is running"):
            act()
    assert preferences.remote_backend == "a"
    now.jobs, now.state = [], "OFF"


def test_without_preferences_pairing_says_what_to_do(addon, home):
    with pytest.raises(RuntimeError, match="enable it in Preferences > Add-ons"):
        bpy.ops.kinora.backend_pair(code=connection().to_code())
    assert backends.known() == {}
