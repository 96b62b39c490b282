"""Checkpoints: whatever a file holds, nothing in it runs; a module gets every tensor or none."""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import sys
import types
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backend.nets.checkpoint import (
    load_strictly,
    parse_constructor_text,
    read_checkpoint,
    tied_names,
    with_second_decoder,
)
from backend.nets.formats import count_parameters, form_of
from backend.nets.pairwise import PairwiseConfig, PairwiseNet, aliases
from backend.wire import UserError

CONSTRUCTOR = (
    "Net(pos_embed='RoPE100', img_size=(512, 512), head_type='dpt', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), enc_depth=24, two_confs=True, freeze=None, landscape_only=False, hooks=[0, 6])"
)


class Scratch(nn.Module):
    """A DPT head's layers under both of their names, as the published networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1_rn, self.layer2_rn = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(5, 4, 3, bias=False)
        self.layer_rn = nn.ModuleList([self.layer1_rn, self.layer2_rn])


class Small(nn.Module):
    """Named as a pair network with a DPT head."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_norm = nn.LayerNorm(6)
        self.dec_blocks = nn.ModuleList([nn.Linear(6, 6)])
        self.dec_blocks2 = nn.ModuleList([nn.Linear(6, 6)])
        self.downstream_head1 = nn.ModuleDict({"dpt": nn.ModuleDict({"scratch": Scratch()})})


@pytest.fixture
def truth():
    torch.manual_seed(0)
    return {name: torch.randn_like(tensor) for name, tensor in Small().state_dict().items()} | {
        f"downstream_head1.dpt.scratch.{one}.weight": tensor
        for n, tensor in enumerate((torch.randn(4, 3, 3, 3), torch.randn(4, 5, 3, 3)))
        for one in (f"layer{n + 1}_rn", f"layer_rn.{n}")
    }


def without_twins(tensors):
    return {name: tensor for name, tensor in tensors.items() if "layer_rn" not in name}


def holds(module, truth):
    return all(torch.equal(tensor, truth[name]) for name, tensor in module.state_dict().items())


# Reading


def test_safetensors_are_read_with_their_configuration_and_their_tied_names(tmp_path, truth):
    tied = {name: name.replace("layer_rn.0", "layer1_rn") for name in truth if "layer_rn.0" in name}
    save_file(without_twins(truth), tmp_path / "model.safetensors", metadata={"format": "pt", **tied})
    (tmp_path / "config.json").write_text('{"head_type": "dpt", "depth_mode": ["exp", -Infinity, Infinity]}')
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.tied == tied
    assert checkpoint.config == {"head_type": "dpt", "depth_mode": ["exp", -math.inf, math.inf]}
    assert {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()} == {
        name: tensor.tolist() for name, tensor in without_twins(truth).items()
    }
    assert form_of(checkpoint.path).shapes == {name: tuple(t.shape) for name, t in without_twins(truth).items()}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("part", ["model", "state_dict", None])
def test_files_of_torch_are_read_with_the_text_of_their_arguments(tmp_path, truth, new, part):
    namespace = argparse.Namespace(model=CONSTRUCTOR, lr=1e-4)
    content = {part: truth, "args": namespace, "epoch": 3} if part else truth
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    checkpoint = read_checkpoint(tmp_path / "net.pth")
    assert checkpoint.tensors.keys() == truth.keys()
    assert all(torch.equal(tensor, truth[name]) for name, tensor in checkpoint.tensors.items())
    if part:
        assert checkpoint.config["depth_mode"] == ("exp", -math.inf, math.inf)
    else:
        with pytest.raises(UserError, match="does not say how its network is built"):
            checkpoint.config  # noqa: B018


def test_the_prefix_of_training_on_several_gpus_is_taken_off(tmp_path, truth):
    torch.save({"model": {f"module.{name}": tensor for name, tensor in truth.items()}}, tmp_path / "net.pth")
    assert read_checkpoint(tmp_path / "net.pth").tensors.keys() == truth.keys()


