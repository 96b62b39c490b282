"""Files of Point3R: either published form loads, number by number; nothing in it is run; other networks are refused."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.nets.checkpoint import parse_constructor_text, tied_names
from backend.nets.manifest import model_named
from backend.nets.mast3r import load_mast3r
from backend.nets.point3r import Point3RConfig, load_point3r
from backend.nets.receipt import Installed
from backend.wire import UserError
from tests.point3r_recipe import CONSTRUCTOR, TINY_STREAM, omegaconf_node, point3r_net, published_point3r
from tests.recipe import fixture_net

#: As it stands in the published file.
PUBLISHED = CONSTRUCTOR.format(
    head="dpt",
    sizes="enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, dec_depth=12, dec_num_heads=12",
)


@pytest.fixture(scope="module")
def net():
    return point3r_net()


def installed(path, name: str = "point3r") -> Installed:
    return Installed(model_named(name), {path.name: path}, {"files": {path.name: {"checkpoint": True}}})


@pytest.mark.parametrize("form", ["pth", "safetensors"])
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_either_form_gives_the_network_and_its_every_number(tmp_path, form, head):
    net = point3r_net(replace(TINY_STREAM, head=head))
    loaded = load_point3r(installed(published_point3r(tmp_path, form, net)))
    assert loaded.config == net.config
    assert not loaded.training
    ours, theirs = loaded.state_dict(), net.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert "omegaconf" not in sys.modules  # whose node stands beside the tensors of the .pth


def test_the_published_configuration_is_read_and_never_run():
    fields = parse_constructor_text(PUBLISHED)
    assert fields["depth_mode"] == ("exp", -math.inf, math.inf)
    assert fields["patch_embed_cls"] == "ManyAR_PatchEmbed"
    assert Point3RConfig.from_fields(fields) == Point3RConfig()
    assert Point3RConfig().memory_dec_num_heads == 16
    assert Point3RConfig().hooks == (0, 6, 9, 12)


def test_a_constructor_that_does_more_than_name_its_arguments_is_never_run(tmp_path, net):
    made = tmp_path / "made"
    for text in (f"{PUBLISHED} or open({str(made)!r}, 'w')", PUBLISHED.replace("True", f"open({str(made)!r}, 'w')")):
        with omegaconf_node(text) as arguments:
            torch.save({"model": net.state_dict(), "args": arguments}, tmp_path / "point3r_512.pth")
        with pytest.raises(UserError, match="not a plain list of arguments"):
            load_point3r(installed(tmp_path / "point3r_512.pth"))
    assert not made.exists()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("output_mode", "pts3d", "output 'pts3d' is not one of Point3R; choose another checkpoint"),
        ("head_type", "catmlp+dpt", "head type 'catmlp\\+dpt'"),
        ("pos_embed", "cosine", "position embedding 'cosine'"),
        ("pos_embed_3d", "learned", "position embedding in space 'learned'"),
        ("pose_mode", ("square", -math.inf, math.inf), "pose mode"),
        ("depth_mode", ("linear", -math.inf, math.inf), "depth mode"),
        ("conf_mode", ("exp", 0, math.inf), "confidence mode"),
        ("pose_head", False, "pose head 'False'"),
    ],
)
def test_another_network_is_refused_by_what_differs(field, value, named):
    with pytest.raises(UserError, match=named):
        Point3RConfig.from_fields({**parse_constructor_text(PUBLISHED), field: value})


def test_files_of_other_networks_are_refused_and_recognised(tmp_path, net):
    """MonST3R's tensors beside Point3R's config.json, and Point3R's file where MASt3R is asked for."""
    path = published_point3r(tmp_path, "safetensors", net)
    with pytest.raises(UserError, match=r"'pts3d\+pose' is not one of MASt3R|'dpt' is not one of MASt3R"):
        load_mast3r(installed(path, "mast3r"))
    save_file(fixture_net("dpt_mini").state_dict(), path)
    with pytest.raises(UserError, match=r"lacks .* and \d+ more.*this looks like a pair network with a DPT head"):
        load_point3r(installed(path))


def lacking(state, name):
    return {key: tensor for key, tensor in state.items() if not key.startswith(name)}


FIRST, SECOND = (
    "downstream_head.dpt_self.scratch.layer2_rn.weight",
    "downstream_head.dpt_self.scratch.layer_rn.1.weight",
)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: lacking(s, "dec_blocks_memory."), r"lacks dec_blocks_memory\.0\.norm1\.weight"),
        (lambda s: lacking(s, "pts_patch_embed."), r"lacks pts_patch_embed\.proj\.weight"),
        (lambda s: lacking(s, "dec_norm_memory."), r"lacks dec_norm_memory\.weight"),
        (lambda s: {**s, "dec_blocks_state.0.norm1.weight": torch.ones(3)}, r"has the unknown dec_blocks_state\.0"),
        (lambda s: {**s, "pose_token": torch.zeros(1, 1, 3)}, r"pose_token \[1, 1, 3\] instead of \[1, 1, 32\]"),
        (lambda s: {**s, SECOND: s[FIRST] + 1}, r"has two values for .*layer_rn\.1\.weight and .*layer2_rn\.weight"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_what_differs(tmp_path, net, change, named):
    """Also what training could start without: nothing is made up that a trained network has."""
    path = published_point3r(tmp_path, "safetensors", net)
    save_file(change(load_file(path)), path)
    with pytest.raises(UserError, match=named):
        load_point3r(installed(path))


def test_a_tensor_may_have_either_of_its_names(tmp_path, net):
    path = published_point3r(tmp_path, "safetensors", net)
    state = load_file(path)
    for second, first in tied_names(state).items():
        state[second] = state.pop(first)
    save_file(state, path)
    assert torch.equal(load_point3r(installed(path)).state_dict()[FIRST], net.state_dict()[FIRST])
