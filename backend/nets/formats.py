"""What a weights file is, told from its bytes: its format, whether it is whole, and which network it belongs to.

Nothing of the file is run, and neither torch nor safetensors is imported, so a download is judged before it is opened.
"""

from __future__ import annotations

import json
import math
import os
import re
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

STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")

#: (a name that begins so, the network's name in the list of weights, in words); the first that fits wins.
NETWORKS = (
    ("downstream_head1.head_local_features.", "mast3r", "MASt3R"),
    ("dec_blocks_memory.", "point3r", "Point3R"),
    ("dec_blocks_state.", "cut3r", "CUT3R"),
    ("downstream_head1.dpt.", "pair-dpt", "a pair network with a DPT head (MonST3R or DUSt3R)"),
    ("downstream_head1.proj.", "pair-linear", "a pair network with a linear head (DUSt3R)"),
    ("downstream_head1.", "pair", "a pair network with another head"),
    ("prediction_head.", "croco", "CroCo, which was trained before any head for points"),
    ("vision_encoder.backbone.", "sam2-transformers", "SAM 2 in the form of transformers"),
    ("image_encoder.trunk.", "sam2", "SAM 2 in the form of its authors"),
    ("feature_encoder.convnormrelu.", "raft-torchvision", "RAFT in the form of torchvision"),
    ("update_block.", "raft", "RAFT in the form of its authors"),
    ("fnet.", "raft", "RAFT in the form of its authors"),
    ("mlp_dynamic.", "mononerf", "MonoNeRF"),
    ("mlp_static.", "mononerf", "MonoNeRF"),
    ("layer4.1.bn2.", "resnet", "ResNet in the form of torchvision"),
    ("optimizer", "snapshot", "a training snapshot"),
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


def form_of(path: Path, name: str = "") -> FileForm:
    """What the file is; `name` is what messages call it, by default its own name.

    Raises UserError that says what is wrong with one that is cut, or no weights file at all.
    """
    name = name or Path(path).name
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(512)
            if size == 0:
                raise UserError(f"{name} is empty", "download it again")
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER:
                file.seek(8)
                return _safetensors(name, size, file.read(int.from_bytes(start[:8], "little")), start)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", "choose another file") from error
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise UserError(f"{name} is cut: it ends at byte {size}, before its table of contents", AGAIN)
        return FileForm(TORCH, size)
    if start.startswith(OLD_TORCH_START):
        return FileForm(OLD_TORCH, size)
    _refuse(name, size, start)
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


def _refuse(name: str, size: int, start: bytes) -> None:
    """Raise UserError for what is neither weights nor JSON, naming what it looks like."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    get = "download the file itself, or let 'python -m backend weights get' do it"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(f"{name} is a web page, not a weights file", get)
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{name} is a git-lfs pointer, a note of {size} bytes in place of the file", get)
    if text.startswith((b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"rar!", b"\x28\xb5\x2f\xfd", b"bzh")):
        raise UserError(f"{name} is a packed archive", "unpack it, and give the weights file inside")
    if text.startswith(b"\x80") and len(text) > 1 and text[1] < 6:
        raise UserError(f"{name} is a bare pickle, not a checkpoint", "get the file that its publisher offers")
    if not text.startswith(b"{"):
        is_text = start.isascii() and b"\0" not in start
        raise UserError(
            f"{name} is {'a text file, not weights' if is_text else 'not a checkpoint of a known format'}", get
        )


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers were trained: without the statistics of batch norms, tensors under two names counted once."""

    def counts(name: str) -> bool:
        second = re.fullmatch(r"(.*\bscratch\.)layer_rn\.(\d)\.weight", name)
        twin = second and f"{second[1]}layer{int(second[2]) + 1}_rn.weight"
        return not name.endswith(STATISTICS) and twin not in shapes

    return sum(math.prod(shape) for name, shape in shapes.items() if counts(name))


def network_of(names: Iterable[str]) -> str:
    """The network that the names of tensors belong to, as the list of weights calls it; '' when none is recognised."""
    return _row_of(names)[1]


def guess(names: Iterable[str]) -> str:
    """The same in words."""
    return _row_of(names)[2]


def _row_of(names: Iterable[str]) -> tuple[str, str, str]:
    names = list(names)
    return next((row for row in NETWORKS if any(name.startswith(row[0]) for name in names)), ("", "", ""))
