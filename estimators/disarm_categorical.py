"""DisARM for categories, each made of C - 1 bits, the nodes of a binary tree from whose root the sample walks to its leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from estimators import disarm
from estimators.base import Estimator, Noise
from estimators.trees import Node, balanced, stick
from problems.settings import one_of

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("stick_breaking", "importance_weighted", "tree")
ORDERS = ("ascending", "descending", "given")


class Tree(NamedTuple):
    """The categories that lie left and right of every node, bools `[C - 1, C]`; the bit 1 leads to the left."""

    left: Tensor
    right: Tensor


def tree_of(nodes: Sequence[Node], C: int) -> Tree:
    """The nodes as masks of the categories."""
    left, right = torch.zeros(2, len(nodes), C, dtype=torch.bool)
    for n, node in enumerate(nodes):
        left[n, node.first : node.middle] = True
        right[n, node.middle : node.last] = True
    return Tree(left, right)


def node_logits(tree: Tree, l: Tensor) -> Tensor:
    """a_n = logsumexp of l on the left of node n - logsumexp on its right: `[..., C] -> [..., C - 1]`."""
    left, right = (l[..., None, :].masked_fill(~side, -torch.inf).logsumexp(-1) for side in tree)
    return left - right


def to_logits(tree: Tree, l: Tensor, g: Tensor) -> Tensor:
    """(da/dl)' g, da_n/dl_c = softmax of l on the left of n, less that on its right: `[..., C - 1] -> [..., C]`."""
    left, right = (l[..., None, :].masked_fill(~side, -torch.inf).softmax(-1) for side in tree)
    return torch.einsum("...n,...nc->...c", g, left - right)


def leaf(tree: Tree, bits: Tensor) -> Tensor:
    """One-hot of the category at which no bit on the way is wrong: `[..., C - 1] -> [..., C]`."""
    wrong = (1 - bits) @ tree.left.to(bits) + bits @ tree.right.to(bits)
    return (wrong == 0).to(bits)


def sides(tree: Tree, z: Tensor) -> tuple[Tensor, Tensor]:
    """1 where z lies left of a node, and where it lies right: `[..., C] -> [..., C - 1]` each. On its way it is one of the two."""
    return z @ tree.left.to(z).mT, z @ tree.right.to(z).mT


