"""Checkpoints: tensors read from a file without running anything in it, and loaded into a module, every one or none."""

from __future__ import annotations

import argparse
import ast
import json
import math
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..wire import UserError
from .formats import CONFIG, OLD_TORCH, SAFETENSORS, form_of, guess

#: Beginnings of names whose objects stand beside the tensors in published files (training arguments, scores). They are
#: read as `_Inert`, so nothing of these packages is imported or run.
HARMLESS = ("omegaconf.", "numpy.", "pathlib.", "typing.", "collections.")
HARMLESS_TYPES = ("dict", "list", "tuple", "set", "int", "float", "str", "bool", "object", "complex", "bytes")
OLD_HARMLESS = ("numpy.core.multiarray.scalar", "numpy.dtype")  # an old file does not tell beforehand what it names
#: A checkpoint's part that holds the network's tensors, in order of preference.
MODEL_PARTS = ("model", "state_dict", "network_fn_d_state_dict")
MAX_CONSTRUCTOR = 20_000


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, mapped from the file and not yet in memory, and the text that configures their network.

    `config_text` is the JSON beside a safetensors file, or the constructor expression in a .pth file; None without one.
    `tied` lists names that the writer left out, with the name whose tensor is theirs.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config_text: str | None = None
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """The network's arguments. Raises UserError when there are none, or they are not plain values."""
        if self.config_text is None:
            raise UserError(f"{self.path.name} does not say how its network is built", "put its config.json beside it")
        if not self.config_text.lstrip().startswith("{"):
            return parse_constructor_text(self.config_text)
        try:
            return json.loads(self.config_text)  # Infinity, as these files have it, is understood
        except (ValueError, RecursionError) as error:
            raise UserError(f"The configuration beside {self.path.name} is damaged", "get it again") from error


def read_checkpoint(path: Path, name: str = "") -> Checkpoint:
    """Tensors and configuration of a .safetensors, .pth or .pt file; `name` is what messages call it.

    The tensors are views of the file, which must not change while they live. Raises UserError when the file is cut, not
    a checkpoint, or would run code of its own.
    """
    path, name = Path(path), name or Path(path).name
    form = form_of(path, name)
    if form.kind == CONFIG:
        raise UserError(f"{name} is a configuration, not weights", "give the weights file beside it")
    if form.kind != SAFETENSORS:
        return _read_torch(path, name, old=form.kind == OLD_TORCH)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in form.shapes}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{name} is damaged ({error})", "download it again") from error
    beside = path.with_name("config.json")
    config_text = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else None
    tied = {key: kept for key, kept in form.metadata.items() if kept in tensors and key not in tensors}
    return Checkpoint(path, tensors, config_text, tied)


class _Inert:
    """What an object of no interest becomes: it takes anything, does nothing, and keeps its state to be looked at."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


def _inert_table(*arguments: Any) -> dict:
    return {}


def _read_torch(path: Path, name: str, old: bool) -> Checkpoint:
    """A file of torch.save, through torch's own reader that knows tensors and containers and an allow-list, no more."""
    get = "get the file from its publisher, or as .safetensors"
    try:
        foreign = OLD_HARMLESS if old else torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        foreign = [each for each in foreign if each != "argparse.Namespace"]
        refused = [each for each in foreign if not _is_harmless(each)]
        if refused:
            raise UserError(f"{name} was not opened: it wants to run {' and '.join(refused[:3])}", get)
        allowed = [(_inert_table if each == "collections.defaultdict" else _Inert, each) for each in foreign]
        with torch.serialization.safe_globals([argparse.Namespace, *allowed]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=None if old else True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|function|class) ([\w.]+)", str(error))
        raise UserError(f"{name} was not opened: it wants to run {named[1] if named else 'code'}", get) from error
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{name} is damaged ({str(error).splitlines()[0][:120]})", "download it again") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{name} holds a {type(content).__name__}, not the tensors of a network", get)
    model = next((content[part] for part in MODEL_PARTS if isinstance(content.get(part), Mapping)), content)
    tensors = {key: tensor for key, tensor in model.items() if isinstance(tensor, Tensor)}
    if not tensors:
        parts = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise UserError(f"{name} holds no tensors of a network, but {parts}", get)
    if all(key.startswith("module.") for key in tensors):  # trained on several GPUs
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return Checkpoint(path, tensors, _constructor_text(content.get("args")))


def _is_harmless(name: str) -> bool:
    package, _, rest = name.partition(".")
    return name.startswith(HARMLESS) or (package in ("builtins", "__builtin__") and rest in HARMLESS_TYPES)


def _constructor_text(arguments: Any) -> str | None:
    """`args.model`, from a Namespace or from the tree that OmegaConf keeps."""
    model = getattr(arguments, "model", None)
    content = getattr(arguments, "_content", None)
    if model is None and isinstance(content, Mapping):
        model = getattr(content.get("model"), "_val", None)
    return model if isinstance(model, str) else None