def test_training_arguments_of_a_foreign_package_are_read_without_it(tmp_path, truth, monkeypatch):
    """As OmegaConf writes them; the package, here a stand-in that notes every use, is gone when the file is read."""
    used = []
    module = types.ModuleType("omegaconf.dictconfig")
    for name in ("DictConfig", "AnyNode"):
        kind = type(name, (), {"__module__": module.__name__, "__setstate__": lambda self, state: used.append(state)})
        setattr(module, name, kind)
    package = types.ModuleType("omegaconf")
    package.dictconfig = module
    for each in (package, module):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    node, arguments = module.AnyNode(), module.DictConfig()
    node._val, arguments._content = CONSTRUCTOR, {"model": node}
    torch.save({"model": truth, "args": arguments, "best_so_far": math.nan}, tmp_path / "net.pth")
    for present in (True, False):
        if not present:
            monkeypatch.delitem(sys.modules, "omegaconf")
            monkeypatch.delitem(sys.modules, "omegaconf.dictconfig")
        assert read_checkpoint(tmp_path / "net.pth").config["enc_depth"] == 24
    assert used == []


class Attack:
    """Unpickled the ordinary way, it makes a file."""

    def __init__(self, deed):
        self.deed = deed

    def __reduce__(self):
        return self.deed


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("how", ["open", "system", "eval"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, truth, how, new):
    made = tmp_path / "made"
    deed = {
        "open": (open, (str(made), "w")),
        "system": (os.system, (f'"{sys.executable}" -c "open({str(made)!r}, chr(119))"',)),
        "eval": (eval, (f"open({str(made)!r}, 'w')",)),
    }[how]
    torch.save({"model": truth, "args": Attack(deed)}, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=r"was not opened: it wants to run \S*" + how):
        read_checkpoint(tmp_path / "net.pth")
    assert not made.exists()
    torch.load(tmp_path / "net.pth", weights_only=False)
    assert made.exists(), "the attack must be a real one"


def test_what_hides_behind_a_harmless_name_is_not_run_either(tmp_path, truth):
    """A name that is let through is never imported: 'numpy.save' of such a file writes nothing."""
    made = tmp_path / "made.npy"
    torch.save({"model": truth, "args": Attack((__import__("numpy").save, (str(made), 1)))}, tmp_path / "net.pth")
    assert read_checkpoint(tmp_path / "net.pth").tensors.keys() == truth.keys()
    assert not made.exists()


# The constructor's text


def test_a_constructor_is_parsed():
    values = parse_constructor_text(CONSTRUCTOR)
    assert values["img_size"] == (512, 512)
    assert values["depth_mode"] == ("exp", -math.inf, math.inf)
    assert values["freeze"] is None
    assert values["two_confs"] is True
    assert values["hooks"] == [0, 6]
    assert parse_constructor_text(f"Outer({CONSTRUCTOR})") == values


@pytest.mark.parametrize(
    "text",
    [
        "Net(a=__import__('os').system('true'))",
        "Net(a=1)()",
        "Net(**{'a': 1})",
        "Net(1, 2)",
        "Net(a=nan_of_mine)",
        "Net(a=1+1)",
        "Net(a=-'text')",
        "Net(a=[x for x in (1,)])",
        "Net(a=f'{1}')",
        "Net",
        "import os",
        "",
        "Net(a=" + "(" * 3000 + ")" * 3000 + ")",
        "Net(a='" + "x" * 30_000 + "')",
        "Net(a=1)\0",
    ],
)
def test_anything_but_plain_values_is_refused(text):
    with pytest.raises(UserError, match="not a plain list of arguments"):
        parse_constructor_text(text)


# Files that are not what they should be


def safetensors_of(tmp_path, truth):
    save_file(without_twins(truth), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_cut_file_says_at_which_byte(tmp_path, truth, keep):
    path = safetensors_of(tmp_path, truth)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    says = {
        4: "not a checkpoint",
        100: r"is cut at byte 100, within its header",
        -1: f"is cut at byte {len(whole) - 1} of {len(whole)}",
    }
    with pytest.raises(UserError, match=says[keep]):
        read_checkpoint(path)


def test_a_cut_file_of_torch_says_at_which_byte(tmp_path, truth):
    torch.save(truth, tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes((tmp_path / "net.pth").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"is cut: it ends at byte \d+"):
        read_checkpoint(tmp_path / "net.pth")


def test_a_header_that_lies_is_refused(tmp_path):
    entry = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}}
    for header in (entry, [1], {"a": {"dtype": "F32"}}, {"a": {**entry["a"], "shape": [-2, -2]}}):
        text = json.dumps(header).encode().ljust(96)
        (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        with pytest.raises(UserError, match=r"header of m.safetensors is damaged|not a checkpoint"):
            read_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "is a git-lfs pointer"),
        (b'{"head_type": "dpt"}', "is a configuration, not weights"),
        (b"Not Found", "is a text file"),
        (b"\x1f\x8b\x08" + bytes(20), "is a packed archive"),
        (pickle.dumps({"a": 1}, protocol=2), "is a bare pickle"),
        (bytes(range(128, 228)), "is not a checkpoint of a known format"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, says):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_checkpoint(tmp_path / "model.safetensors")


def test_an_archive_without_tensors_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"net.pth is damaged"):
        read_checkpoint(tmp_path / "net.pth")
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="holds no tensors of a network, but epoch"):
        read_checkpoint(tmp_path / "net.pth")


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(tmp_path / "nosuch.pth")


