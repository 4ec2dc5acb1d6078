"""The shared text of the sigmoid belief network, against loops in plain Python."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from problems import belief_network as net


def bernoulli(bit: float, logit: float) -> float:
    return math.log(1 / (1 + math.exp(-logit if bit else logit)))


def plain_log_joint(z: list[float], pixels: list[float], model: list[float], widths: tuple[int, ...]) -> float:
    """The same density with one term at a time, reading the weights in order."""
    layers, start = [pixels], 0
    for width in widths[1:]:
        layers.append(z[start : start + width])
        start += width
    weights = iter(model)
    total = 0.0
    for below, above in pairwise(layers):
        matrix = [[next(weights) for _ in below] for _ in above]
        bias = [next(weights) for _ in below]
        for o, bit in enumerate(below):
            total += bernoulli(bit, bias[o] + sum(h * matrix[i][o] for i, h in enumerate(above)))
    for bit in layers[-1]:
        total += bernoulli(bit, next(weights))
    assert next(weights, None) is None
    return total


@pytest.mark.parametrize("widths", [(5, 3), (4, 3, 2), (3, 2, 2, 4)])
def test_log_joint_is_the_density_term_by_term(widths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    model = torch.randn(net.model_count(widths), generator=generator, dtype=torch.float64)
    data = torch.randint(0, 2, (6, widths[0]), generator=generator).double()
    z = torch.randint(0, 2, (2, 7, 6, sum(widths[1:])), generator=generator).double()
    found = net.log_joint(z, data, model, widths)
    assert found.shape == (2, 7, 6)
    wanted = plain_log_joint(z[1, 4, 5].tolist(), data[5].tolist(), model.tolist(), widths)
    assert float(found[1, 4, 5]) == pytest.approx(wanted, rel=1e-13)
    own_rows = net.log_joint(z, data.expand(7, 6, widths[0]), model, widths)
    assert torch.equal(own_rows, found)


def test_encoders_read_their_own_weights() -> None:
    widths = (4, 3, 2)
    theta = torch.arange(net.encoder_count(widths), dtype=torch.float64)
    data = torch.eye(4, dtype=torch.float64)[:2]
    first, second = net.encoders(widths)
    h = first(theta, [], data)
    assert torch.equal(h, torch.stack([theta[0:3], theta[3:6]]) + theta[12:15])
    below = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    assert torch.equal(second(theta, [below], data)[0], theta[19:21] + theta[21:23])
    assert second(theta, [below], data).shape == (1, 2)


def test_initial_parameters_have_the_declared_sizes_and_repeat() -> None:
    widths, data = (16, 5, 3), net.digits(20, side=4)
    assert net.initial_encoder(widths).shape == (net.encoder_count(widths),)
    assert net.initial_model(widths, data).shape == (net.model_count(widths),)
    assert torch.equal(net.initial_model(widths, data), net.initial_model(widths, data))
    biases = net.initial_model(widths, data)[5 * 16 : 6 * 16]
    assert torch.allclose(biases.sigmoid(), (data.sum(0) + 1) / 22)


def test_digits_are_bits() -> None:
    small, large = net.digits(10, side=4), net.digits(1797)
    assert small.shape == (10, 16)
    assert large.shape == (1797, 64)
    assert set(small.unique().tolist()) == set(large.unique().tolist()) == {0.0, 1.0}
    assert 0.2 < float(small.mean()) < 0.5
    assert 0.2 < float(large.mean()) < 0.5
