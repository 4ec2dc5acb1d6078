"""ARS and ARSM: ARM for categories; the antithetic points swap two entries of the Dirichlet variables that give the sample.

pi = e / sum_c e_c with e_c = e^{-G_c} exponential is Dirichlet(1, ..., 1), and argmin_c (log pi_c - l_c) = argmax_c (l_c + G_c) is
the sample that the family makes of the Gumbel noise G. Entries of pi are swapped in every site at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from estimators.base import Ask, Estimator, Noise, Size

if TYPE_CHECKING:
    from torch import Tensor

    from problems.families.base import Family


def transpositions(C: int) -> list[tuple[int, int]]:
    """No swap at all, then every pair i < j: C (C - 1) / 2 + 1 of them."""
    return [(0, 0), *combinations(range(C), 2)]


def places(C: int) -> Tensor:
    """`[i, j]`: where among `transpositions(C)` the swap of i and j is."""
    found = torch.zeros(C, C, dtype=torch.long)
    for k, (i, j) in enumerate(transpositions(C)):
        found[i, j] = found[j, i] = k
    return found


def all_swapped(noise: Tensor) -> Tensor:
    """The noise with each of `transpositions(C)` carried out: `[R, (B,) D, C] -> [K, R, (B,) D, C]`."""
    C = noise.shape[-1]
    order = torch.arange(C, device=noise.device).repeat(1 + C * (C - 1) // 2, 1)
    for k, (i, j) in enumerate(transpositions(C)):
        order[k, i], order[k, j] = j, i
    return noise[..., order].movedim(-2, 0)


def swapped_with(noise: Tensor, j: Tensor) -> Tensor:
    """The noise with entries m and j swapped, for every m: `[R, (B,) D, C] -> [C, R, (B,) D, C]`; j: `[R, (B,) 1, 1]`."""
    C = noise.shape[-1]
    c = torch.arange(C, device=noise.device)
    m = c.reshape(C, *[1] * noise.ndim)
    order = torch.where(c == m, j, torch.where(c == j, m, c))
    return noise.expand(C, *noise.shape).gather(-1, order.expand(C, *noise.shape))


def first_of_its_kind(x: Tensor) -> Tensor:
    """For every point, which is the first that coincides with it in all its sites: `[K, ..., D, C] -> [K, ...]`."""
    z = x.argmax(-1)
    same = [(z[: k + 1] == z[k]).all(-1).to(torch.uint8).argmax(0) for k in range(len(z))]
    return torch.stack(same)


def asked_once(x: Tensor) -> Tensor:
    """The points, of which those that coincide with an earlier one are NaN."""
    kind = first_of_its_kind(x)
    k = torch.arange(len(x), device=x.device).reshape(-1, *[1] * (kind.ndim - 1))
    return torch.where((kind == k)[..., None, None], x, torch.nan)


def turned(z: Tensor) -> Tensor:
    """1 where not all of the pseudo-actions `[m, ..., D]` of a site coincide, else 0: `[..., D]`."""
    return (z != z[0]).any(0)


def of_pseudo_actions(
    name: str,
    count: Callable[[int], int],
    noise: Callable[[Size], Sequence[Noise]],
    made: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
    plus: bool,
    unique: bool,
) -> Estimator:
    """An estimator of count(C) points, `made(q, noise)`, whose gradient is `gradient(q, noise, F)`, F being f there.

    Every point is distributed as q. With `unique` those that coincide are asked once, so that only the first is surely a sample.
    """

    def points(size: Size) -> list[Ask]:
        K = count(size.event[1])
        return [Ask.SAMPLE, *[Ask.VALUE] * (K - 1)] if unique else [Ask.SAMPLE] * K

    def draw(q: Family, noise: Any) -> Tensor:
        """x: [K, ..., D, C]."""
        x = made(q, noise)
        return asked_once(x) if unique else x

    def every(q: Family, noise: Any, fx: Tensor) -> Tensor:
        """f at every point, those included that were not asked again."""
        return fx.gather(0, first_of_its_kind(made(q, noise))) if unique else fx

    def combine(q: Family, noise: Any, fx: Tensor) -> Tensor:
        """As `gradient` says."""
        return gradient(q, noise, every(q, noise, fx))

    def value(q: Family, noise: Any, fx: Tensor) -> Tensor:
        """The mean of f over all points."""
        return every(q, noise, fx).mean(0)

    return Estimator(
        name,
        points,
        draw,
        combine,
        ["categorical"],
        noise=noise,
        value=value if unique else None,
        kernel=None if unique else f"estimators.kernels.arsm:{name}",
        settings={"plus": plus, "unique": unique},
        source="arXiv:1905.01413",
    )


def arsm(plus: bool = False, unique: bool = False) -> Estimator:
    """ARSM for categories: f with every two entries of the Dirichlet variables swapped, merged over the reference category.

    Nothing is assumed of f. Unbiased for Expectation and Elbo; C (C - 1) / 2 + 1 evaluations of f, no gradient of f; with `unique`
    fewer, f being asked once where pseudo-actions coincide in every site. With two categories it is ARM. plus (ARSM+ of Dong et al.
    2021): a site's factor 1/C - pi_j is nil where swaps with j do not move the site, as the mean of what it multiplies is nil
    there: less variance in all, though not always in every coordinate.
    Yin, Yue & Zhou 2019, arXiv:1905.01413; Dong, Mnih & Tucker 2021, arXiv:2106.08056.
    """

    def made(q: Family, noise: Tensor) -> Tensor:
        """z^{i<->j} = argmin_c (log pi^{i<->j}_c - l_c), z itself first."""
        return q.sample(all_swapped(noise))

    def gradient(q: Family, noise: Tensor, F: Tensor) -> Tensor:
        """g_{d,i} = sum_j (F_ij - 1/C sum_m F_mj) (1/C - pi_{d,j}), F_ij = f(z^{i<->j})."""
        pi = (-noise).softmax(-1)
        C = pi.shape[-1]
        F, factor = F[places(C)], 1 / C - pi
        if plus:
            factor = factor * turned(made(q, noise).argmax(-1)[places(C)]).movedim(0, -1)
        return torch.einsum("ij...,...dj->...di", F - F.mean(0), factor)

    return of_pseudo_actions(
        "arsm", lambda C: 1 + C * (C - 1) // 2, lambda size: size.family.noise(size), made, gradient, plus, unique
    )


def reference_noise(size: Size) -> Sequence[Noise]:
    """That of a sample, and two uniforms for the categories j and l."""
    return [*size.family.noise(size), Noise("uniform", (2,), (1,))]


def references(noise: Tensor, C: int) -> tuple[Tensor, Tensor]:
    """j uniform over the C categories, and l uniform over the others: `[R, (B,) 1, 1]` each."""
    u, v = noise[..., None]
    j = (C * u).long().clamp(max=C - 1)
    l = (j + 1 + ((C - 1) * v).long().clamp(max=C - 2)) % C
    return j, l


def ars(plus: bool = False, unique: bool = False) -> Estimator:
    """ARS for categories: f with the entries of the Dirichlet variables swapped with that of a reference category, drawn at random.

    Nothing is assumed of f. Unbiased for Expectation and Elbo; C evaluations of f, no gradient of f; with `unique` fewer, f being
    asked once where pseudo-actions coincide in every site. ARSM is its mean over the reference. plus: pi_j, the reference's entry,
    is integrated out given pi_j + pi_l, l drawn from the others, and the pseudo-actions (ARS+ of Dong et al. 2021); with two
    categories it is then DisARM. Yin, Yue & Zhou 2019, arXiv:1905.01413; Dong, Mnih & Tucker 2021, arXiv:2106.08056.
    """

    def made(q: Family, noise: tuple[Tensor, Tensor]) -> Tensor:
        """z^{m<->j} = argmin_c (log pi^{m<->j}_c - l_c)."""
        j, _ = references(noise[1], noise[0].shape[-1])
        return q.sample(swapped_with(noise[0], j))

    def gradient(q: Family, noise: tuple[Tensor, Tensor], F: Tensor) -> Tensor:
        """g_{d,i} = (F_i - 1/C sum_m F_m) (1 - C pi_{d,j}), F_m = f(z^{m<->j}); with plus, of the mean of pi_{d,j}."""
        gumbel, uniforms = noise
        C = gumbel.shape[-1]
        j, l = references(uniforms, C)
        if plus:
            pi_j = integrated(q, gumbel, j, l)
        else:
            pi_j = (-gumbel).softmax(-1).gather(-1, j.expand(*gumbel.shape[:-1], 1))
        return (F - F.mean(0)).movedim(0, -1)[..., None, :] * (1 - C * pi_j)

    return of_pseudo_actions("ars", lambda C: C, reference_noise, made, gradient, plus, unique)


def integrated(q: Family, gumbel: Tensor, j: Tensor, l: Tensor) -> Tensor:
    """E[pi_j | pi_j + pi_l, the other entries, a site's pseudo-actions z^{m<->j}]: `[R, (B,) D, 1]`.

    Given s = e_j + e_l, t = e_j is uniform over (0, s). After the swap of m and j, t stands at m, and s - t at p: p = l, or j
    where m = l. With M the least e_c e^{-l_c} of the other places, which t does not move, the winner of e_c e^{-l_c} is
        m  where t < min(M e^{l_m}, s sigmoid(l_m - l_p)),
        p  where t > max(s - M e^{l_p}, s sigmoid(l_m - l_p)), another where M e^{l_m} < t < s - M e^{l_p}:
    an interval of t for each m, of whose intersection the mean is the middle. (The code of Dong et al. holds fixed whether m wins,
    and not which other place does, which is biased.)
    """
    C = gumbel.shape[-1]
    c = torch.arange(C, device=gumbel.device)
    m = c.reshape(C, *[1] * gumbel.ndim)
    p = torch.where(m == l, j, l)
    e = (gumbel.amin(-1, keepdim=True) - gumbel).exp()  # in units of the largest
    s = e.gather(-1, j.expand(*e.shape[:-1], 1)) + e.gather(-1, l.expand(*e.shape[:-1], 1))
    G = swapped_with(gumbel, j)
    logits = q.theta.expand(G.shape)
    l_m, l_p = (logits.gather(-1, at.expand(*G.shape[:-1], 1)) for at in (m, p))
    fixed = gumbel.amin(-1, keepdim=True) - G - logits
    log_M = torch.where((c == m) | (c == p), torch.inf, fixed).amin(-1, keepdim=True)
    of_m, of_p, between = (log_M + l_m).exp(), s - (log_M + l_p).exp(), s * (l_m - l_p).sigmoid()
    winner = q.sample(G).argmax(-1, keepdim=True)
    low = torch.where(winner == m, 0.0, torch.where(winner == p, torch.maximum(of_p, between), of_m))
    high = torch.where(winner == m, torch.minimum(of_m, between), torch.where(winner == p, s, of_p))
    return 0.5 * (low.amax(0) + high.amin(0)) / e.sum(-1, keepdim=True)
