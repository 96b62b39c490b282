"""Results of costly stages kept on disk, found again by what they were made from: the memory from job to job.

A result is a tree of arrays, numbers, text, lists, dictionaries and dataclasses. Its key is a digest of the stage's
name and of everything that the stage read: arrays and settings by content, the backend's own source, and the libraries
that compute. So an entry is right or is not found, and nobody has to remember to raise a version.

An entry is a folder `stage.KEY` with `0.npy`, `1.npy`, ... and `entry.txt`, which appears whole or not at all, and is
on the disk when it does: so this is also where a job that was killed goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .wire import UserError, paths, staged_folder

Result = TypeVar("Result")
log = logging.getLogger(__name__)

#: Raised when entries are written in another way.
VERSION = 1
#: Most bytes of all entries together; a single one may have half of it.
LIMIT_BYTES = 10 * 2**30
#: Bytes of the disk that are left to others.
LEAVE_FREE_BYTES = 4 * 2**30
#: Arrays from this size on are memory-mapped.
MAPPED_FROM_BYTES = 2**20
#: What a killed process left half-written is cleared away after so long; writing an entry takes minutes at most.
ABANDONED_S = 3600
#: Libraries on whose versions numbers depend.
LIBRARIES = ("numpy", "opencv-python-headless", "scipy", "pycolmap", "torch")
ENTRY = "entry.txt"


@dataclasses.dataclass
class StageMemory:
    """Entries below `folder`, at most `limit_bytes` in all: those whose last use is longest ago go first.

    Several processes may share a folder. Whatever cannot be read or written is computed instead, and logged.
    """

    folder: Path
    limit_bytes: int = LIMIT_BYTES
    leave_free_bytes: int = LEAVE_FREE_BYTES

    def remember(
        self,
        stage: str,
        made_from: Mapping[str, Any],
        compute: Callable[[], Result],
        types: Iterable[type] = (),
        check: Callable[[], None] = lambda: None,
        least_s: float = 0.0,
    ) -> Result:
        """What an earlier job had from `compute` for this stage and the same `made_from`, else what it gives now.

        `types` are the dataclasses in the result. Large arrays of a remembered result are mapped, and private: writing
        into them changes no entry. `check` is called between steps that take long and may raise. What took less than
        `least_s` to compute is not worth its room and is not kept.
        """
        key = self._key(stage, made_from, check)
        path = self._path(stage, key)
        found, result = _read(path, key, {t.__name__: t for t in types}, check)
        if found:
            log.info("%s: known from an earlier job", stage)
            return result
        began = time.monotonic()
        result = compute()
        if time.monotonic() - began < least_s:
            return result
        try:
            self._keep(path, key, result, check)
        except (OSError, UserError) as error:
            log.info("%s: not kept for later jobs (%s)", stage, error)
        return result

    def knows(self, stage: str, made_from: Mapping[str, Any]) -> bool:
        """Whether `remember` would hardly have to compute: there is an entry, unless it proves to be damaged."""
        key = self._key(stage, made_from, lambda: None)
        return (self._path(stage, key) / ENTRY).is_file()

    def _path(self, stage: str, key: str) -> Path:
        return self.folder / f"{stage.lower().replace(' ', '-')}.{key[:32]}"

    def _key(self, stage: str, made_from: Mapping[str, Any], check: Callable[[], None]) -> str:
        arrays: list[np.ndarray] = []
        tree = _taken_apart(dict(made_from), arrays)
        told = [VERSION, self._code, stage, tree, [digest(a, check) for a in arrays]]
        return _text_digest(json.dumps(told, sort_keys=True))

    @cached_property
    def _code(self) -> str:
        """Digest of everything that computes."""
        backend = Path(__file__).parent
        total = hashlib.sha256()
        for file in sorted([*backend.rglob("*.py"), *Path(paths.__file__).parent.rglob("*.py")]):
            total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        for library in LIBRARIES:
            total.update(f"{library} {_version(library)}\n".encode())
        return total.hexdigest()

    def _keep(self, path: Path, key: str, result: Any, check: Callable[[], None]) -> None:
        arrays: list[np.ndarray] = []
        tree = _taken_apart(result, arrays)
        size = sum(a.nbytes for a in arrays)
        self._make_room(size)
        with staged_folder(path, "The result", mark=f"-{secrets.token_hex(4)}") as staging:
            rows = []
            for n, array in enumerate(arrays):
                check()
                _save(array, staging / f"{n}.npy")
                rows.append(file_digest(staging / f"{n}.npy", check))
            told = json.dumps({"key": key, "tree": tree, "files": rows})
            (staging / ENTRY).write_text(f"{_text_digest(told)}\n{told}", encoding="utf-8")

    def _make_room(self, size: int) -> None:
        """Drop the entries used longest ago until `size` more bytes fit. Raises OSError when they never will."""
        if size > self.limit_bytes // 2:
            raise OSError(f"{size / 2**30:.1f} GiB are too much")
        paths.make_private(self.folder)
        entries = sorted(_entries(self.folder))
        used, free = sum(e[2] for e in entries), shutil.disk_usage(self.folder).free - self.leave_free_bytes
        for _, path, bytes_there in entries:
            if used + size <= self.limit_bytes and size <= free:
                break
            if _dropped(path):
                used, free = used - bytes_there, free + bytes_there
        if size > free:
            raise OSError("the disk is nearly full")


def digest(array: np.ndarray, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of an array's type, shape and content."""
    total = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    for row in array if array.ndim > 1 else [array]:
        check()
        total.update(np.ascontiguousarray(row).data)
    return total.hexdigest()


