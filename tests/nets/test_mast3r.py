"""The matching network: its outputs by their formulas, its names, its files, and what is refused.

That every layer is the original's is shown by `tests.conformance mast3r`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from backend.monst3r.models import load_pairwise
from backend.nets.manifest import model_named
from backend.nets.mast3r import MatchingConfig, MatchingNet, descriptors, load_mast3r, to_pixels
from backend.nets.pairwise import Encoded, PairwiseConfig, PairwiseNet, aliases
from backend.nets.precision import FAST
from backend.nets.receipt import Installed
from backend.wire import UserError
from tests.recipe import TINY_MATCHING, fixture_fields, fixture_net, matching_net, published_names

PUBLISHED_JSON = """{"conf_mode": ["exp", 1, Infinity], "dec_depth": 12, "dec_embed_dim": 768, "dec_num_heads": 12,
"depth_mode": ["exp", -Infinity, Infinity], "desc_conf_mode": ["exp", 0, Infinity], "desc_mode": "norm",
"enc_depth": 24, "enc_embed_dim": 1024, "enc_num_heads": 16, "head_type": "catmlp+dpt", "img_size": [512, 512],
"landscape_only": false, "output_mode": "pts3d+desc24", "patch_embed_cls": "PatchEmbedDust3R", "pos_embed": "RoPE100",
"two_confs": true}"""
CONSTRUCTOR = (
    "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), "
    "head_type='catmlp+dpt', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "two_confs=True, desc_conf_mode=('exp', 0, inf), {sizes})"
)
SIZES = ("enc_embed_dim", "dec_embed_dim", "dec_depth", "dpt_feature_dim", "dpt_last_dim", "dpt_layer_dims")


def pictures(height: int = 32, width: int = 48, count: int = 2) -> tuple[torch.Tensor, ...]:
    return torch.rand(2 * count, 3, height, width, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).chunk(2)


# What the head makes


def test_a_patch_s_channels_become_its_pixels_as_a_pixel_shuffle_has_it():
    patches = torch.randn(2, 6, 5 * 16)
    shuffled = F.pixel_shuffle(patches.transpose(1, 2).unflatten(-1, (2, 3)), 4).movedim(1, -1)
    assert torch.equal(to_pixels(patches, (2, 3), 4), shuffled)


def test_descriptors_have_length_one_and_a_confidence_within_its_range():
    config = replace(TINY_MATCHING, descriptor_dim=2, desc_conf_range=(0.5, 3.0))
    local = torch.tensor([[[[3.0, 4.0, 0.0], [0.0, -2.0, 5.0]]]])
    direction, confidence = descriptors(local, torch.ones(1, 1, 2), config)
    torch.testing.assert_close(direction[0, 0], torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    torch.testing.assert_close(confidence[0, 0], torch.tensor([0.5 + 1.0, 3.0]))


def test_without_two_confidences_descriptors_have_that_of_the_points():
    config = replace(TINY_MATCHING, two_confs=False)
    maps = matching_net(config)(*pictures())
    assert torch.equal(maps.desc_conf_1, maps.conf_1)
    assert torch.equal(maps.desc_conf_2, maps.conf_2)
    assert maps.desc_2.shape == (2, 32, 48, config.descriptor_dim)


def test_two_pictures_of_different_shape_have_maps_of_their_own_shape():
    one, two = pictures(32, 48)[0], pictures(64, 32)[1]
    maps = matching_net()(one, two)
    assert maps.pts3d_1.shape == (2, 32, 48, 3)
    assert maps.desc_2.shape == (2, 64, 32, 6)
    assert maps.desc_conf_2.shape == maps.conf_2.shape == (2, 64, 32)
    torch.testing.assert_close(maps.desc_2.norm(dim=-1), torch.ones(2, 64, 32))


def test_a_pair_with_what_the_heads_made_of_single_frames_is_the_same_pair():
    net = matching_net()
    plain, prepared = [], []
    for view, picture in enumerate(pictures(), 1):
        tokens, grid = net.encode(picture), net.config.grid(32, 48)
        plain.append(Encoded(tokens, grid))
        prepared.append(Encoded(tokens, grid, net.shallow(view, tokens, grid)))
    ours, theirs = net.pair(*prepared), net.pair(*plain)
    for name in ours.__dataclass_fields__:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_the_fast_path_answers_nearly_the_same_with_heads_in_float32():
    exact, net = matching_net()(*pictures()), matching_net().calculating(FAST)
    assert net.dec_blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert net.downstream_head2.head_local_features.fc2.weight.dtype == torch.float32
    fast = net(*pictures())
    assert {getattr(fast, name).dtype for name in fast.__dataclass_fields__} == {torch.float32}
    away = 1 - (fast.desc_1 * exact.desc_1).sum(-1)
    assert 0 < away.median() < 1e-3
    assert (fast.desc_conf_2 / exact.desc_conf_2).log().abs().median() < 0.05


def test_what_the_local_features_need_is_counted_in():
    config = MatchingConfig()
    with torch.device("meta"):
        net, plain = MatchingNet(config), PairwiseNet(PairwiseConfig(**{name: getattr(config, name) for name in SIZES}))
    ours, theirs = net.memory_needs(384, 512), plain.memory_needs(384, 512)
    assert (ours.encode, ours.tokens, ours.shallow) == (theirs.encode, theirs.tokens, theirs.shallow)
    hidden, maps = 2 * 768 * 7168 * 4, 2 * 384 * 512 * 25 * 4
    assert hidden + maps < ours.pair - theirs.pair < 3 * (hidden + maps)


# Names and configurations


def test_the_published_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = MatchingNet(MatchingConfig())
    assert sum(p.numel() for p in net.parameters()) == model_named("mast3r").parameters == 688_638_856
    assert len(net.state_dict()) == 1009
    assert len(aliases(net.config)) == 8
    assert net.state_dict()["downstream_head2.head_local_features.fc1.weight"].shape == (7168, 1792)
    assert net.state_dict()["downstream_head1.head_local_features.fc2.bias"].shape == (6400,)


def test_the_published_configuration_is_read_with_its_bare_infinities():
    assert MatchingConfig.from_json(PUBLISHED_JSON) == MatchingConfig()


def test_a_descriptor_confidence_that_is_not_told_is_that_of_the_points():
    fields = json.loads(PUBLISHED_JSON)
    for absent in ({"desc_conf_mode": None}, {"desc_conf_mode": ["exp", 1, math.inf]}):
        assert MatchingConfig.from_fields(fields | absent).desc_conf_range == (1.0, math.inf)
    del fields["two_confs"]
    assert MatchingConfig.from_fields(fields).local_channels == 24


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("output_mode", "pts3d", "output 'pts3d' is not one of MASt3R"),
        ("output_mode", "pts3d+desc0", "output"),
        ("head_type", "dpt", "head type 'dpt' is not one of MASt3R"),
        ("head_type", "catconv", "head type"),
        ("desc_mode", "exp", "descriptor mode"),
        ("desc_conf_mode", "sigmoid", "descriptor confidence mode"),
        ("desc_conf_mode", ["exp", 2, 1], "descriptor confidence mode"),
        ("pos_embed", "cosine", "position"),
    ],
)
def test_another_network_is_refused_by_what_differs(field, value, named):
    with pytest.raises(UserError, match=named):
        MatchingConfig.from_fields({**json.loads(PUBLISHED_JSON), field: value})


# Files


def installed(name: str, path) -> Installed:
    return Installed(model_named(name), {path.name: path}, {"files": {path.name: {"checkpoint": True}}})


def publish(folder, form: str, net: MatchingNet, tail: str = ""):
    """The network as it is published: safetensors with one name a tensor beside its JSON, or a .pth with every name.

    Only that it also says the sizes of its DPT, which are those of the published network where nothing is said.
    """
    config, state = net.config, net.state_dict()
    sizes = {
        name: getattr(config, name) for name in config.__dataclass_fields__ if name.startswith(("enc", "dec", "dpt"))
    }
    sizes |= {"output_mode": f"pts3d+desc{config.descriptor_dim}"}
    if form == "safetensors":
        (folder / "config.json").write_text(json.dumps(json.loads(PUBLISHED_JSON) | sizes))
        save_file(state, folder / "model.safetensors", metadata={"format": "pt", **aliases(config)})
        return folder / "model.safetensors"
    text = CONSTRUCTOR.format(sizes=", ".join(f"{name}={value!r}" for name, value in sizes.items()))
    arguments = argparse.Namespace(model=text + tail, lr=1e-4, epochs=50)
    torch.save({"model": published_names(config, state), "args": arguments, "epoch": 49}, folder / "mast3r.pth")
    return folder / "mast3r.pth"


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_either_published_form_gives_the_network_and_its_every_number(tmp_path, form):
    net = matching_net()
    loaded = load_mast3r(installed("mast3r", publish(tmp_path, form, net)))
    assert loaded.config == TINY_MATCHING
    assert not loaded.training
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    ours, theirs = loaded(*pictures()), net(*pictures())
    assert torch.equal(ours.desc_1, theirs.desc_1)


def test_a_constructor_that_does_more_than_name_its_arguments_is_never_run(tmp_path):
    made = tmp_path / "made"
    path = publish(tmp_path, "pth", matching_net(), tail=f" or open({str(made)!r}, 'w')")
    with pytest.raises(UserError, match="not a plain list of arguments"):
        load_mast3r(installed("mast3r", path))
    assert not made.exists()


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_mast3r_is_refused_where_monst3r_is_asked_for(tmp_path, form):
    path = publish(tmp_path, form, matching_net())
    with pytest.raises(UserError, match=r"'catmlp\+dpt' is not one of MonST3R or DUSt3R; choose another checkpoint"):
        load_pairwise(installed("monst3r", path))


def test_monst3r_is_refused_where_mast3r_is_asked_for(tmp_path):
    save_file(fixture_net("dpt_mini").state_dict(), tmp_path / "model.safetensors")
    fields = {name: value for name, value in fixture_fields("dpt_mini").items() if name != "tensors"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"'dpt' is not one of MASt3R; choose another checkpoint"):
        load_mast3r(installed("mast3r", tmp_path / "model.safetensors"))


def test_tensors_that_are_not_those_of_the_configuration_are_refused_and_recognised(tmp_path):
    """MonST3R's tensors beside MASt3R's config.json."""
    publish(tmp_path, "safetensors", matching_net())
    save_file(fixture_net("dpt_mini").state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks .*head_local_features.*this looks like a pair network with a DPT head"):
        load_mast3r(installed("mast3r", tmp_path / "model.safetensors"))


def test_a_missing_local_feature_is_named(tmp_path):
    net = matching_net()
    path = publish(tmp_path, "safetensors", net)
    state = net.state_dict()
    del state["downstream_head2.head_local_features.fc2.bias"]
    save_file(state, path, metadata=aliases(net.config))
    with pytest.raises(UserError, match=r"lacks downstream_head2\.head_local_features\.fc2\.bias"):
        load_mast3r(installed("mast3r", path))
