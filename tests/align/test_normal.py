"""The normal equations are those of the residuals: against automatic derivatives, and against a dense solve."""

from dataclasses import replace

import pytest
import torch

from backend.align.normal import Noise, cost_of, evaluate, normal_equations, scales, weighted
from backend.align.sampled import Sampled, sample, sample_pixels
from backend.align.start import State
from backend.align.unknowns import HOLD, NOTHING_KNOWN, Knowns, Unknowns, motion

from .synthetic import room_pairs

FRAMES = 3
NOISE = Noise(depth=0.05, place=1.5, flow=0.8, share=0.1)


@pytest.fixture(scope="module")
def problem() -> tuple[Sampled, State]:
    """Six pairs of three frames at twelve pixels, and a state some way off the truth; one point is behind a camera."""
    truth = room_pairs(frame_count=FRAMES, graph="complete")
    sampled = sample(truth.predictions, truth.flows, sample_pixels((48, 32), 12))
    sampled.points_j[3, 5] = torch.tensor([0.1, 0.2, -4.0])
    sampled.weight_i[0, 0] = sampled.flow_weight[1, 3] = 0.0
    x, y = sampled.uv.long().T
    generator = torch.Generator().manual_seed(0)

    def off(*shape: int) -> torch.Tensor:
        return 0.03 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    state = State(
        camera_from_world=motion(off(FRAMES, 6)) @ torch.linalg.inv(truth.state.world_from_camera),
        log_scale=truth.state.pair_scale.log() + off(len(sampled.edges)),
        log_focal=truth.state.focal_px.log() + off(FRAMES),
        log_depth=(truth.state.depth[:, y, x].log() + off(FRAMES, len(sampled.uv))).float(),
    )
    return sampled, state


def residuals(sampled: Sampled, state: State, step: torch.Tensor) -> dict[str, torch.Tensor]:
    """The residuals as the docstring of normal.py states them, after a `step` of everything: 6 for each pose, the log
    scales, the log focal lengths, the log depths."""
    frames, pairs, count = FRAMES, len(sampled.edges), len(sampled.uv)
    twist, scale, focal, depth = step.split([6 * frames, pairs, frames, frames * count])
    camera = motion(twist.reshape(frames, 6)) @ state.camera_from_world
    scale = (state.log_scale + scale).exp()
    focal = (state.log_focal + focal).exp()
    log_depth = state.log_depth.double() + depth.reshape(frames, count)
    pixel = (sampled.uv - sampled.principal_point).double()
    found: dict[str, list] = {name: [] for name in ("depth_i", "depth_j", "place_i", "place_j", "flow")}
    for e, (i, j) in enumerate(sampled.edges.tolist()):
        j_from_i = camera[j] @ torch.linalg.inv(camera[i])
        in_i = scale[e] * sampled.points_i[e].double()
        in_j = scale[e] * sampled.points_j[e].double() @ j_from_i[:3, :3].T + j_from_i[:3, 3]
        seen = torch.cat([pixel / focal[i], torch.ones(count, 1)], 1) * log_depth[i].exp()[:, None]
        seen_in_j = seen @ j_from_i[:3, :3].T + j_from_i[:3, 3]
        found["depth_i"].append(in_i[:, 2].log() - log_depth[i])
        found["depth_j"].append(in_j[:, 2].clamp(min=1e-6).log() - log_depth[j])
        found["place_i"].append(focal[i] * in_i[:, :2] / in_i[:, 2:] - pixel)
        found["place_j"].append(focal[j] * in_j[:, :2] / in_j[:, 2:] - pixel)
        found["flow"].append(focal[j] * seen_in_j[:, :2] / seen_in_j[:, 2:] - pixel - sampled.flow[e].double())
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.fixture(scope="module")
def dense(problem) -> tuple[torch.Tensor, torch.Tensor]:
    """H and g of 1/2 sum w r^2 over everything, by automatic derivatives, with the weights as they are."""
    sampled, state = problem
    weights = weighted(sampled, evaluate(sampled, state), NOISE)[1]
    everything = 6 * FRAMES + len(sampled.edges) + FRAMES + state.log_depth.numel()
    rows, values, w = [], [], []
    nowhere = torch.zeros(everything, dtype=torch.float64)
    jacobians = torch.func.jacfwd(lambda step: residuals(sampled, state, step))(nowhere)
    for name, value in residuals(sampled, state, nowhere).items():
        weight = weights[name].double()
        rows.append(jacobians[name].reshape(-1, everything))
        values.append(value.reshape(-1))
        w.append((weight if value.dim() == 2 else weight[..., None].expand_as(value)).reshape(-1))
    jacobian, value, weight = torch.cat(rows), torch.cat(values), torch.cat(w)
    on = weight > 0  # what is behind a camera has no derivative, and no weight
    jacobian, value, weight = jacobian[on], value[on], weight[on, None]
    return jacobian.T @ (weight * jacobian), (jacobian.T * weight[:, 0]) @ value


