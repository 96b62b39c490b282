"""Keys: who is let in, by the command line and by the file, and how a data folder is closed to others."""

import contextlib
import os
import stat
import string
import time

import pytest
import zmq

from backend.__main__ import main
from backend.server.keys import AllowList, AuthorizedKeys, load_keys, new_client
from backend.server.private import make_safe
from backend.wire import Connection, UserError, connection, framing, paths
from blender_addon.own_key import own_key
from tests.serving import RawClient, server

KEYS = [key.decode() for _ in range(4) for key in zmq.curve_keypair()[:1]]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    return make_safe(tmp_path / "home")


@pytest.fixture
def authorized(home):
    return AuthorizedKeys(home)


def told(capsys):
    """What the command printed, as lines of output and lines beside it."""
    out, beside = capsys.readouterr()
    return out.splitlines(), beside.splitlines()


# The commands


def test_new_prints_one_line_that_lets_a_client_in(home, capsys):
    assert main(["keys", "new", "anna", "--host", "gpu.local", "--port", "4777"]) == 0
    (code,), _ = told(capsys)
    it = Connection.from_code(code)
    assert (it.address, it.server_public_key) == ("tcp://gpu.local:4777", load_keys(home).server_public)
    assert zmq.curve_public(it.client_secret_key.encode()).decode() == it.client_public_key
    assert AllowList("", home).allows(it.client_public_key)


def test_new_writes_a_connection_file_instead(home, capsys, tmp_path):
    out = tmp_path / "anna.json"
    assert main(["keys", "new", "anna", "--host", "::1", "--port", "4777", "--out", str(out)]) == 0
    assert told(capsys)[0] == []
    it = Connection.read(out)
    assert it.address == "tcp://[::1]:4777"
    assert AllowList("", home).allows(it.client_public_key)
    assert main(["keys", "new", "otto", "--host", "gpu", "--port", "4777", "--out", str(out)]) == 1
    assert main(["keys", "new", "otto", "--host", "gpu", "--port", "1", "--out", str(tmp_path / "no" / "x.json")]) == 1
    assert [c.name for c in AuthorizedKeys(home).clients()] == ["anna"], "who got no file must not be let in"


def test_new_takes_the_port_of_the_server_that_runs(home, capsys):
    assert main(["keys", "new", "anna", "--host", "gpu"]) == 1
    assert "add --port" in told(capsys)[1][-1]
    with server(home) as broker:
        assert main(["keys", "new", "anna", "--host", "gpu"]) == 0
        assert Connection.from_code(told(capsys)[0][0]).address == f"tcp://gpu:{broker.port}"


def test_a_client_that_made_its_own_key_is_allowed_and_told_the_address(home, capsys, tmp_path):
    public, secret = own_key(tmp_path / "artist")
    allow = ["keys", "allow", connection.code_of_key(public), "anna", "--host", "gpu", "--port", "4777"]
    assert main(allow) == 0
    (code,), _ = told(capsys)
    it = Connection.from_code(code)
    assert not it.has_client_key
    assert secret not in code
    assert AllowList("", home).allows(public)


@pytest.mark.parametrize(
    "key",
    ["", "short", "x" * 41, "é" * 40, "kinorakey-AAAA", connection.code_of_key(KEYS[0])[:-3]],
    ids=["empty", "short", "long", "not of Z85", "short code", "code cut off"],
)
def test_what_is_no_public_key_is_refused(home, capsys, key):
    assert main(["keys", "allow", "--", key, "anna"]) == 1
    assert "not the public key of a client" in told(capsys)[1][-1]


def test_a_key_survives_the_shell_in_its_own_code():
    for key in KEYS:
        assert connection.key_of_code(connection.code_of_key(key)) == key == connection.key_of_code(f" {key}\n")
        assert set(connection.code_of_key(key)) <= set(string.ascii_letters + string.digits + "-_")


def test_list_tells_names_days_and_who_came(home, authorized, capsys):
    assert main(["keys", "list"]) == 0
    assert told(capsys) == ([], ["no client of another machine is let in"])
    authorized.allow(KEYS[0], "anna")
    authorized.allow(KEYS[1], "otto")
    AllowList("local", home).callback("kinora", KEYS[1].encode())
    assert main(["keys", "list"]) == 0
    (anna, otto), _ = told(capsys)
    assert "anna" in anna
    assert time.strftime("%Y-%m-%d") in anna
    assert "last seen never" in anna
    assert connection.code_of_key(KEYS[0]) in anna
    assert f"last seen {time.strftime('%Y-%m-%d')}" in otto


@pytest.mark.parametrize("who", ["anna", KEYS[0], connection.code_of_key(KEYS[0])], ids=["name", "key", "code"])
def test_revoke_takes_a_name_or_a_key(home, authorized, who):
    authorized.allow(KEYS[0], "anna")
    authorized.allow(KEYS[1], "otto")
    assert main(["keys", "revoke", "--", who]) == 0
    assert [c.name for c in authorized.clients()] == ["otto"]
    assert main(["keys", "revoke", "--", who]) == 1