def parse_constructor_text(text: str) -> dict[str, Any]:
    """Keyword arguments of `Name(key=value, ...)`, read and never run: numbers, text, None, inf, tuples, lists, tables.

    A constructor that only wraps another, `Net(NetConfig(...))`, gives the inner one's. Raises UserError on all else.
    """
    wrong = UserError("The checkpoint's description of its network is not a plain list of arguments", "")
    try:
        if len(text) > MAX_CONSTRUCTOR:
            raise wrong
        node: ast.AST = ast.parse(text.strip(), mode="eval").body
        while isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
            node = node.args[0]
        plain = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args
        if not plain or any(keyword.arg is None for keyword in node.keywords):
            raise wrong
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise wrong from error


def _literal(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _literal(operand)
            if type(value) in (int, float):
                return -value
        case ast.Tuple(elts=items):
            return tuple(map(_literal, items))
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_literal(key): _literal(value) for key, value in zip(keys, values)}
    raise ValueError(f"not a plain value: {ast.dump(node)[:80]}")


def tied_names(names: Iterable[str]) -> dict[str, str]:
    """Aliases within DPT heads: `...scratch.layer_rn.{n}.weight` is `...scratch.layer{n+1}_rn.weight` (n from 0 to 3).

    Made from names of either layout; for `load_strictly`, which takes an alias both ways. specs/monst3r.md section 1.
    """
    aliases = {}
    for name in names:
        if match := re.fullmatch(r"(.*\bscratch\.)layer(?:_rn\.(\d)|(\d)_rn)\.weight", name):
            n = int(match[2]) if match[2] else int(match[3]) - 1
            aliases[f"{match[1]}layer_rn.{n}.weight"] = f"{match[1]}layer{n + 1}_rn.weight"
    return aliases


def with_second_decoder(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors with a copy of `dec_blocks` as `dec_blocks2` if the file has none of those, as files of CroCo."""
    if any(name.startswith("dec_blocks2.") for name in tensors):
        return tensors
    first = {name: tensor for name, tensor in tensors.items() if name.startswith("dec_blocks.")}
    return {**tensors, **{name.replace("dec_blocks.", "dec_blocks2.", 1): t.clone() for name, t in first.items()}}


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor] | Checkpoint,
    aliases: Mapping[str, str] | None = None,
    ignorable: Iterable[str] = (),
    name: str = "",
) -> None:
    """Give the module's every parameter and buffer its tensor from the file, in the module's own precision.

    A module built on the "meta" device takes the tensors as they are, so they are in memory once, or still in the file.
    `aliases` are pairs of names that share a tensor: either may stand in for the other. `ignorable` are names, or
    beginnings that end with a dot, that the file may have in excess. Raises UserError, before anything is changed, that
    names what is missing, unexpected or of another shape, and tells what the file seems to be.
    """
    if isinstance(tensors, Checkpoint):
        aliases, name = {**tensors.tied, **(aliases or {})}, name or tensors.path.name
        tensors = tensors.tensors
    name, wanted = name or "The checkpoint", module.state_dict()
    other: dict[str, list[str]] = {}
    for one, two in (aliases or {}).items():
        other.setdefault(one, []).append(two)
        other.setdefault(two, []).append(one)
    chosen, missing = {}, []
    for key in wanted:
        source = next((k for k in (key, *other.get(key, ())) if k in tensors), None)
        if source is None:
            missing.append(key)
        else:
            chosen[key] = tensors[source]
    ignorable, unexpected, torn = tuple(ignorable), [], []
    for key in tensors:
        if key in wanted or any(key == i or (i.endswith(".") and key.startswith(i)) for i in ignorable):
            continue
        twin = next((k for k in other.get(key, ()) if k in chosen), None)
        if twin is None:
            unexpected.append(key)
        elif not _same(chosen[twin], tensors[key]):
            torn.append(f"{key} and {twin}")
    misshapen = [
        f"{key} {list(tensor.shape)} instead of {list(wanted[key].shape)}"
        for key, tensor in chosen.items()
        if tensor.shape != wanted[key].shape
    ]
    faults = {"lacks": missing, "has the unknown": unexpected, "has": misshapen, "has two values for": torn}
    _complain(name, tensors, faults)
    meta = any(tensor.is_meta for tensor in wanted.values())
    if meta:
        place = {key: tensor.device for key, tensor in wanted.items() if not tensor.is_meta}
        chosen = {key: tensor.to(place.get(key, "cpu"), wanted[key].dtype) for key, tensor in chosen.items()}
    module.load_state_dict(chosen, strict=True, assign=meta)
    left = [key for key, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if left:
        raise ValueError(f"not in the state dict, and left without values: {', '.join(left[:3])}")


def _same(one: Tensor, two: Tensor) -> bool:
    return one.data_ptr() == two.data_ptr() or (one.shape == two.shape and torch.equal(one, two))


def _complain(name: str, tensors: Mapping[str, Tensor], faults: Mapping[str, list[str]]) -> None:
    parts = [f"{what} {_few(keys)}" for what, keys in faults.items() if keys]
    if parts:
        looks = guess(tensors)
        hint = f"this looks like {looks}; " if looks else ""
        raise UserError(
            f"{name} does not fit the network: it {' and '.join(parts)}", f"{hint}choose the weights of this network"
        )


def _few(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
