"""What a weights file is, told from its bytes: its format, whether it is whole, and which network it belongs to.

Nothing of the file is run, and neither torch nor safetensors is imported, so a download is judged before it is opened.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..wire import UserError

SAFETENSORS, TORCH, OLD_TORCH, CONFIG = "safetensors", "torch", "old torch", "config"

#: A safetensors header is JSON of at most this many bytes; what claims more is something else.
MAX_HEADER = 100 * 1024 * 1024
OLD_TORCH_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ITEM_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}

#: (a name that begins so, what the file then is); the first that fits wins.
NETWORKS = (
    ("downstream_head1.head_local_features.", "MASt3R"),
    ("dec_blocks_memory.", "Point3R"),
    ("dec_blocks_state.", "CUT3R"),
    ("downstream_head1.dpt.", "a pair network with a DPT head (MonST3R or DUSt3R)"),
    ("downstream_head1.proj.", "a pair network with a linear head (DUSt3R)"),
    ("downstream_head1.", "a pair network with another head"),
    ("prediction_head.", "CroCo, which was trained before any head for points"),
    ("vision_encoder.backbone.", "SAM 2 in the form of transformers"),
    ("image_encoder.trunk.", "SAM 2 in the form of its authors"),
    ("feature_encoder.convnormrelu.", "RAFT in the form of torchvision"),
    ("update_block.", "RAFT in the form of its authors"),
    ("fnet.", "RAFT in the form of its authors"),
    ("mlp_dynamic.", "MonoNeRF"),
    ("mlp_static.", "MonoNeRF"),
    ("optimizer", "a training snapshot"),
)


@dataclass(frozen=True)
class FileForm:
    """A weights file as its first bytes describe it.

    `shapes` has every tensor's shape for safetensors, and is empty for the others, whose names only unpickling tells.
    """

    kind: str
    bytes: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold together."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def form_of(path: Path) -> FileForm:
    """What the file is. Raises UserError that says what is wrong with one that is cut or no weights file at all."""
    path = Path(path)
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(512)
            if size == 0:
                raise UserError(f"{path.name} is empty", "download it again")
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
                file.seek(8)
                return _safetensors(path.name, size, file.read(int.from_bytes(start[:8], "little")), start)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", "choose another file") from error
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path.name} is cut: it ends at byte {size}, before its table of contents", AGAIN)
        return FileForm(TORCH, size)
    if start.startswith(OLD_TORCH_START):
        return FileForm(OLD_TORCH, size)
    _refuse(path, size, start)
    return FileForm(CONFIG, size)


AGAIN = "download it again; what is there already is not downloaded twice"


def _safetensors(name: str, size: int, header: bytes, start: bytes) -> FileForm:
    length = int.from_bytes(start[:8], "little")
    if len(header) < length:
        raise UserError(f"{name} is cut at byte {size}, within its header of {length} bytes", AGAIN)
    damaged = UserError(f"The header of {name} is damaged", AGAIN)
    try:
        entries = json.loads(header)
        metadata = entries.pop("__metadata__", {})
        shapes, end = {}, 0
        for key, entry in entries.items():
            shape, (begin, stop) = tuple(entry["shape"]), entry["data_offsets"]
            item = ITEM_BYTES.get(entry["dtype"])
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, stop))
            if not whole or (item and stop - begin != math.prod(shape) * item):
                raise damaged
            shapes[key], end = shape, max(end, stop)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged from error
    whole = 8 + length + end
    if size < whole:
        raise UserError(f"{name} is cut at byte {size} of {whole}", AGAIN)
    if size > whole:
        raise UserError(f"{name} goes on for {size - whole} bytes after its last tensor", AGAIN)
    return FileForm(SAFETENSORS, size, shapes, {str(k): str(v) for k, v in metadata.items()})


def _refuse(path: Path, size: int, start: bytes) -> None:
    """Raise UserError for what is neither weights nor JSON, naming what it looks like."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    get = "download the file itself, or let 'python -m backend weights get' do it"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(f"{path.name} is a web page, not a weights file", get)
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path.name} is a git-lfs pointer, a note of {size} bytes in place of the file", get)
    if text.startswith((b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"rar!", b"\x28\xb5\x2f\xfd", b"bzh")):
        raise UserError(f"{path.name} is a packed archive", "unpack it, and give the weights file inside")
    if text.startswith(b"\x80") and len(text) > 1 and text[1] < 6:
        raise UserError(f"{path.name} is a bare pickle, not a checkpoint", "get the file that its publisher offers")
    if not text.startswith(b"{"):
        what = "a text file" if start.isascii() and b"\0" not in start else "not a checkpoint of any known format"
        raise UserError(f"{path.name} is {what}, not weights" if "text" in what else f"{path.name} is {what}", get)


def guess(names: Iterable[str]) -> str:
    """Which network the names of tensors, or of a snapshot's parts, belong to; '' when none is recognised."""
    names = list(names)
    return next((what for start, what in NETWORKS if any(name.startswith(start) for name in names)), "")