# The file


def test_the_file_may_be_edited_by_hand_and_keeps_its_comments(authorized):
    authorized.file.write_text(
        f"# Studio\n\n{KEYS[0]}\n  {KEYS[1]}\totto   2026-01-31 \n#{KEYS[2]} not a comment, and no key\nbroken\n"
    )
    assert [(c.key, c.name, c.added) for c in authorized.clients()] == [
        (KEYS[0], "", ""),
        (KEYS[1], "otto", "2026-01-31"),
    ]
    authorized.allow(KEYS[3], "anna")
    authorized.revoke("otto")
    lines = authorized.file.read_text().splitlines()
    assert lines[:3] == ["# Studio", "", KEYS[0]]
    assert "broken" in lines
    assert {c.key for c in authorized.clients()} == {KEYS[0], KEYS[3]}


@pytest.mark.parametrize("name", ["", "two words", "-rf", "a" * 65, "a\nb", "#x", "../x"])
def test_what_is_no_name_is_refused(authorized, name):
    with pytest.raises(UserError, match="not a name"):
        authorized.allow(KEYS[0], name)
    assert not authorized.file.exists()


def test_a_name_and_a_key_are_let_in_once(authorized):
    authorized.allow(KEYS[0], "Läufer.2")
    with pytest.raises(UserError, match=r"let in already, as 'Läufer\.2'"):
        authorized.allow(KEYS[0], "anna")
    with pytest.raises(UserError, match=r"a client 'Läufer\.2' already"):
        authorized.allow(KEYS[1], "Läufer.2")


def test_the_list_is_read_again_when_it_changes_and_allows_nobody_when_it_is_gone(home, authorized):
    allowed = AllowList(KEYS[3], home)
    assert [allowed.allows(k) for k in KEYS] == [False, False, False, True]
    authorized.allow(KEYS[0], "anna")
    assert [allowed.allows(k) for k in KEYS] == [True, False, False, True]
    authorized.revoke("anna")
    authorized.allow(KEYS[1], "otto")
    assert [allowed.allows(k) for k in KEYS] == [False, True, False, True]
    authorized.file.unlink()
    assert [allowed.allows(k) for k in KEYS] == [False, False, False, True]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"server_public": "x"}', "swapped"])
def test_damaged_server_keys_are_told_and_not_replaced(home, content):
    keys = load_keys(home)
    if content == "swapped":
        content = paths.server_keys(home).read_text().replace(keys.server_secret, keys.client_secret)
    paths.server_keys(home).write_text(content)
    with pytest.raises(UserError, match=r"server's keys in .* cannot be used"):
        load_keys(home)
    assert paths.server_keys(home).read_text() == content


# A server that runs


def test_a_new_client_enters_without_a_restart_and_a_revoked_one_is_thrown_out(home, authorized):
    with server(home) as broker, RawClient(broker.connection) as local:
        anna = new_client(home, "anna", broker.connection.address)
        with RawClient(anna) as client:
            assert client.ask("ping")["t"] == "ping"
            authorized.revoke("anna")
            gone = client.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            assert gone.poll(3000), "the connection of a revoked client stays"
            client.socket.disable_monitor()
            with contextlib.suppress(zmq.Again):  # there may be no connection to send by
                client.socket.send_multipart(framing.encode({"t": "ping", "id": 9}), zmq.NOBLOCK)
            assert not client.socket.poll(500), "a revoked client is answered"
        assert local.ask("ping")["t"] == "ping"


# The data folder

closed = pytest.mark.skipif(os.name != "posix", reason="the data folder is the user's own there")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@closed
def test_a_data_folder_that_is_too_open_is_closed_with_a_warning(tmp_path, caplog):
    home = tmp_path / "home"
    with server(home):
        pass
    for path in [home, *home.iterdir()]:
        os.chmod(path, 0o777 if path.is_dir() else 0o666)
    with server(home):
        assert mode(home) == 0o700
        for path in home.iterdir():
            if path.is_dir() or path.name in ("keys.json", "connection.json", "jobs.db", "authorized_keys"):
                assert mode(path) & 0o077 == 0, path
    assert "was open to other users" in caplog.text
    assert "they may have read its keys" in caplog.text


@closed
def test_what_the_server_makes_is_closed_from_the_beginning(tmp_path):
    before = os.umask(0)
    try:
        with server(tmp_path / "home") as broker:
            new_client(tmp_path / "home", "anna", broker.connection.address)
            assert mode(tmp_path / "home") == 0o700
            for name in ("keys.json", "connection.json", "authorized_keys"):
                assert mode(tmp_path / "home" / name) == 0o600, name
    finally:
        os.umask(before)


@closed
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give files away")
def test_the_data_folder_of_another_user_is_refused(tmp_path):
    home = make_safe(tmp_path / "home")
    os.chown(home, 12345, 12345)
    with pytest.raises(UserError, match="belongs to another user"):
        make_safe(home)
