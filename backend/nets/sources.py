"""Where weights come from: their publisher, huggingface_hub's cache or the user's disk; each file is judged alike."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..run import Run
from ..wire import UserError
from .formats import CONFIG, SAFETENSORS, count_parameters, form_of, guess, network_of
from .manifest import Model, WeightsFile, size_in_words

if TYPE_CHECKING:
    from .hub import Remote

BLOCK = 1 << 20
CHECKPOINTS = (".safetensors", ".pth", ".pt")
Check = Callable[[Path, str], None]  # judges a file and its SHA-256 before it gets its name


@dataclass(frozen=True)
class Got:
    """A model's files for the receipt: where from, of which commit, and what is noted of each (`receipt.Receipt`)."""

    source: str
    commit: str | None
    files: dict[str, dict[str, Any]]


def from_publisher(model: Model, folder: Path, offline: bool, run: Run) -> Got:
    """Download a model into the weights folder. Raises UserError that says what is wrong and what to do."""
    from . import download, hub

    if model.page:
        raise UserError(
            f"{model.title} can only be downloaded by hand ({model.note})",
            f"see {model.page}, then run: python -m backend weights get {model.name} --from FILE",
        )
    if offline or hub.is_offline():
        raise UserError(
            f"The weights of {model.title} are not on this machine, and downloads are off",
            "go online (HF_HUB_OFFLINE), or get the file elsewhere and give it with --from",
        )
    files, commit, before = {}, model.revision, 0
    for file in model.files:
        target = folder / model.name / file.name
        try:
            remote, sha256 = download.fetch(
                _locator(model, file, commit), target, run, _checker(model, file), (before, model.size)
            )
        except hub.Absent:
            if not file.optional:
                raise
            continue
        commit, before = remote.commit, before + (remote.bytes or 0)
        by = "as pinned" if file.sha256 else "as the hub lists it" if commit else "as its name says in part"
        files[file.name] = _noted(target, sha256, by, file is model.checkpoint)
    return Got(model.source, commit, files)


def _locator(model: Model, file: WeightsFile, commit: str | None) -> Callable[[], Remote]:
    """What finds the file where it is published, all files of a model in one commit."""
    from . import hub

    def locate() -> Remote:
        if model.repo:
            return _as_expected(model, file, hub.on_hub(model.repo, file.name, commit))
        return _as_expected(model, file, hub.at_address(torchvision_url(model.torchvision)))

    return locate


def _checker(model: Model, file: WeightsFile) -> Check:
    def check(part: Path, sha256: str) -> None:
        _check_hash(file, file.name, sha256)
        judge(model, part, file.name, file is model.checkpoint)

    return check


def _as_expected(model: Model, file: WeightsFile, remote: Remote) -> Remote:
    """What the publisher says, if it agrees with what is known; with the pinned figures where it says nothing."""
    size = remote.bytes
    far = file.about_bytes and size and not 0.9 * file.about_bytes < size < 1.1 * file.about_bytes
    if far or (file.bytes and size and size != file.bytes):
        raise UserError(
            f"The {file.name} of {model.title} has {size_in_words(size)} there, not {size_in_words(file.size)}",
            "its publisher has changed it: update Kinora",
        )
    if file.sha256 and remote.sha256 and remote.sha256 != file.sha256:
        raise UserError(f"The {file.name} of {model.title} was changed by its publisher", "update Kinora")
    return replace(remote, bytes=size or file.bytes, sha256=remote.sha256 or file.sha256)


def torchvision_url(name: str) -> str:
    """The address of weights in torchvision's own list."""
    from torchvision.models import get_weight

    return get_weight(name).url


def from_cache(model: Model, run: Run) -> Got | None:
    """The files that another program downloaded with huggingface_hub, where they are; None unless all are right."""
    if not model.repo:
        return None
    from huggingface_hub import try_to_load_from_cache

    files, commit = {}, None
    for file in model.files:
        found = try_to_load_from_cache(model.repo, file.name, revision=model.revision)
        if not isinstance(found, str):
            if file.optional:
                continue
            return None
        path = Path(found)
        commit, listed = path.parent.name, path.resolve().name  # snapshots/COMMIT/NAME is a link to blobs/HASH
        sha256 = sha256_of(path, run)
        try:
            _check_size(file, path)
            _check_hash(file, file.name, sha256)
            judge(model, path, file.name, file is model.checkpoint)
        except UserError:
            return None
        if len(listed) == 64 and listed != sha256:
            return None
        by = "as pinned" if file.sha256 else "as the hub listed it" if len(listed) == 64 else "as found in the cache"
        files[file.name] = _noted(path, sha256, by, file is model.checkpoint, in_place=True)
    return Got(model.source, commit, files)


