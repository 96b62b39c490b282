"""Files from machine to machine: whole or an error, no name that leaves its folder, a proof that cannot be guessed."""

from __future__ import annotations

import pytest

from backend.cluster import carry

NEVER_STOPPED = lambda: None  # noqa: E731


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder on the other machine, of an empty file and one of several pieces."""
    monkeypatch.setattr(carry, "PIECE", 1000)
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "depth.npy").write_bytes(bytes(range(256)) * 10)
    (folder / "empty.txt").write_bytes(b"")
    return folder


def reader(folder):
    return lambda name, offset: carry.read_piece(folder / name, offset)


def test_files_arrive_as_they_were(there, tmp_path):
    carry.fetch(carry.listing(there), reader(there), tmp_path / "here", NEVER_STOPPED)
    assert {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir()} == {
        p.name: p.read_bytes() for p in there.iterdir()
    }


def test_files_are_sent_in_pieces_that_may_come_twice(there, tmp_path):
    for name, pieces in (("depth.npy", 3), ("empty.txt", 1)):
        sent = []

        def write(offset, piece, name=name, sent=sent):
            sent.append(len(piece))
            for _ in range(2):
                carry.take(tmp_path / "sent" / name, offset, piece)

        carry.send(there / name, write, NEVER_STOPPED)
        assert len(sent) == pieces
        assert max(sent) <= 1000
        assert (tmp_path / "sent" / name).read_bytes() == (there / name).read_bytes()


@pytest.mark.parametrize("damage", ["flipped", "short", "long"])
def test_a_file_that_is_not_what_was_told_is_an_error(there, tmp_path, damage):
    listing = carry.listing(there)
    data = bytearray((there / "depth.npy").read_bytes())
    if damage == "flipped":
        data[1500] ^= 1
    (there / "depth.npy").write_bytes({"flipped": data, "short": data[:-1], "long": data + b"x"}[damage])
    with pytest.raises(OSError, match=r"depth\.npy did not arrive"):
        carry.fetch(listing, reader(there), tmp_path / "here", NEVER_STOPPED)


@pytest.mark.parametrize("name", ["../escape.npy", "/etc/passwd", "a/b", ".hidden", "", "x" * 65])
def test_no_name_leaves_the_folder(there, tmp_path, name):
    with pytest.raises(OSError, match="no capture holds"):
        carry.fetch([{"name": name, "size": 0, "sha256": ""}], reader(there), tmp_path / "here", NEVER_STOPPED)
    assert list((tmp_path / "here").iterdir()) == []


def test_who_sees_the_folder_can_prove_it(tmp_path):
    proof = carry.Proof(tmp_path)
    assert proof.holds(carry.answer_proof(proof.file))
    proof.remove()
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_see_it_cannot(tmp_path):
    proof = carry.Proof(tmp_path)
    assert carry.answer_proof(tmp_path / "elsewhere" / proof.file.name) is None
    assert not proof.holds(None)
    assert not proof.holds([proof.secret, "a guess"])  # it reads, but what it writes is not seen here
    copy = tmp_path / "copy" / proof.file.name
    copy.parent.mkdir()
    copy.write_bytes(proof.file.read_bytes())
    assert not proof.holds(carry.answer_proof(copy))


def test_fingerprints_tell_footage_apart(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"a" * 3_000_000)
    before = carry.fingerprint(clip)
    assert before == carry.fingerprint(clip)
    clip.write_bytes(b"a" * 2_999_999 + b"b")
    assert carry.fingerprint(clip) != before
    clip.write_bytes(b"a" * 3_000_001)
    assert carry.fingerprint(clip) != before
    assert carry.fingerprint(tmp_path / "nothing") == ""
