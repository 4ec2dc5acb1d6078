"""The shortest path made smooth by Normal noise: what the cheapest way through a grid of uncertain costs is worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from problems.base import Point, Problem
from problems.families.normal import Normal
from problems.settings import at_least, one_of
from problems.truth import Truth, by_quadrature, exactly

SEED = 2410
REACH = 8.0  # standard deviations to which integrals go: beyond are less than 2e-15 of the mass
NODES = 36


class Paths(NamedTuple):
    """`loss[i]` for going through cell i, less `least` for the whole path; `costs`: the true ones, `guess`: wrong ones, `[n n]`."""

    loss: np.ndarray
    least: float
    costs: np.ndarray
    guess: np.ndarray


def shortest_path_smooth(side: int = 3, loss: str = "hamming") -> Problem:
    """Black-box smoothing of the shortest path through an n x n grid: E of a loss of the path, its costs x ~ N(mu, sigma^2).

    A path goes right and down from corner to corner, through the cells of least sum of x. theta = (mu, log sigma) `[2, n n]`.
    loss=hamming: the cells of the path that are not on the target, the best path of seeded true costs; loss=regret: its true cost
    less that of the target. f is a dynamic program without a slope: scores with their baselines, measure-valued gradients, which
    move one cost at a time, and evolution strategies are left. Shifting the costs of an antidiagonal changes no path, nor does
    stretching them all, so that dL/dmu sums to 0 over each antidiagonal and sum mu dL/dmu + dL/dlog sigma = 0, and both corners
    have no part in L; a score is noisy in every one of these directions. Points: `init` (mu = 0, sigma = 1), `mid` (mu the true
    costs, sigma = 1/2), `converged` (the true costs, sigma = 1/8), `narrow` (other costs, whose path is another; sigma = 1/8).
    Exact in closed form for side=2; by quadrature for side=3, over the two differences of costs that the middle diagonal sees
    and the least of the three ways through it; beyond that by a reference.
    Berthet et al. 2020, arXiv:2002.08676; Petersen et al. 2024, arXiv:2410.08125.
    """
    at_least("shortest_path_smooth", 2, side=side)
    one_of("shortest_path_smooth", ("hamming", "regret"), loss=loss)
    made = paths(side, loss)
    through = torch.from_numpy(made.loss)
    table, least = made.loss, made.least

    def f(x: torch.Tensor) -> torch.Tensor:
        """f(x) = l(path*(x)), path*(x) = argmin over paths of sum_{i in path} x_i."""
        cost, l = x.unflatten(-1, (side, side)), through.to(x)
        arrived: dict[
            tuple[int, int], tuple[torch.Tensor, torch.Tensor]
        ] = {}  # cell -> its least sum, and that path's loss
        nothing = torch.zeros_like(x[..., 0])
        for i, j in product(range(side), repeat=2):
            before = [arrived[cell] for cell in ((i - 1, j), (i, j - 1)) if cell in arrived]
            sum_, paid = before[0] if before else (nothing, nothing)
            if len(before) == 2:
                (up, paid_up), (left, paid_left) = before
                sum_, paid = torch.minimum(up, left), torch.where(left < up, paid_left, paid_up)
            arrived[i, j] = sum_ + cost[..., i, j], paid + l[i * side + j]
        return arrived[side - 1, side - 1][1] - least

    def scalar_f(x: Sequence[float]) -> float:
        best, lost = [0.0] * side, [0.0] * side
        for i in range(side):
            for j in range(side):
                if j > 0 and (i == 0 or best[j - 1] < best[j]):
                    best[j], lost[j] = best[j - 1], lost[j - 1]
                best[j] += x[i * side + j]
                lost[j] += table[i * side + j]
        return lost[side - 1] - least

    def exact(problem: Problem) -> Truth:
        def gradient(nodes: int) -> torch.Tensor:
            theta = problem.theta.detach().clone().requires_grad_()
            l = through.reshape(side, side)
            L = mean_of_two(theta, l) if side == 2 else mean_of_six(theta, l, nodes)
            return torch.autograd.grad(L, theta)[0]

        return exactly(gradient(NODES)) if side == 2 else by_quadrature(gradient, NODES)

    points = {
        "init": at(0 * made.costs, 1.0),
        "narrow": at(made.guess, 0.125),
        "mid": at(made.costs, 0.5),
        "converged": at(made.costs, 0.125),
    }
    return Problem(
        name="shortest_path_smooth",
        family=Normal,
        theta=points["init"].theta,
        f=f,
        relaxed=True,
        exact=exact if side <= 3 else None,
        scalar_f=scalar_f,
        points=points,
        settings={"side": side, "loss": loss},
        source="Petersen et al. 2024, arXiv:2410.08125",
    )


def at(mu: np.ndarray, sigma: float) -> Point:
    """Means, and one sigma."""
    means = torch.from_numpy(mu)
    return Point(torch.stack([means, torch.full_like(means, sigma).log()]))


def paths(side: int, loss: str) -> Paths:
    """True and guessed costs of U(0, 1) from the fixed seed, the guess drawn again until it has another path, and the loss."""
    rng = np.random.default_rng(SEED)
    costs = rng.random(side * side)
    target = cheapest(costs, side)
    guess = rng.random(side * side)
    while (cheapest(guess, side) == target).all():
        guess = rng.random(side * side)
    if loss == "hamming":
        return Paths(1.0 - target, 0.0, costs, guess)
    return Paths(costs, float(costs @ target), costs, guess)


def cheapest(costs: np.ndarray, side: int) -> np.ndarray:
    """1 for the cells of the cheapest path, `[n n]`, found backwards from the far corner."""
    ahead = np.full((side + 1, side + 1), np.inf)  # least sum from the cell on
    for i in reversed(range(side)):
        for j in reversed(range(side)):
            rest = min(ahead[i + 1, j], ahead[i, j + 1])
            ahead[i, j] = costs[i * side + j] + (rest if np.isfinite(rest) else 0.0)
    on, i, j = np.zeros((side, side)), 0, 0
    on[i, j] = 1
    while (i, j) != (side - 1, side - 1):
        i, j = (i + 1, j) if ahead[i + 1, j] < ahead[i, j + 1] else (i, j + 1)
        on[i, j] = 1
    return on.reshape(-1)


def mean_of_two(theta: torch.Tensor, l: torch.Tensor) -> torch.Tensor:
    """l_01 + (l_10 - l_01) P(x_10 < x_01), and what both paths pay."""
    mu, v = theta[0], (2 * theta[1]).exp()
    p = torch.special.ndtr((mu[1] - mu[2]) / (v[1] + v[2]).sqrt())
    return l[0, 1] + (l[1, 0] - l[0, 1]) * p


def mean_of_six(theta: torch.Tensor, l: torch.Tensor, nodes: int) -> torch.Tensor:
    """E f - l_00 - l_22 on the 3 x 3 grid, through the middle diagonal's cells 02, 11 and 20.

    With A = x_01 - x_10 and U = x_12 - x_21, the three ways cost, less x_10 + x_21,
    A + U + x_02,  min(A, 0) + min(U, 0) + x_11,  x_20;
    of independent A, U and x. Products of Gauss-Legendre rules on either side of A = 0 and of U = 0, where the min has its kink,
    and for the least of three a rule for each: P(way k is least) = E prod_{j != k} P(way j > t), t of way k.
    """
    mu, v = theta[0].reshape(3, 3), (2 * theta[1]).exp().reshape(3, 3)
    A, of_A = halves(mu[0, 1] - mu[1, 0], (v[0, 1] + v[1, 0]).sqrt(), nodes)
    U, of_U = halves(mu[1, 2] - mu[2, 1], (v[1, 2] + v[2, 1]).sqrt(), nodes)
    A, U = A[:, None, None], U[None, :, None]
    m = [A + U + mu[0, 2], A.clamp(max=0) + U.clamp(max=0) + mu[1, 1], mu[2, 0] + 0 * A * U]
    s = [v[0, 2].sqrt(), v[1, 1].sqrt(), v[2, 0].sqrt()]
    z, w = normal_rule(nodes)
    least = []
    for k in range(3):
        t = m[k] + s[k] * z
        others = [torch.special.ndtr((m[j] - t) / s[j]) for j in range(3) if j != k]
        least.append((w * others[0] * others[1]).sum(-1))
    before, after = torch.where(A < 0, l[0, 1], l[1, 0]), torch.where(U < 0, l[1, 2], l[2, 1])
    paid = [l[0, 1] + l[0, 2] + l[1, 2], (before + l[1, 1] + after)[..., 0], l[1, 0] + l[2, 0] + l[2, 1]]
    loss = least[0] * paid[0] + least[1] * paid[1] + least[2] * paid[2]
    return of_A @ loss @ of_U


def halves(m: torch.Tensor, s: torch.Tensor, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes `[2 nodes]` below and above 0, and weights times the density of N(m, s^2), which alone depends on m and s."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    low, high = min(float((m - REACH * s).detach()), 0.0), max(float((m + REACH * s).detach()), 0.0)
    at_ = torch.from_numpy(np.concatenate([low * (1 - x) / 2, high * (1 + x) / 2]))
    weight = torch.from_numpy(np.concatenate([-low * w / 2, high * w / 2]))
    eps = (at_ - m) / s
    return at_, weight * (-0.5 * eps * eps).exp() / (s * np.sqrt(2 * np.pi))


def normal_rule(nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The trapezoidal rule under N(0, 1): exponentially exact for what is smooth on the line."""
    z = torch.linspace(-REACH, REACH, nodes, dtype=torch.float64)
    return z, torch.softmax(-0.5 * z * z, -1)