def _taken_apart(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON for a tree of values; its arrays are appended to `arrays`, and JSON has their number."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_taken_apart(v, arrays) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_taken_apart(k, arrays), _taken_apart(v, arrays)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _taken_apart(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"of": type(value).__name__, "fields": fields}
    raise TypeError(f"a stage's result or origin cannot hold a {type(value).__name__}")


def _put_together(tree: Any, arrays: list[np.ndarray], types: Mapping[str, type]) -> Any:
    """The inverse of `_taken_apart`. Raises LookupError for a dataclass that is not in `types`."""
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    if "of" in tree:
        fields = {name: _put_together(v, arrays, types) for name, v in tree["fields"].items()}
        return types[tree["of"]](**fields)
    if "dict" in tree:
        return {_put_together(k, arrays, types): _put_together(v, arrays, types) for k, v in tree["dict"]}
    items = [_put_together(v, arrays, types) for v in tree.get("list", tree.get("tuple"))]
    return items if "list" in tree else tuple(items)


def _read(path: Path, key: str, types: Mapping[str, type], check: Callable[[], None]) -> tuple[bool, Any]:
    """Whether there is a whole entry, and what it holds; a damaged one is dropped."""
    try:
        promised, told = (path / ENTRY).read_text(encoding="utf-8").split("\n", 1)
        entry = json.loads(told)
        if _text_digest(told) != promised or entry["key"] != key:
            raise ValueError(f"{ENTRY} is not what was written")
        arrays = []
        for n, told in enumerate(entry["files"]):
            file = path / f"{n}.npy"
            if file_digest(file, check) != told:
                raise ValueError(f"{file.name} is not what was written")
            mapped = file.stat().st_size >= MAPPED_FROM_BYTES
            arrays.append(np.load(file, mmap_mode="c" if mapped else None, allow_pickle=False))
        result = _put_together(entry["tree"], arrays, types)
        os.utime(path / ENTRY)
        return True, result
    except FileNotFoundError:
        return False, None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.info("A kept result is damaged and computed again: %s (%s)", path.name, error)
        _dropped(path)
        return False, None


def _save(array: np.ndarray, path: Path) -> None:
    """Write an .npy file; when the array is such a file already, and is only read, the same one under another name."""
    if isinstance(array, np.memmap) and array.mode == "r" and array.flags.c_contiguous:
        whole = np.load(array.filename, mmap_mode="r", allow_pickle=False)
        if (whole.shape, whole.dtype) == (array.shape, array.dtype):
            try:
                return os.link(array.filename, path)
            except OSError:  # another disk, or one without links
                pass
    np.save(path, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)  # one of 0-d has become 1-d


def file_digest(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's content."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**24):
            check()
            total.update(block)
    return total.hexdigest()


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entries(folder: Path) -> Iterator[tuple[float, Path, int]]:
    """(time of the last use, path, bytes) of every entry; what a killed process left is cleared away."""
    for path in folder.iterdir():
        try:
            if path.name.startswith("."):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            used = (path / ENTRY).stat().st_mtime
            yield used, path, sum(f.stat().st_size for f in path.iterdir())
        except OSError:  # another process dropped it just now
            continue


def _dropped(path: Path) -> bool:
    """Remove an entry at once, by a new name, unless the system holds on to it because somebody reads it."""
    gone = path.with_name(f".{path.name}.dropped-{os.getpid()}")
    try:
        os.replace(path, gone)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
