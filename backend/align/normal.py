"""One Gauss-Newton step: residuals of every pair, their derivatives, and the normal equations with depth eliminated.

Three kinds of residual, each with a Cauchy weight of its own scale:

- depth: the logarithm of the depth that a pair gives to a pixel, against that pixel's own logarithm of depth;
- place: where the pair's point projects in its own picture, against the pixel it belongs to;
- flow: where the pixel's point projects in the other picture, against where the optical flow says that it went.

A pair's points are in its first camera's frame, so a pair needs a scale only, and its similarity to the world is that
scale and its first camera's pose. The logarithm of a pixel's depth stands in the residuals of its frame alone, so it
is eliminated pixel by pixel (the Schur complement of bundle adjustment, Triggs et al. 2000, section 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from .sampled import Sampled
from .start import State

KINDS = ("depth", "place", "flow")
#: Scales are never taken to be below these: of log depth, and in pixels.
FLOORS = {"depth": 0.002, "place": 0.1, "flow": 0.1}
#: Pairs are worked on in so many parts, of at least so many pixels.
PARTS, LEAST = 6, 2048
#: Unknowns of a pair's residuals: relative motion (translation, rotation), log scale, log focal of i and of j.
LOCAL = 9
SCALE, FOCAL_I, FOCAL_J = 6, 7, 8


@dataclass(frozen=True)
class Noise:
    """Scale of each kind of residual, and the share that each counts for.

    Errors of a network are alike over a whole picture, so P of them are worth far fewer: `share` is that fraction.
    """

    depth: float
    place: float
    flow: float
    share: float


@dataclass(frozen=True)
class Residuals:
    """What `evaluate` found. Residuals: `depth_i`, `depth_j` (E, P), `place_i`, `place_j`, `flow` (E, P, 2) pixels.

    `q_j` (E, P, 3) are frame j's points in camera j, `x_j` frame i's pixels' points in camera j; `*_front` say where
    these are in front of the camera. `rotation`, `shift` are j's camera from i's.
    """

    depth_i: torch.Tensor
    depth_j: torch.Tensor
    place_i: torch.Tensor
    place_j: torch.Tensor
    flow: torch.Tensor
    ray_i: torch.Tensor
    q_j: torch.Tensor
    q_front: torch.Tensor
    x_i: torch.Tensor
    x_j: torch.Tensor
    x_front: torch.Tensor
    rotation: torch.Tensor
    shift: torch.Tensor


def relative(state: State, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotation (E, 3, 3) and translation (E, 3) of j's camera from i's, float64."""
    i, j = edges.T
    a, b = state.camera_from_world[i], state.camera_from_world[j]
    rotation = b[:, :3, :3] @ a[:, :3, :3].mT
    return rotation, b[:, :3, 3] - (rotation @ a[:, :3, 3:])[..., 0]


def evaluate(sampled: Sampled, state: State) -> Residuals:
    """The residuals of a state."""
    i, j = sampled.edges.T
    rotation, shift = (a.float() for a in relative(state, sampled.edges))
    focal = state.log_focal.exp().float()
    f_i, f_j = focal[i][:, None, None], focal[j][:, None, None]
    pixel = sampled.uv - sampled.principal_point
    log_scale = state.log_scale.float()[:, None]

    z_i = sampled.points_i[..., 2].clamp(min=1e-9)
    ray_i = sampled.points_i[..., :2] / z_i[..., None]
    q_j = (sampled.points_j * log_scale.exp()[..., None]) @ rotation.mT + shift[:, None]
    q_front = q_j[..., 2] > 1e-6
    z_j = torch.where(q_front, q_j[..., 2], 1.0)
    depth_i = state.log_depth[i]
    x_i = torch.cat([pixel / f_i, torch.ones_like(depth_i)[..., None]], -1) * depth_i.exp()[..., None]
    x_j = x_i @ rotation.mT + shift[:, None]
    x_front = x_j[..., 2] > 1e-6
    x_z = torch.where(x_front, x_j[..., 2], 1.0)
    return Residuals(
        depth_i=log_scale + z_i.log() - depth_i,
        depth_j=z_j.log() - state.log_depth[j],
        place_i=f_i * ray_i - pixel,
        place_j=f_j * q_j[..., :2] / z_j[..., None] - pixel,
        flow=f_j * x_j[..., :2] / x_z[..., None] - pixel - sampled.flow,
        ray_i=ray_i,
        q_j=q_j,
        q_front=q_front,
        x_i=x_i,
        x_j=x_j,
        x_front=x_front,
        rotation=rotation,
        shift=shift,
    )