def where_each_stands(unknowns: Unknowns, sampled: Sampled) -> torch.Tensor:
    """(everything without depths, unknowns) from the solver's unknowns to all poses, scales and lenses."""
    places = torch.cat([unknowns.pose.flatten(), unknowns.scale, unknowns.lens])
    return torch.nn.functional.one_hot(places, unknowns.count + 1)[:, :-1].double()


KNOWN_POSES = torch.linalg.inv(room_pairs(frame_count=FRAMES).state.world_from_camera)
KNOWN_POSES[1] = torch.nan
KNOWNS = {
    "nothing": NOTHING_KNOWN,
    "two poses": Knowns(camera_from_world=KNOWN_POSES),
    "two poses and the lens": Knowns(camera_from_world=KNOWN_POSES, focal_px=torch.full((FRAMES,), 44.0)),
    "zoom": Knowns(per_frame_focal=True, focal_steadiness=0.02),
    "locked": Knowns(locked=True),
}


def reduced(problem, dense, knowns: Knowns) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The dense H and g of what the solver moves: its own unknowns first, then all depths, with its two priors."""
    sampled, state = problem
    unknowns = Unknowns(sampled.edges, FRAMES, knowns)
    h, g = dense
    chain = torch.block_diag(where_each_stands(unknowns, sampled), torch.eye(state.log_depth.numel()).double())
    h, g = chain.T @ h @ chain, chain.T @ g
    if knowns.per_frame_focal:
        weight = knowns.focal_steadiness**-2
        for a, b in zip(unknowns.lens[:-1].tolist(), unknowns.lens[1:].tolist()):
            difference = torch.zeros(len(h), dtype=torch.float64)
            difference[a], difference[b] = -1, 1
            h += weight * torch.outer(difference, difference)
            n = unknowns.lens.tolist().index(a)
            g += weight * difference * (state.log_focal[n + 1] - state.log_focal[n])
    return h, g, unknowns.count


def test_the_residuals_are_what_they_are_said_to_be(problem):
    sampled, state = problem
    r = evaluate(sampled, state)
    nowhere = torch.zeros(6 * FRAMES + 6 + FRAMES + state.log_depth.numel(), dtype=torch.float64)
    weights = weighted(sampled, r, NOISE)[1]
    for name, expected in residuals(sampled, state, nowhere).items():
        on = weights[name] > 0
        torch.testing.assert_close(getattr(r, name)[on].double(), expected[on], atol=2e-5, rtol=2e-5)


def test_what_is_behind_a_camera_or_without_weight_does_not_count(problem):
    weights = weighted(problem[0], evaluate(*problem), NOISE)[1]
    nothing = {name: torch.nonzero(weight == 0).tolist() for name, weight in weights.items()}
    assert nothing["place_i"] == nothing["depth_i"] == [[0, 0]]
    assert nothing["place_j"] == nothing["depth_j"] == [[3, 5]]
    assert nothing["flow"] == [[1, 3]]


def test_weights_are_the_slope_of_the_robust_cost(problem, dense):
    """d cost / d r = 2 w r, so that half the cost's gradient is that of 1/2 sum w r^2."""
    sampled, state = problem
    g, step = dense[1], 1e-3
    depth = 6 * FRAMES + 6 + FRAMES
    for n in (0, 5, 9):
        at = state.log_depth.flatten().clone()
        costs = []
        for sign in (1, -1):
            moved = at.clone()
            moved[n] += sign * step
            costs.append(cost_of(sampled, replace(state, log_depth=moved.reshape(state.log_depth.shape)), NOISE))
        assert (costs[0] - costs[1]) / (4 * step) == pytest.approx(float(g[depth + n]), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("known", KNOWNS)
def test_the_gradient_is_that_of_the_residuals(problem, dense, known):
    """Of poses, scales and lenses before depth is eliminated: g plus what elimination took away."""
    sampled, state = problem
    knowns = KNOWNS[known]
    unknowns = Unknowns(sampled.edges, FRAMES, knowns)
    normal = normal_equations(sampled, state, NOISE)
    _, g, count = reduced(problem, dense, knowns)
    eliminated = unknowns.assemble(replace(normal, g_depth=torch.zeros_like(normal.g_depth)), state, 0.0).g
    torch.testing.assert_close(eliminated, g[:count], rtol=1e-4, atol=1e-4 * float(g.abs().max()))
    torch.testing.assert_close(
        normal.g_depth.flatten().double(), g[count:], rtol=1e-4, atol=1e-4 * float(g[count:].abs().max())
    )


@pytest.mark.parametrize("known", KNOWNS)
def test_eliminating_depth_gives_the_schur_complement(problem, dense, known):
    sampled, state = problem
    knowns = KNOWNS[known]
    unknowns = Unknowns(sampled.edges, FRAMES, knowns)
    system = unknowns.assemble(normal_equations(sampled, state, NOISE), state, 0.0)
    h, g, count = reduced(problem, dense, knowns)
    pixels = h[count:, count:]
    assert (pixels - torch.diag(pixels.diagonal())).abs().max() < 1e-9 * pixels.max()  # why it can be eliminated
    coupling = h[:count, count:] / pixels.diagonal()
    schur_h, schur_g = h[:count, :count] - coupling @ h[count:, :count], g[:count] - coupling @ g[count:]
    if unknowns.scales_float:  # nothing measures the mean log scale, so it is held
        mean = torch.zeros(count, dtype=torch.float64)
        mean[unknowns.scale] = 1 / len(unknowns.scale)
        schur_h = schur_h + HOLD * schur_h.diagonal()[unknowns.scale].mean() * torch.outer(mean, mean)
    ours = system.matrix.dense()
    if system.held is not None:
        ours = ours + torch.outer(system.held, system.held)
    torch.testing.assert_close(ours, schur_h, rtol=1e-3, atol=2e-5 * float(schur_h.abs().max()))
    torch.testing.assert_close(system.g, schur_g, rtol=1e-3, atol=1e-4 * float(schur_g.abs().max()))


@pytest.mark.parametrize("known", ["two poses", "two poses and the lens"])
def test_a_step_is_the_dense_one_depths_included(problem, dense, known):
    sampled, state = problem
    knowns = KNOWNS[known]
    unknowns = Unknowns(sampled.edges, FRAMES, knowns)
    normal = normal_equations(sampled, state, NOISE)
    system = unknowns.assemble(normal, state, 0.0)
    step = system.step(0.0)
    h, g, count = reduced(problem, dense, knowns)
    expected = -torch.linalg.solve(h, g)
    torch.testing.assert_close(step, expected[:count], rtol=1e-2, atol=2e-3 * float(expected.abs().max()))
    moved = unknowns.moved(state, step, system, normal)
    torch.testing.assert_close(
        (moved.log_depth - state.log_depth).flatten().double(), expected[count:], rtol=1e-2, atol=1e-3
    )
    free = torch.tensor([False, True, False])
    torch.testing.assert_close(moved.camera_from_world[~free], state.camera_from_world[~free])
    assert cost_of(sampled, moved, NOISE) < cost_of(sampled, state, NOISE)


@pytest.mark.parametrize("known", ["nothing", "zoom"])
def test_the_scale_that_nothing_measures_stays_where_it_is(problem, known):
    sampled, state = problem
    unknowns = Unknowns(sampled.edges, FRAMES, KNOWNS[known])
    step = unknowns.assemble(normal_equations(sampled, state, NOISE), state, 1e-6).step(1e-6)
    scales = step[unknowns.scale]
    assert scales.mean().abs() < 0.05 * scales.abs().max()


def test_a_motion_is_the_exponential_of_its_twist():
    quarter = motion(torch.tensor([[0, 0, 0, 0, 0, torch.pi / 2], [1, 2, 3, 0, 0, 0]], dtype=torch.float64))
    torch.testing.assert_close(quarter[0, :2, :2], torch.tensor([[0.0, -1], [1, 0]], dtype=torch.float64))
    torch.testing.assert_close(quarter[1, :3, 3], torch.tensor([1.0, 2, 3], dtype=torch.float64))


def test_the_scale_of_residuals_is_found_from_their_median_and_never_below_the_floor():
    truth = room_pairs(frame_count=FRAMES, graph="complete", board=False)
    exact = sample(truth.predictions, truth.flows, sample_pixels((48, 32), 12))
    x, y = exact.uv.long().T
    true_state = State(
        torch.linalg.inv(truth.state.world_from_camera),
        truth.state.pair_scale.log(),
        truth.state.focal_px.log(),
        truth.state.depth[:, y, x].log().float(),
    )
    assert scales(exact, true_state, 0.1) == Noise(depth=0.002, place=0.1, flow=0.1, share=0.1)
    exact.flow[..., 0] += 3.0
    assert scales(exact, true_state, 0.1).flow == pytest.approx(1.48 * 3, rel=1e-3)
    assert scales(exact.without_flow(), true_state, 0.1).flow == 0.1


def test_pairs_worked_on_in_parts_add_up_to_the_same(problem, monkeypatch):
    sampled, state = problem
    together = normal_equations(sampled, state, NOISE), cost_of(sampled, state, NOISE)
    monkeypatch.setattr("backend.align.normal.LEAST", 1)
    apart = normal_equations(sampled, state, NOISE), cost_of(sampled, state, NOISE)
    for name in ("h", "g", "cross", "h_depth", "g_depth"):
        some = getattr(together[0], name)
        torch.testing.assert_close(getattr(apart[0], name), some, rtol=1e-5, atol=1e-6 * float(some.abs().max()))
    assert apart[1] == pytest.approx(together[1])