def test_parameters_are_counted_once_and_without_statistics(truth):
    shapes = {name: tuple(tensor.shape) for name, tensor in truth.items()}
    count = sum(tensor.numel() for tensor in without_twins(truth).values())
    assert count_parameters({**shapes, "norm.running_mean": (6,), "norm.num_batches_tracked": ()}) == count
    assert count_parameters({name: shape for name, shape in shapes.items() if "1_rn" not in name}) == count


# Loading


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_either_layout_of_tied_names_loads(truth, device):
    only_listed = {name: tensor for name, tensor in truth.items() if "1_rn" not in name and "2_rn" not in name}
    for tensors in (truth, without_twins(truth), only_listed):
        with torch.device(device):
            module = Small()
        load_strictly(module, tensors, tied_names(truth))
        assert holds(module, truth)


def test_the_names_that_the_file_lists_as_tied_are_enough(tmp_path, truth):
    prefix = "downstream_head1.dpt.scratch."
    tied = {f"{prefix}layer_rn.{n}.weight": f"{prefix}layer{n + 1}_rn.weight" for n in (0, 1)}
    save_file(without_twins(truth), tmp_path / "m.safetensors", metadata=tied)
    module = Small()
    load_strictly(module, read_checkpoint(tmp_path / "m.safetensors"))
    assert holds(module, truth)


def test_a_module_on_meta_keeps_the_files_own_memory(tmp_path, truth):
    checkpoint = read_checkpoint(safetensors_of(tmp_path, truth))
    with torch.device("meta"):
        module = Small()
    load_strictly(module, checkpoint, tied_names(truth))
    assert module.enc_norm.weight.data_ptr() == checkpoint.tensors["enc_norm.weight"].data_ptr()
    assert module.enc_norm.weight.requires_grad
    assert holds(module, truth)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_module_keeps_its_precision(truth, device):
    with torch.device(device):
        module = Small()
    half = {name: tensor.half() for name, tensor in truth.items()}
    load_strictly(module, half, tied_names(truth))
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
    assert holds(module, {name: tensor.float() for name, tensor in half.items()})