def from_disk(model: Model, source: Path, folder: Path, in_place: bool, run: Run) -> Got:
    """A file, or a folder with the model's files, of the user's own; what stands beside the checkpoint comes along.

    The checkpoint may have another name or format than the published one. Raises UserError if it is not that model.
    """
    if not source.exists():
        raise UserError(f"There is no file {source}", "check the path")
    checkpoint = _checkpoint_in(model, source) if source.is_dir() else source
    judge(model, checkpoint, checkpoint.name, True)  # first: a cut or foreign file needs no companions
    chosen = [(model.checkpoint, checkpoint)]
    for file in model.files[1:]:
        beside = checkpoint.with_name(file.name)
        if beside.is_file():
            chosen.append((file, beside))
        elif not file.optional and checkpoint.suffix == ".safetensors":  # a .pth tells of its network itself
            raise UserError(
                f"There is no {file.name} beside {checkpoint.name}", f"put that of {model.source} there too"
            )
    files = {}
    for file, path in chosen:
        published = path.suffix == Path(file.name).suffix  # another format has figures of its own
        if published:
            _check_size(file, path)
        judge(model, path, path.name, file is model.checkpoint)

        def check(
            part: Path, sha256: str, file: WeightsFile = file, held: bool = published, name: str = path.name
        ) -> None:
            if held:
                _check_hash(file, name, sha256)

        target = path if in_place else folder / model.name / path.name
        if path == target:
            check(path, sha256 := sha256_of(path, run))
        else:
            sha256 = _copy(path, target, check, run)
        by = "as pinned" if published and file.hash_start else "as it was given; network and size are right"
        files[path.name] = _noted(target, sha256, by, file is model.checkpoint, in_place)
    return Got(str(source), None, files)


def _checkpoint_in(model: Model, folder: Path) -> Path:
    if (named := folder / model.checkpoint.name).is_file():
        return named
    found = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINTS)
    if len(found) != 1:
        what = "no checkpoint" if not found else f"{len(found)} checkpoints"
        raise UserError(f"{folder} has {what} and no {model.checkpoint.name}", "give the file itself with --from")
    return found[0]


def _noted(path: Path, sha256: str, by: str, checkpoint: bool, in_place: bool = False) -> dict[str, Any]:
    size, stands_at = path.stat().st_size, str(path) if in_place else None
    return {"bytes": size, "sha256": sha256, "checked_by": by, "checkpoint": checkpoint, "path": stands_at}


def judge(model: Model, path: Path, name: str, is_checkpoint: bool) -> None:
    """Raise UserError unless the file is what the list says: tensors of that network, as many as it has; or JSON.

    `name` is what messages call the file.
    """
    form, other = form_of(path, name), "choose the weights of this model"
    if not is_checkpoint:
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{name} of {model.title} is not a configuration", "get it again") from error
        return
    if form.kind == CONFIG:
        raise UserError(f"{name} is a configuration, not the weights of {model.title}", other)
    if form.kind == SAFETENSORS:
        shapes = form.shapes
    else:
        from .checkpoint import read_checkpoint

        shapes = {key: tuple(tensor.shape) for key, tensor in read_checkpoint(path, name).tensors.items()}
    if network_of(shapes) != model.network:
        looks = guess(shapes)
        raise UserError(f"{name} is not {model.title}", f"it looks like {looks}; {other}" if looks else other)
    count = count_parameters(shapes)
    if model.parameters not in (None, count):
        raise UserError(f"{name} is not {model.title}: it has {count:,} parameters, not {model.parameters:,}", other)


def _check_size(file: WeightsFile, path: Path) -> None:
    size = path.stat().st_size
    if file.bytes and size != file.bytes:
        cut = f"is cut at byte {size} of {file.bytes}" if size < file.bytes else f"has {size} bytes, not {file.bytes}"
        raise UserError(f"{path.name} {cut}", "get it again")


def _check_hash(file: WeightsFile, name: str, sha256: str) -> None:
    if file.hash_start and not sha256.startswith(file.hash_start):
        raise UserError(f"{name} has another checksum than the published file", "get it again")


def sha256_of(path: Path, run: Run) -> str:
    """The SHA-256 of a file, with progress."""
    digest = hashlib.sha256()
    _each_block(path, digest.update, run)
    return digest.hexdigest()


def _copy(path: Path, target: Path, check: Check, run: Run) -> str:
    """Copy a file, which appears whole and checked or not at all; its SHA-256."""
    from .download import check_space, settle

    check_space(target.parent, path.stat().st_size)
    part, digest = target.with_name(f".{target.name}.copy.part"), hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:

            def take(block: bytes) -> None:
                digest.update(block)
                file.write(block)

            _each_block(path, take, run)
            file.flush()
            os.fsync(file.fileno())
        check(part, digest.hexdigest())
        os.replace(part, target)
        settle(target.parent)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror})", "free some space, or use --in-place"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return digest.hexdigest()


def _each_block(path: Path, take: Callable[[bytes], None], run: Run) -> None:
    whole, done = max(path.stat().st_size, 1), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            take(block)
            done += len(block)
            run.progress(done / whole)
