"""Bundles: footage has one identity wherever it lies, and a hostile archive harms nothing."""

import hashlib
import io
import os
import tarfile
import tracemalloc

import pytest

from backend.footage import images as images_of_the_backend
from blender_addon.wire import bundle
from blender_addon.wire.bundle import IMAGE_SUFFIXES, identify, pack, unpack
from blender_addon.wire.errors import Cancelled, UserError


def images(folder, names=("b.png", "a.png", "c.PNG")):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def test_a_file_is_known_by_its_content(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x" * 3_000_000)
    found = identify(clip)
    assert (found.kind, found.size) == ("file", 3_000_000)
    assert found.sha256 == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_folder_is_known_by_the_names_and_contents_of_its_images(tmp_path):
    one, two = images(tmp_path / "one"), images(tmp_path / "two" / "deeper")
    os.utime(two / "a.png", (1, 1))
    os.chmod(two / "b.png", 0o600)
    (two / "notes.txt").write_text("no image")
    (two / ".a.png").write_bytes(b"hidden")
    assert identify(one).sha256 == identify(two).sha256
    assert identify(one).kind == "folder"
    (two / "a.png").write_bytes(b"other")
    assert identify(one).sha256 != identify(two).sha256


def test_what_is_sent_is_what_was_identified_and_comes_back(tmp_path):
    folder = images(tmp_path / "images")
    with open(tmp_path / "images.tar", "wb") as file:
        pack(folder, file)
    known = identify(folder)
    assert hashlib.sha256((tmp_path / "images.tar").read_bytes()).hexdigest() == known.sha256
    assert (tmp_path / "images.tar").stat().st_size == known.size
    back = unpack(tmp_path / "images.tar", tmp_path / "back")
    assert {p.name: p.read_bytes() for p in back} == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_images_are_the_same_on_both_sides():
    assert IMAGE_SUFFIXES == images_of_the_backend.IMAGE_SUFFIXES


def test_one_image_stands_for_its_numbered_siblings(tmp_path):
    folder = images(tmp_path / "shots", ("a_001.png", "a_002.png", "a_x.png", "b_001.png", "a_001.jpg"))
    with open(tmp_path / "it.tar", "wb") as file:
        pack(folder / "a_002.png", file)
    assert identify(folder / "a_001.png").kind == "sequence"
    assert [p.name for p in unpack(tmp_path / "it.tar", tmp_path / "back")] == ["a_001.png", "a_002.png"]


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"")], ids=["missing", "no images", "empty"]
)
def test_what_is_no_footage_is_refused(tmp_path, make):
    make(tmp_path / "clip")
    with pytest.raises(UserError):
        identify(tmp_path / "clip")


def test_hashing_can_be_abandoned(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(Cancelled):
        identify(tmp_path / "clip.mp4", lambda: True)


def member(name, **fields):
    entry = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        member("../outside.png"),
        member("/tmp/outside.png"),
        member("folder/inside.png"),
        member("back\\slash.png"),
        member(".hidden.png"),
        member("folder", type=tarfile.DIRTYPE),
        member("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.png", type=tarfile.LNKTYPE, linkname="../../secret"),
        member("pipe.png", type=tarfile.FIFOTYPE),
        member("disk.png", type=tarfile.BLKTYPE),
    ],
    ids=lambda entry: entry.name,
)
def test_an_archive_with_anything_but_plain_images_is_refused_whole(tmp_path, entry):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(member("good.png", size=3), io.BytesIO(b"abc"))
        tar.addfile(entry)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "bad.tar", tmp_path / "inner" / "back")
    assert not (tmp_path / "inner").exists()


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(UserError):
        unpack(tmp_path / "bad.tar", tmp_path / "back")


def test_long_and_foreign_names_travel(tmp_path):
    names = ("x" * 200 + "_1.png", "Läufer_1.png", "走_1.png")
    folder = images(tmp_path / "images", names)
    with open(tmp_path / "images.tar", "wb") as file:
        pack(folder, file)
    assert {p.name for p in unpack(tmp_path / "images.tar", tmp_path / "back")} == set(names)


def pax(records, after=b""):
    """A tar whose one file has an extended header of these records."""
    entry = member("a.png", size=3)
    entry.pax_headers = records
    return entry.tobuf(tarfile.PAX_FORMAT) + b"abc".ljust(512, b"\0") + after + bytes(1024)


BOMBS = {
    "a file larger than the archive": member("a.png", size=2**40).tobuf(),
    "a size that a later header overrides": pax({"size": str(2**40)}),
    "a sparse file of a terabyte": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}),
    "an old sparse file": member("a.png", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT) + bytes(1024),
    "a long name of a megabyte": pax({"path": "x" * 2**20 + ".png"}),
    "a name that a header makes absolute": pax({"path": "/etc/passwd"}),
    "a name that a header leads outside": pax({"path": "../x.png"}),
    "a name with a NUL": pax({"path": "a\0.png"}),
    "ten thousand headers for one file": pax({"path": "a.png"})[:1024] * 10_000 + pax({}),
    "two files of one name": pax({}, member("a.png").tobuf()),
    "a header for everything": tarfile.TarInfo.create_pax_global_header({"path": "/etc/passwd"}) + pax({}),
    "a size below nothing": member("a.png").tobuf()[:124] + b"\xff" * 12 + member("a.png").tobuf()[136:],
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_is_a_trap_is_refused_before_anything_is_written(tmp_path, name):
    (tmp_path / "bomb.tar").write_bytes(BOMBS[name])
    tracemalloc.start()
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "bomb.tar", tmp_path / "inner" / "back")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert not (tmp_path / "inner").exists()


def test_more_files_than_a_shot_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MOST_IMAGES", 10)
    (tmp_path / "many.tar").write_bytes(b"".join(member(f"{i}.png").tobuf() for i in range(11)) + bytes(1024))
    with pytest.raises(UserError, match="more than 10 files"):
        unpack(tmp_path / "many.tar", tmp_path / "back")