def disarm_categorical(samples: int = 2, form: str = "stick_breaking", order: str = "ascending") -> Estimator:
    """DisARM for categories: the bits of which they are made come in antithetic pairs; averaged over samples / 2 pairs.

    Nothing is assumed of f. Unbiased for Expectation and Elbo; `samples` evaluations of f, no gradient of f; with two categories it
    is DisARM. form: stick_breaking, where bit i says whether it is category i once it is none before; tree, where bits halve the
    categories; importance_weighted, where the pair of stick_breaking is weighed as if it were independent, which has the whole
    score. order: categories are laid out by their logits, ascending, descending, or as given. Only in the ascending is every pair
    of categories sure to be met, as importance weights need it.
    Dong, Mnih & Tucker, NeurIPS 2021, arXiv:2106.08056.
    """
    m = disarm.pairs("disarm_categorical", samples)
    one_of("disarm_categorical", FORMS, form=form)
    one_of("disarm_categorical", ORDERS, order=order)
    if form == "importance_weighted" and order != "ascending":
        raise ValueError(
            f"disarm_categorical[form={form},order={order}]: the pair must meet every two categories, which takes order=ascending"
        )

    nodes = balanced if form == "tree" else stick

    def laid_out(theta: Tensor) -> tuple[Tree, Tensor]:
        """The tree, and the category at each of its leaves."""
        C = theta.shape[-1]
        tree = Tree(*(side.to(theta.device) for side in tree_of(nodes(C), C)))
        if order == "given":
            return tree, torch.arange(C, device=theta.device).expand_as(theta)
        return tree, theta.argsort(dim=-1, descending=order == "descending", stable=True)

    def draw(theta: Tensor, noise: Tensor) -> Tensor:
        """m pairs, the z first: z of the bits 1[1 - u < sigmoid(a)], z~ of 1[u < sigmoid(a)]; x: [2 m, ..., D, C]."""
        tree, at = laid_out(theta)
        a = node_logits(tree, theta.gather(-1, at))
        z = leaf(tree, disarm.draw(a, noise))
        return z.gather(-1, at.argsort(-1).expand_as(z))

    def combine(theta: Tensor, x: Tensor, fx: Tensor) -> Tensor:
        """g = mean over pairs of 1/2 (f(z) - f(z~)) (da/dl)' h, h as in `shared_and_own`; or of 1/2 (f(z) - f(z~)) `reweighted`."""
        tree, at = laid_out(theta)
        l, places = theta.gather(-1, at), at.argsort(-1)
        z, z_tilde = x.gather(-1, at.expand_as(x)).chunk(2)
        f_z, f_tilde = fx.chunk(2)
        delta = 0.5 * (f_z - f_tilde)[..., None, None]
        if form == "importance_weighted":
            g = (delta * reweighted(tree, l, z, z_tilde)).mean(0)
        else:
            g = to_logits(tree, l, (delta * shared_and_own(tree, l, z, z_tilde)).mean(0))
        return g.gather(-1, places.expand_as(g))

    return Estimator(
        "disarm_categorical",
        samples,
        draw,
        combine,
        ["categorical"],
        noise=lambda size: [Noise("uniform", (m,), (size.D, size.event[1] - 1))],
        kernel="estimators.kernels.disarm_categorical:disarm_categorical",
        settings={"samples": samples, "form": form, "order": order},
        source="arXiv:2106.08056",
    )


def shared_and_own(tree: Tree, l: Tensor, z: Tensor, z_tilde: Tensor) -> Tensor:
    """h_n = used_n used~_n (beta_n - beta~_n) sigmoid(|a_n|) + used_n (1 - used~_n) s_n - used~_n (1 - used_n) s~_n.

    used_n: node n is on the way to z; beta_n its bit; s_n = beta_n - sigmoid(a_n). DisARM where both pass, the score where one.
    """
    a = node_logits(tree, l)
    (left, right), (left_tilde, right_tilde) = sides(tree, z), sides(tree, z_tilde)
    used, used_tilde = left + right, left_tilde + right_tilde
    s, s_tilde = (one * (-a).sigmoid() - zero * a.sigmoid() for one, zero in ((left, right), (left_tilde, right_tilde)))
    pair = used * used_tilde * (left - left_tilde) * a.abs().sigmoid()
    return pair + (1 - used_tilde) * s - (1 - used) * s_tilde


def reweighted(tree: Tree, l: Tensor, z: Tensor, z_tilde: Tensor) -> Tensor:
    """w (grad_l log q(z) - grad_l log q(z~)), w = q(z) q(z~) / q(z, z~) over the bits that both use:

    prod_{i < min(z, z~)} (1 - sigma_i)^2 / (1 - 2 sigma_i) sigmoid(|a_min|), sigma_i = sigmoid(a_i) <= 1/3: where both bits are 0,
    and the first that differ. The last bit is 0 in both only where z = z~, and the difference of scores nil. (The docstring of the
    authors' code names the two factors the other way round; its code is this.)
    """
    a = node_logits(tree, l)
    (left, right), (left_tilde, right_tilde) = sides(tree, z), sides(tree, z_tilde)
    both_zero = (right * right_tilde)[..., :-1] > 0
    differ = left * right_tilde + right * left_tilde > 0
    zeros = (-a).sigmoid().square() / (-0.5 * a).tanh()
    w = torch.where(both_zero, zeros[..., :-1], 1.0).prod(-1) * torch.where(differ, a.abs().sigmoid(), 1.0).prod(-1)
    return w[..., None] * (z - z_tilde)