def parts(sampled: Sampled, state: State) -> Iterator[tuple[slice, Sampled, State]]:
    """The pairs in a few parts, one after the other, so that what is only needed in between stays small."""
    pairs = len(sampled.edges)
    step = max(1, -(-pairs // PARTS), LEAST // max(1, len(sampled.uv)))
    for begin in range(0, pairs, step):
        part = slice(begin, begin + step)
        yield part, sampled.where(part), replace(state, log_scale=state.log_scale[part])


def cost_of(sampled: Sampled, state: State, noise: Noise) -> float:
    """The robust cost of a state."""
    return sum(weighted(some, evaluate(some, own), noise)[0] for _, some, own in parts(sampled, state))


def cauchy(squared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cost and weight of residuals whose square, in units of their scale, is given."""
    return torch.log1p(squared), 1 / (1 + squared)


def weighted(sampled: Sampled, r: Residuals, noise: Noise) -> tuple[float, dict[str, torch.Tensor]]:
    """The robust cost, and the weight (E, P) of each residual in the normal equations."""
    in_front_i = sampled.points_i[..., 2] > 1e-6
    cost = torch.zeros((), dtype=torch.float64, device=sampled.uv.device)
    weights = {}
    for name, squared, base, scale in (
        ("depth_i", r.depth_i**2, sampled.weight_i * in_front_i * noise.share, noise.depth),
        ("depth_j", r.depth_j**2, sampled.weight_j * r.q_front * noise.share, noise.depth),
        ("place_i", r.place_i.square().sum(-1), sampled.weight_i * in_front_i * noise.share, noise.place),
        ("place_j", r.place_j.square().sum(-1), sampled.weight_j * r.q_front * noise.share, noise.place),
        ("flow", r.flow.square().sum(-1), sampled.flow_weight * r.x_front, noise.flow),
    ):
        rho, weight = cauchy(squared / scale**2)
        cost += (base * rho).sum(dtype=torch.float64)
        weights[name] = base * weight / scale**2
    return float(cost), weights


def scales(sampled: Sampled, state: State, share: float) -> Noise:
    """The scale of each kind from the residuals themselves, by their median; never below what pictures can tell."""
    found: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    for _, some, own in parts(sampled, state):
        r = evaluate(some, own)
        seen_i, seen_j, seen = some.weight_i > 0, (some.weight_j > 0) & r.q_front, (some.flow_weight > 0) & r.x_front
        found["depth"] += [r.depth_i.abs()[seen_i], r.depth_j.abs()[seen_j]]
        found["place"] += [r.place_i.norm(dim=-1)[seen_i], r.place_j.norm(dim=-1)[seen_j]]
        found["flow"] += [r.flow.norm(dim=-1)[seen]]
    middle = {kind: torch.cat(values).median() if sum(map(len, values)) else 0.0 for kind, values in found.items()}
    return Noise(**{kind: max(FLOORS[kind], 1.48 * float(middle[kind])) for kind in KINDS}, share=share)


def projection_rows(q: torch.Tensor, focal: torch.Tensor, front: torch.Tensor) -> torch.Tensor:
    """(E, P, 2, 6) derivative of the projection of `q` (E, P, 3) by a motion exp(translation, rotation) before it."""
    z = torch.where(front, q[..., 2], 1.0)
    a, b, inverse = q[..., 0] / z, q[..., 1] / z, 1 / z
    none = torch.zeros_like(a)
    x = torch.stack([inverse, none, -a * inverse, -a * b, 1 + a * a, -b], -1)
    y = torch.stack([none, inverse, -b * inverse, -(1 + b * b), a * b, a], -1)
    return torch.stack([x, y], -2) * focal[..., None, None]


@dataclass(frozen=True)
class Normal:
    """Normal equations in each pair's own unknowns.

    `h` (E, 9, 9), `g` (E, 9) over those unknowns; `cross` (E, 2, P, 9) couples them with the depth of the pixels of i
    and of j, whose own terms are `h_depth`, `g_depth` (T, P).
    """

    h: torch.Tensor
    g: torch.Tensor
    cross: torch.Tensor
    h_depth: torch.Tensor
    g_depth: torch.Tensor


def normal_equations(sampled: Sampled, state: State, noise: Noise) -> Normal:
    """The quadratic model of the cost around a state."""
    pairs, count = sampled.weight_i.shape
    device = sampled.uv.device
    normal = Normal(
        h=torch.zeros(pairs, LOCAL, LOCAL, dtype=torch.float64, device=device),
        g=torch.zeros(pairs, LOCAL, dtype=torch.float64, device=device),
        cross=torch.zeros(pairs, 2, count, LOCAL, device=device),
        h_depth=torch.zeros_like(state.log_depth),
        g_depth=torch.zeros_like(state.log_depth),
    )
    for part, some, own in parts(sampled, state):
        r = evaluate(some, own)
        into = replace(normal, h=normal.h[part], g=normal.g[part], cross=normal.cross[part])
        _add_pairs(into, some, own, r, weighted(some, r, noise)[1])
    return normal


def _add_pairs(normal: Normal, sampled: Sampled, state: State, r: Residuals, w: dict[str, torch.Tensor]) -> None:
    """Add what some pairs say to the equations, whose `h`, `g` and `cross` are those of the same pairs."""
    i, j = sampled.edges.T
    pairs, count = sampled.weight_i.shape
    device = sampled.uv.device
    focal = state.log_focal.exp().float()
    f_i, f_j = focal[i][:, None], focal[j][:, None]
    rows = torch.zeros(pairs, count, 2, LOCAL, device=device)
    h, g, cross, h_depth, g_depth = normal.h, normal.g, normal.cross, normal.h_depth, normal.g_depth

    def add(jacobian: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor) -> None:
        flat = (jacobian * weight[..., None, None]).reshape(pairs, -1, LOCAL)
        h.add_((flat.mT @ jacobian.reshape(pairs, -1, LOCAL)).double())
        g.add_((flat * residual.reshape(pairs, -1, 1)).sum(1).double())

    # Place in i: only its focal length can change it, and f ray is its own derivative.
    moved = f_i[..., None] * r.ray_i
    h[:, FOCAL_I, FOCAL_I] += (w["place_i"] * moved.square().sum(-1)).sum(-1).double()
    g[:, FOCAL_I] += (w["place_i"] * (moved * r.place_i).sum(-1)).sum(-1).double()

    # Depth in i: the pair's scale against the pixel's depth.
    h[:, SCALE, SCALE] += w["depth_i"].sum(-1).double()
    g[:, SCALE] += (w["depth_i"] * r.depth_i).sum(-1).double()
    cross[:, 0, :, SCALE] -= w["depth_i"]
    h_depth.index_add_(0, i, w["depth_i"])
    g_depth.index_add_(0, i, -w["depth_i"] * r.depth_i)

    # Place in j.
    projection = projection_rows(r.q_j, f_j, r.q_front)
    along = r.q_j - r.shift[:, None]  # what scaling the pair moves its points by
    rows[..., :6] = projection
    rows[..., SCALE] = (projection[..., :3] @ along[..., None])[..., 0]
    rows[..., FOCAL_J] = r.place_j + (sampled.uv - sampled.principal_point)
    add(rows, w["place_j"], r.place_j)

    # Depth in j.
    z = torch.where(r.q_front, r.q_j[..., 2], 1.0)
    none = torch.zeros_like(z)
    depth_row = torch.stack(
        [none, none, 1 / z, r.q_j[..., 1] / z, -r.q_j[..., 0] / z, none, along[..., 2] / z, none, none], -1
    )
    add(depth_row[..., None, :], w["depth_j"], r.depth_j[..., None])
    cross[:, 1] -= depth_row * w["depth_j"][..., None]
    h_depth.index_add_(0, j, w["depth_j"])
    g_depth.index_add_(0, j, -w["depth_j"] * r.depth_j)

    # Flow from i to j.
    if bool((w["flow"] > 0).any()):
        projection = projection_rows(r.x_j, f_j, r.x_front)
        along = r.x_j - r.shift[:, None]
        across = torch.cat([-r.x_i[..., :2], none[..., None]], -1) @ r.rotation.mT
        rows = torch.zeros_like(rows)
        rows[..., :6] = projection
        rows[..., FOCAL_I] = (projection[..., :3] @ across[..., None])[..., 0]
        rows[..., FOCAL_J] = r.flow + (sampled.uv - sampled.principal_point) + sampled.flow
        by_depth = (projection[..., :3] @ along[..., None])[..., 0]
        add(rows, w["flow"], r.flow)
        pulled = by_depth * w["flow"][..., None]
        cross[:, 0] += (rows * pulled[..., None]).sum(-2)
        h_depth.index_add_(0, i, (pulled * by_depth).sum(-1))
        g_depth.index_add_(0, i, (pulled * r.flow).sum(-1))
