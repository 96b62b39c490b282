"""The weights folder and its receipt, weights.json: what was got from where, its checksums, and accepted licences."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..wire import UserError, paths
from .manifest import Model

NAME = "weights.json"
FIELDS = ("bytes", "sha256", "checked_by", "checkpoint", "path")


def weights_folder(chosen: Path | None = None) -> Path:
    """Where weights are kept: as chosen, else KINORA_WEIGHTS, else in Kinora's data folder."""
    said = chosen or os.environ.get("KINORA_WEIGHTS")
    return Path(said).expanduser().absolute() if said else paths.home() / "weights"


@dataclass(frozen=True)
class Installed:
    """A model whose files are on this machine: the path of each, and what the receipt says of it."""

    model: Model
    files: Mapping[str, Path]
    record: Mapping[str, Any]

    @property
    def checkpoint(self) -> Path:
        """The file with the tensors."""
        return next(path for name, path in self.files.items() if self.record["files"][name]["checkpoint"])

    def stamp(self) -> dict[str, Any]:
        """What a capture says of the weights that made it."""
        checkpoint = next(file for file in self.record["files"].values() if file["checkpoint"])
        return {
            "name": self.model.name,
            "source": self.record["source"],
            "commit": self.record["commit"],
            "sha256": checkpoint["sha256"],
            "licence": self.model.licence.name,
            "commercial_use": self.model.licence.commercial_use,
        }


class Receipt:
    """weights.json of a folder: `{"version": 1, "models": {name: record}}`.

    A record has `source`, `commit` (None when not from a hub), `licence`, `accepted_at` (None when nothing had to be
    accepted), `got_at`, and `files`: `{name: {"bytes", "sha256", "checked_by", "checkpoint", "path"}}`. `path` is None
    for a file in the model's own folder; `checked_by` says, in words, what the checksum was held against.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._models: dict[str, Any] = {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["version"] != 1:
                raise UserError(f"{self.path} is of another version of Kinora", "update Kinora")
            self._models = dict(content["models"])
            for record in self._models.values():
                for file in record.get("files", {}).values():
                    _ = [file[key] for key in FIELDS]
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror})", "choose another folder") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.path} is damaged", "delete it and get the weights again: whole files stay"
            ) from error

    def accepted_at(self, model: Model) -> str | None:
        """When the user accepted the licence that the model has now; None when never."""
        record = self._models.get(model.name, {})
        return record.get("accepted_at") if record.get("licence") == model.licence.name else None

    def accept(self, model: Model) -> None:
        """Note that the user accepts the model's licence, once and for all."""
        record = self._models.setdefault(model.name, {})
        record.update({"licence": model.licence.name, "accepted_at": now()})
        self._write()

    def record(self, model: Model, source: str, commit: str | None, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what was got, in place of what was noted before."""
        accepted_at = self.accepted_at(model)
        self._models[model.name] = {
            "source": source,
            "commit": commit,
            "licence": model.licence.name,
            "accepted_at": accepted_at,
            "got_at": now(),
            "files": {name: dict(file) for name, file in files.items()},
        }
        self._write()

    def installed(self, model: Model) -> Installed | None:
        """The model if all its files stand where they were put, with the length they had."""
        record = self._models.get(model.name, {})
        if not record.get("files"):
            return None
        files = {name: self.place(model, name, file) for name, file in record["files"].items()}
        whole = all(path.is_file() and path.stat().st_size == record["files"][n]["bytes"] for n, path in files.items())
        return Installed(model, files, record) if whole else None

    def recorded(self, model: Model) -> dict[str, tuple[Path, Mapping[str, Any]]]:
        """Every file that was got, whether it still stands or not: its path, and what is noted of it."""
        record = self._models.get(model.name, {})
        return {name: (self.place(model, name, file), file) for name, file in record.get("files", {}).items()}

    def place(self, model: Model, name: str, file: Mapping[str, Any]) -> Path:
        """Where a file stands."""
        return Path(file["path"]) if file["path"] else self.path.parent / model.name / name

    def _write(self) -> None:
        beside = self.path.with_name(f".{NAME}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "w", encoding="utf-8") as file:
                json.dump({"version": 1, "models": self._models}, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise UserError(f"{self.path} cannot be written ({error.strerror})", "choose another folder") from error


def now() -> str:
    """The time as ISO 8601, to the second, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the folder. Raises UserError when one is at it; a killed one is not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+b")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})", "choose another with --folder") from error
    with file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):  # else the file system knows no locks
                raise UserError(f"Another process is getting weights into {folder}", "wait until it is done") from error
        yield
