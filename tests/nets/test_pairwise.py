"""The two-view network against what the original answered with the same weights, and the names of its tensors."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from backend.nets.pairwise import Encoded, PairwiseConfig, PairwiseNet, aliases, pointmap, published_state
from backend.nets.precision import EXACT, FAST, Precision
from backend.nets.predict import network_input
from backend.wire import UserError
from tests.recipe import fixture_case, fixture_fields, fixture_net, fixture_state, published_names

CASES = [("dpt_mini", "landscape"), ("dpt_mini", "portrait"), ("dpt_mini", "mixed"), ("linear_mini", "landscape")]
#: The largest difference that float32 excuses; a wrong epsilon or the other GELU is ten times as far off.
TOLERANCE = 2e-5

PUBLISHED_JSON = """{"conf_mode": ["exp", 1, Infinity], "dec_depth": 12, "dec_embed_dim": 768, "dec_num_heads": 12,
"depth_mode": ["exp", -Infinity, Infinity], "enc_depth": 24, "enc_embed_dim": 1024, "enc_num_heads": 16,
"freeze": "encoder", "head_type": "dpt", "img_size": [512, 512], "landscape_only": true, "output_mode": "pts3d",
"patch_embed_cls": "ManyAR_PatchEmbed", "pos_embed": "RoPE100"}"""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def answered(request) -> tuple[PairwiseNet, dict[str, np.ndarray], torch.Tensor, torch.Tensor]:
    """(network, what the original answered, picture 1, picture 2)."""
    name, case = request.param
    arrays = fixture_case(name, case)
    images = (network_input(arrays[key], "cpu") for key in ("img1_u8", "img2_u8"))
    return fixture_net(name), arrays, *images


def test_points_and_confidence_are_those_of_the_original(answered):
    net, arrays, img1, img2 = answered
    maps = net(img1, img2)
    for name in ("pts3d_1", "conf_1", "pts3d_2", "conf_2"):
        assert np.abs(getattr(maps, name).numpy() - arrays[name]).max() < TOLERANCE, name


def test_every_layer_is_that_of_the_original(answered):
    net, arrays, *images = answered
    views = [Encoded(net.encode(img), net.config.grid(*img.shape[-2:])) for img in images]
    branches = net.decode(*views, keep=range(net.config.dec_depth + 1))
    for n, (view, features) in enumerate(zip(views, branches), 1):
        assert np.abs(view.tokens.numpy() - arrays[f"enc{n}"]).max() < TOLERANCE
        assert features[0] is view.tokens
        for level in range(1, net.config.dec_depth + 1):
            assert np.abs(features[level].numpy() - arrays[f"dec{n}_{level}"]).max() < TOLERANCE, (n, level)


@pytest.mark.parametrize("name", ["dpt_mini", "linear_mini"])
def test_the_state_dict_has_the_published_names_shapes_and_bytes(name):
    fields = fixture_fields(name)
    config = PairwiseConfig.from_fields(fields)
    assert config.hooks == tuple(fields["hooks"])
    assert sorted(aliases(config)) == sorted(fields["tied_keys"])
    ours = published_names(config, fixture_net(name).state_dict())
    published = {key: (tuple(row["shape"]), row["sha256"]) for key, row in fields["tensors"].items()}
    assert {k: (tuple(v.shape), hashlib.sha256(v.numpy().tobytes()).hexdigest()) for k, v in ours.items()} == published


@pytest.mark.parametrize("names", ["first", "second", "both"])
def test_tied_tensors_load_by_either_name(names):
    config, state = fixture_net("dpt_mini").config, fixture_state("dpt_mini")
    file = dict(state) if names == "first" else published_names(config, state)
    if names == "second":
        file = {key: tensor for key, tensor in file.items() if key not in aliases(config).values()}
    loaded = PairwiseNet.from_state(config, file).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_an_absent_second_decoder_starts_as_the_first():
    config, state = fixture_net("dpt_mini").config, fixture_state("dpt_mini")
    old = {key: tensor for key, tensor in state.items() if not key.startswith("dec_blocks2.")}
    net = PairwiseNet.from_state(config, old)
    assert torch.equal(net.dec_blocks2[3].cross_attn.projk.weight, state["dec_blocks.3.cross_attn.projk.weight"])
    assert published_state(config, old).keys() == state.keys()


def test_a_missing_tensor_is_named():
    config, state = fixture_net("dpt_mini").config, fixture_state("dpt_mini")
    del state["enc_blocks.2.attn.qkv.bias"]
    with pytest.raises(RuntimeError, match=r"enc_blocks\.2\.attn\.qkv\.bias"):
        PairwiseNet.from_state(config, state)


def test_the_published_configuration_is_read_with_its_bare_infinities():
    assert PairwiseConfig.from_json(PUBLISHED_JSON) == PairwiseConfig()


def test_the_published_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = PairwiseNet(PairwiseConfig())
    assert sum(p.numel() for p in net.parameters()) == 571_171_208
    assert len(net.state_dict()) == 1001


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("output_mode", "pts3d+desc24", "output"),
        ("head_type", "catmlp+dpt", "head type"),
        ("pos_embed", "cosine", "position"),
        ("conf_mode", ["exp", 0, float("inf")], "confidence"),
        ("depth_mode", "linear", "depth"),
    ],
)
def test_another_network_is_refused_by_what_differs(field, value, named):
    with pytest.raises(UserError, match=named):
        PairwiseConfig.from_fields({**json.loads(PUBLISHED_JSON), field: value})


def test_the_output_is_a_direction_and_an_exponential_distance():
    """(3, 4, 0) is direction (0.6, 0.8, 0) and distance e^5 - 1; no direction is the origin; confidence 1 + e^c."""
    raw = torch.zeros(1, 4, 1, 2)
    raw[0, :, 0, 0] = torch.tensor([3.0, 4.0, 0.0, 1.0])
    points, confidence = pointmap(raw)
    distance = np.expm1(5.0)
    np.testing.assert_allclose(points[0, 0].numpy(), [[0.6 * distance, 0.8 * distance, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(confidence[0, 0].numpy(), [1 + np.e, 2], rtol=1e-6)


def test_a_pair_with_what_the_heads_made_of_single_frames_is_the_same_pair():
    net, arrays = fixture_net("dpt_mini"), fixture_case("dpt_mini", "mixed")
    views = []
    for n in (1, 2):
        image = network_input(arrays[f"img{n}_u8"], "cpu")
        tokens, grid = net.encode(image), net.config.grid(*image.shape[-2:])
        views.append((Encoded(tokens, grid), Encoded(tokens, grid, net.shallow(n, tokens, grid))))
    plain, prepared = (net.pair(*pair) for pair in zip(*views))
    torch.testing.assert_close(prepared.pts3d_1, plain.pts3d_1)
    torch.testing.assert_close(prepared.conf_2, plain.conf_2)


@pytest.mark.parametrize("precision", [FAST, Precision(trunk=torch.bfloat16)], ids=["fast", "trunk only"])
def test_the_fast_path_answers_nearly_the_same(precision):
    arrays = fixture_case("dpt_mini", "landscape")
    images = [network_input(arrays[key], "cpu") for key in ("img1_u8", "img2_u8")]
    exact = fixture_net("dpt_mini")(*images)
    net = fixture_net("dpt_mini").calculating(precision)
    assert net.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert net.enc_norm.weight.dtype == torch.float32
    fast = net(*images)
    error = (fast.pts3d_1 - exact.pts3d_1).norm(dim=-1) / exact.pts3d_1.norm(dim=-1).median()
    assert 1e-5 < error.median() < 0.05
    assert fast.pts3d_1.dtype == fast.conf_1.dtype == torch.float32


def test_a_network_leaves_the_switches_of_torch_as_they_were():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    for precision in (EXACT, FAST):
        with precision.applied():
            inside = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        assert inside == (precision.tf32, precision.tf32)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_a_checkpoint_in_half_precision_calculates_as_told():
    """Its weights are what they are; the sums are float32 again."""
    halves = {name: tensor.half() for name, tensor in fixture_state("dpt_mini").items()}
    net = PairwiseNet.from_state(fixture_net("dpt_mini").config, halves)
    assert {p.dtype for name, p in net.named_parameters() if name != "mask_token"} == {torch.float32}
    assert torch.equal(net.enc_blocks[0].attn.qkv.weight.half(), halves["enc_blocks.0.attn.qkv.weight"])