@pytest.mark.parametrize("old", [False, True], ids=["safetensors", "pth"])
def test_the_pair_network_takes_a_published_file(tmp_path, old):
    """A .pth has both names of a tied tensor, and here no second decoder; safetensors lists what it left out."""
    sizes = {"enc_embed_dim": 16, "enc_depth": 1, "enc_num_heads": 2, "dec_embed_dim": 16, "dec_depth": 4}
    config = PairwiseConfig(**sizes, dec_num_heads=2, dpt_feature_dim=4, dpt_last_dim=4, dpt_layer_dims=(2, 3, 4, 5))
    published, second_names = PairwiseNet(config).state_dict(), aliases(config)
    assert tied_names(published) == second_names
    if old:
        published = {name: tensor for name, tensor in published.items() if not name.startswith("dec_blocks2.")}
        published |= {second: published[first] for second, first in second_names.items()}
        torch.save({"model": published, "args": argparse.Namespace(model=CONSTRUCTOR)}, tmp_path / "net.pth")
    else:
        save_file(published, tmp_path / "net.safetensors", metadata=second_names)
    with torch.device("meta"):
        network = PairwiseNet(config)
    checkpoint = read_checkpoint(tmp_path / ("net.pth" if old else "net.safetensors"))
    load_strictly(network, with_second_decoder(checkpoint.tensors), second_names)
    for name, tensor in network.state_dict().items():
        first = name.replace("dec_blocks2.", "dec_blocks.") if old else name
        assert torch.equal(tensor, published[first]), name


def test_the_second_decoder_is_copied_only_when_there_is_none(truth):
    single = {name: tensor for name, tensor in truth.items() if not name.startswith("dec_blocks2.")}
    module = Small()
    load_strictly(module, with_second_decoder(single), tied_names(truth))
    assert torch.equal(module.dec_blocks2[0].weight, truth["dec_blocks.0.weight"])
    assert with_second_decoder(truth) is truth


def test_missing_unexpected_and_misshapen_names_are_told_and_nothing_is_changed(truth):
    module = Small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {
        **truth,
        "enc_norm.weight": torch.zeros(7),
        "downstream_head1.head_local_features.fc1.bias": torch.ones(1),
    }
    del tensors["dec_blocks.0.bias"]
    with pytest.raises(UserError) as refusal:
        load_strictly(module, tensors, tied_names(truth), name="mast3r.pth")
    for words in (
        "mast3r.pth does not fit",
        "lacks dec_blocks.0.bias",
        "has the unknown downstream_head1.head_local_features.fc1.bias",
        "enc_norm.weight [7] instead of [6]",
        "this looks like MASt3R",
    ):
        assert words in str(refusal.value)
    assert holds(module, before)


def test_many_names_are_counted_not_listed(truth):
    with pytest.raises(UserError, match=r"enc_norm.bias, dec_blocks.0.weight and \d+ more"):
        load_strictly(Small(), {"vision_encoder.backbone.a": torch.zeros(1)})


def test_two_values_for_one_tensor_are_refused(truth):
    torn = {**truth, "downstream_head1.dpt.scratch.layer_rn.1.weight": torch.zeros(4, 5, 3, 3)}
    module = nn.ModuleDict({"downstream_head1": nn.ModuleDict({"dpt": nn.ModuleDict({"scratch": nn.Module()})})})
    module.downstream_head1.dpt.scratch.layer2_rn = nn.Conv2d(5, 4, 3, bias=False)
    with pytest.raises(UserError, match=r"has two values for \S+layer_rn.1.weight"):
        load_strictly(module, torn, tied_names(truth), ignorable=["enc_norm.", "dec_blocks.", "dec_blocks2."])


def test_what_may_be_in_excess_is_left_out_by_name_or_beginning(truth):
    module = Small()
    excess = {"mask_token": torch.zeros(1), "prediction_head.weight": torch.zeros(1)}
    load_strictly(module, {**truth, **excess}, tied_names(truth), ignorable=["mask_token", "prediction_head."])
    assert holds(module, truth)


def test_a_module_that_keeps_values_out_of_its_state_is_told_to_its_author(truth):
    with torch.device("meta"):
        module = Small()
        module.register_buffer("table", torch.zeros(3), persistent=False)
    with pytest.raises(ValueError, match="left without values: table"):
        load_strictly(module, truth, tied_names(truth))
