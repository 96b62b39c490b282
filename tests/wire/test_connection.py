"""Connection files and the data folder."""

import json
import os
import stat
import sys

import pytest

from blender_addon.wire import paths
from blender_addon.wire.connection import Connection
from blender_addon.wire.errors import UserError

HERE = Connection("tcp://127.0.0.1:5", "s" * 40, "c" * 40, "x" * 40, "i" * 32, 7)


def test_what_is_written_is_read_back(tmp_path):
    HERE.write(tmp_path / "connection.json")
    assert Connection.read(tmp_path / "connection.json") == HERE


@pytest.mark.skipif(sys.platform == "win32", reason="the data folder is the user's own there")
def test_only_its_owner_can_read_the_file(tmp_path):
    (tmp_path / "connection.json").write_text("an earlier one that all could read")
    os.chmod(tmp_path / "connection.json", 0o644)
    HERE.write(tmp_path / "connection.json")
    assert stat.S_IMODE((tmp_path / "connection.json").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["connection.json"]


def test_the_secret_key_is_not_shown():
    assert "x" * 40 not in repr(HERE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"server_public_key": "short"},
        {"client_secret_key": None},
        {"address": ...},
        {"pid": "many"},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused_in_words(tmp_path, change):
    HERE.write(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text()) | change
    (tmp_path / "c.json").write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))
    with pytest.raises(UserError, match="not a connection file"):
        Connection.read(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_what_is_not_json_is_refused_in_words(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError):
        Connection.read(tmp_path / "c.json")


def test_no_file_means_no_backend(tmp_path):
    with pytest.raises(UserError, match="no running backend"):
        Connection.read(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [
        ("linux", "XDG_DATA_HOME", "kinora"),
        ("win32", "LOCALAPPDATA", "Kinora"),
        ("darwin", None, "Library/Application Support/Kinora"),
    ],
)
def test_the_data_folder_is_where_the_platform_keeps_such_things(tmp_path, monkeypatch, platform, variable, tail):
    monkeypatch.delenv("KINORA_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable or "HOME", str(tmp_path))
    assert paths.home() == tmp_path / tail
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "chosen"))
    assert paths.home() == tmp_path / "chosen"
