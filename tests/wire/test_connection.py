"""Connection files and the data folder."""

import json
import os
import stat
import sys
from dataclasses import replace

import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st
from zmq.utils import z85 as of_zmq

from blender_addon.own_key import own_key
from blender_addon.wire import paths, z85
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


# Pairing codes

CODE = HERE.to_code()


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]))
def test_keys_are_written_as_zeromq_writes_them(data):
    assert z85.encode(data).encode() == of_zmq.encode(data)
    assert z85.decode(z85.encode(data)) == data


@pytest.mark.parametrize("text", ["abcd", "ab cd", "#####", "ééééé"])
def test_what_is_not_z85_is_refused(text):
    with pytest.raises(ValueError, match="Z85"):
        z85.decode(text)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5", "tcp://gpu-box.studio.example:65535", "tcp://[fe80::1]:4777"])
def test_a_pairing_code_is_one_line_that_holds_the_connection(address):
    server_key, (public, secret) = zmq.curve_keypair()[0].decode(), (key.decode() for key in zmq.curve_keypair())
    it = Connection(address, server_key, public, secret)
    assert Connection.from_code(it.to_code()) == it
    assert len(it.to_code().split()) == 1
    assert it.has_client_key


def test_a_code_without_a_client_key_is_for_a_client_that_has_its_own():
    told = Connection.from_code(replace(HERE, client_public_key="", client_secret_key="").to_code())
    assert (told.address, told.server_public_key, told.has_client_key) == (HERE.address, HERE.server_public_key, False)
    mine = replace(told, client_public_key=HERE.client_public_key, client_secret_key=HERE.client_secret_key)
    assert mine == replace(HERE, instance="", pid=0)


@pytest.mark.parametrize(
    "paste",
    [
        f"  {CODE}\n",
        f'"{CODE}"',
        f"Pairing code: {CODE} see you tomorrow",
        "\r\n> ".join(CODE[at : at + 40] for at in range(0, len(CODE), 40)),
        CODE.replace("kinora", "Kinora"),
    ],
    ids=["spaces", "quoted", "in a sentence", "wrapped by mail", "capital"],
)
def test_a_paste_may_be_clumsy(paste):
    assert Connection.from_code(paste) == replace(HERE, instance="", pid=0)


@pytest.mark.parametrize("length", [len("kinora1-"), 10, 40, len(CODE) // 2, len(CODE) - 1])
def test_a_code_that_is_cut_says_so(length):
    with pytest.raises(UserError, match="cut off"):
        Connection.from_code(CODE[:length])


def test_a_code_with_any_letter_changed_is_refused():
    for at in range(len("kinora1-"), len(CODE) - 1):  # the last letter has bits that nobody reads
        changed = CODE[:at] + ("A" if CODE[at] != "A" else "B") + CODE[at + 1 :]
        with pytest.raises(UserError, match=r"changed on the way|cut off"):
            Connection.from_code(changed)


@given(st.text() | st.text("ABCabc019-_=").map("kinora1-".__add__))
@example("")
@example("kinora1-é")
@example("kinora1-" + "A" * 100_000)
def test_any_other_paste_is_refused_in_words(text):
    with pytest.raises(UserError, match="pairing code"):
        Connection.from_code(text)


@pytest.mark.parametrize(
    "address", ["ipc:///tmp/x", "tcp://a b:5", "tcp://a:0", "tcp://a:65536", "tcp://a", "inproc://x", 7]
)
def test_an_address_that_is_none_is_refused(tmp_path, address):
    replace(HERE, address=address).write(tmp_path / "c.json")
    with pytest.raises(UserError, match="not a connection file"):
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


# This computer's own key


def test_this_computers_own_key_is_made_once_and_kept_private(tmp_path):
    public, secret = own_key(tmp_path / "home")
    assert own_key(tmp_path / "home") == (public, secret)
    assert zmq.curve_public(secret.encode()).decode() == public
    if sys.platform != "win32":
        assert stat.S_IMODE(paths.client_key(tmp_path / "home").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"public": 1, "secret": 2}'])
def test_a_damaged_own_key_is_refused_in_words(tmp_path, content):
    paths.client_key(tmp_path).write_text(content)
    with pytest.raises(UserError, match="key of this computer"):
        own_key(tmp_path)
