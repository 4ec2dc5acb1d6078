"""What a problem may bring besides its points: noise of f, one point for all data, and a term in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.evaluate import Count, ask, gradients, prepare
from bench.kernels import why_no_kernel
from bench.reference import enumerated
from bench.train import objective_at
from estimators.base import Estimator, Noise, mismatch, target_of
from estimators.disarm import disarm
from estimators.gumbel_softmax import gumbel_softmax
from estimators.noise import LEARN, MEASURE
from estimators.pathwise import pathwise, pathwise_total
from estimators.pathwise_analytic_entropy import pathwise_analytic_entropy
from estimators.score_function import rloo
from problems.base import Problem
from problems.families.bernoulli import Bernoulli
from problems.families.normal import Normal
from problems.objectives import Elbo, Expectation, ImportanceWeighted
from problems.truth import true_gradient

THETA = torch.tensor([0.3, -0.8, 1.2], dtype=torch.float64)
ROWS = torch.linspace(-1, 1.5, 12, dtype=torch.float64).reshape(6, 2)
GAUSSIAN = torch.tensor([[0.3, -0.4], [-0.5, -1.0]], dtype=torch.float64)


def drawing(**changes: object) -> Problem:
    """f = (x.sum eps + model)^2 - data: over eps ~ N(0, 1) its mean is x.sum^2 + model^2 - data."""

    def f(x: torch.Tensor, noise: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        return (x.sum(-1) * noise[..., 0] + model).square() - data.sum(-1) * x[..., 0]

    normal = [Noise("normal", (), (1,))]
    problem = Problem("drawing", Bernoulli, THETA, f, model=torch.full((1,), 0.7).double(), data=ROWS, noise=normal)
    return replace(problem, **changes)


def averaged(batch: int = 0) -> Problem:
    def f(x: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        return x.sum(-1).square() + model.square() - data.sum(-1) * x[..., 0]

    return replace(drawing(batch=batch), f=f, noise=())


def z(estimator: Estimator, problem: Problem, truth: torch.Tensor, replicates: int = 16_384) -> float:
    """Largest distance of the mean from the truth, in standard errors."""
    g = gradients(prepare(estimator, problem), range(replicates))
    se = g.std(0) / len(g) ** 0.5
    return float(((g.mean(0) - truth).abs() / se.clamp(min=1e-12)).max())


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("estimator", [rloo(3), disarm()], ids=lambda e: e.name)
def test_the_mean_is_over_the_noise_of_f_too(estimator, batch):
    """Four coordinates: an unbiased estimator passes 4.9 standard errors in one of 250,000 runs."""
    truth = true_gradient(averaged()).gradient
    assert z(estimator, drawing(batch=batch), truth) < 4.9
    assert z(estimator, drawing(batch=batch), 1.1 * truth) > 4.9


def test_the_noise_of_f_is_the_same_at_all_points_and_for_all_estimators():
    seen: list[torch.Tensor] = []
    f = drawing().f

    def watched(x: torch.Tensor, noise: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        seen.append(noise)
        return f(x, noise, data, model)

    for estimator in (rloo(4), disarm()):
        ask(prepare(estimator, drawing(f=watched)), range(5), None, MEASURE, Count())
    ask(prepare(rloo(4), drawing(f=watched)), range(5), None, LEARN, Count())
    first, second, learning = seen
    assert first.shape == (5, 6, 1)
    assert torch.equal(first, second)
    assert not torch.isclose(first, learning).any()


def test_rows_bring_their_own_noise_of_f():
    """A datum's noise is addressed by the datum: whoever else is in the batch."""
    seen: list[torch.Tensor] = []
    f = drawing().f

    def watched(x: torch.Tensor, noise: torch.Tensor, data: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
        seen.append(torch.cat([noise, data.expand(*noise.shape[:-1], 2)], -1))
        return f(x, noise, data, model)

    for batch in (0, 2):
        ask(prepare(rloo(2), drawing(f=watched, batch=batch)), range(8), None, MEASURE, Count())
    whole, drawn = seen
    for r in range(8):
        for row in drawn[r]:
            assert (whole[r] == row).all(-1).any()


def test_noise_of_f_is_refused_where_it_has_no_meaning():
    f = drawing().f
    with pytest.raises(ValueError, match="takes several draws"):
        drawing(objective=ImportanceWeighted(3))
    with pytest.raises(ValueError, match="must say its event"):
        drawing(noise=[Noise("normal")])
    with pytest.raises(ValueError, match="without axes in front"):
        drawing(noise=[Noise("normal", (2,), (1,))])
    with pytest.raises(ValueError, match="f draws 8 arrays of noise; 7 is the most"):
        drawing(noise=[Noise("normal", (), (1,))] * 8)
    assert true_gradient(drawing()) is None
    assert enumerated(drawing(), 10.0, print) is None
    assert "noise in f" in why_no_kernel(prepare(rloo(2), drawing(f=f, lanes=f)))
    whole = Estimator("whole", gradients=lambda theta, f: theta)
    assert "noise of its own" in mismatch(whole, drawing(model=None, data=None))


def regression(shared: bool, batch: int = 0) -> Problem:
    """ELBO of y = w.x with a prior N(0, I) and unit noise: -(1/2) sum_i (y_i - w.x_i)^2 + log N(w; 0, I) - log q(w)."""
    x_i, y_i = ROWS, ROWS.sum(-1).cos()
    data = torch.cat([x_i, y_i[:, None]], 1)

    def of_datum(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        residual = data[..., 2] - (x * data[..., :2]).sum(-1)
        return -0.5 * residual.square() - 0.5 * x.square().sum(-1) / len(ROWS)

    if shared:
        return Problem("regression", Normal, GAUSSIAN, of_datum, Elbo(), 2, True, data=data, batch=batch, shared=True)
    return Problem("regression", Normal, GAUSSIAN, lambda x: of_datum(x[..., None, :], data).sum(-1), Elbo(), 2, True)


def slope() -> torch.Tensor:
    """d/dmu = sum_i x_i (y_i - mu.x_i) - mu; d/dlog sigma = 1 - sigma^2 (1 + sum_i x_i^2)."""
    mu, variance, y = GAUSSIAN[0], (2 * GAUSSIAN[1]).exp(), ROWS.sum(-1).cos()
    return torch.cat([(y - ROWS @ mu) @ ROWS - mu, 1 - variance * (1 + ROWS.square().sum(0))])


@pytest.mark.parametrize(
    "estimator", [rloo(3), pathwise(), pathwise_total(), pathwise_analytic_entropy()], ids=lambda e: e.name
)
def test_one_point_for_all_data_is_f_of_all_data(estimator):
    """Replicate by replicate, to rounding; and the mean is the gradient of the whole evidence bound."""
    apart = gradients(prepare(estimator, regression(shared=True)), range(64))
    whole = gradients(prepare(estimator, regression(shared=False)), range(64))
    assert torch.allclose(apart, whole, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("estimator", [rloo(3), pathwise()], ids=lambda e: e.name)
def test_a_batch_of_shared_points_has_the_gradient_of_all(estimator):
    assert z(estimator, regression(shared=True, batch=2), slope()) < 4.9
    assert z(estimator, regression(shared=True, batch=2), slope() + 0.2) > 4.9


def test_one_point_for_all_data_is_enumerated_datum_by_datum():
    """A datum's share of log q: the entropy is counted once, whatever the number of data."""

    def of_datum(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return -(x[..., :2] * data).sum(-1).square() + x[..., 2] / len(ROWS)

    apart = Problem("shared", Bernoulli, THETA, of_datum, Elbo(), data=ROWS, shared=True)
    whole = Problem("shared", Bernoulli, THETA, lambda x: of_datum(x[..., None, :], ROWS).sum(-1), Elbo())
    wanted = true_gradient(whole).gradient
    assert torch.allclose(true_gradient(apart).gradient, wanted, rtol=1e-12, atol=1e-12)
    assert z(rloo(3), replace(apart, batch=2), wanted) < 4.9


def test_shared_points_lie_along_the_data():
    found = ask(prepare(rloo(2), regression(shared=True, batch=3)), range(4), None, MEASURE, Count()).known["x"]
    assert found.shape == (2, 4, 3, 2)
    assert torch.equal(found, found[:, :, :1].expand_as(found))


def test_f_draws_for_each_datum_though_they_share_a_point():
    seen: list[torch.Tensor] = []

    def f(x: torch.Tensor, noise: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        seen.append(noise[..., 0])
        return x.sum(-1) * noise[..., 0]

    own = replace(regression(shared=True, batch=3), f=f, noise=[Noise("normal", (), (1,))])
    x = ask(prepare(rloo(2), own), range(4), None, MEASURE, Count()).known["x"]
    assert torch.equal(x, x[:, :, :1].expand_as(x))
    assert seen[0].shape == (4, 3)
    assert len(seen[0].unique()) == 12


def test_shared_without_data_is_refused():
    with pytest.raises(ValueError, match="there is no data"):
        replace(regression(shared=False), shared=True)


@pytest.mark.parametrize("batch", [0, 2])
def test_a_closed_form_is_added_to_the_truth_and_to_every_replicate(batch):
    plain = averaged(batch)
    of_theta = replace(plain, closed_form=lambda theta: (theta**3).sum())
    of_data = replace(plain, closed_form=lambda theta, data: (data.square().sum(-1)) * theta.sum())
    slopes = {
        "theta": torch.cat([3 * THETA**2, THETA.new_zeros(1)]),
        "data": ROWS.square().sum() * torch.tensor([1.0, 1.0, 1.0, 0.0]).double(),
    }
    before = gradients(prepare(rloo(3), plain), range(64))
    for problem, slope_ in ((of_theta, slopes["theta"]), (of_data, slopes["data"])):
        gap = true_gradient(problem).gradient - true_gradient(plain).gradient
        assert torch.allclose(gap, slope_, rtol=1e-12, atol=1e-12)
        after = gradients(prepare(rloo(3), problem), range(64))
        if batch == 0 or problem is of_theta:
            assert torch.allclose(after - before, slope_.expand_as(before), rtol=1e-9, atol=1e-9)
    if batch:
        assert z(rloo(3), of_data, true_gradient(of_data).gradient) < 4.9
        assert (after - before).std(0)[:3].min() > 0.1


def test_a_closed_form_is_added_to_what_calls_f_itself():
    bare = Problem("bare", Bernoulli, THETA, lambda x: x.sum(-1), closed_form=lambda theta: (theta**3).sum())
    slope_of_f = THETA.sigmoid() * (1 - THETA.sigmoid())
    whole = Estimator("whole", gradients=lambda theta, replicates: slope_of_f.expand(replicates, 3))
    found = gradients(prepare(whole, bare), range(4))
    assert torch.allclose(found, true_gradient(bare).gradient.expand(4, 3), rtol=1e-12, atol=1e-12)


def test_a_closed_form_is_part_of_the_objective_and_of_what_a_biased_mean_is():
    plain = averaged()
    raised = replace(plain, closed_form=lambda theta: 7 + theta.sum())
    assert objective_at(raised)[0] - objective_at(plain)[0] == pytest.approx(7 + float(THETA.sum()))
    bare = replace(plain, theta=THETA[:2], smooth=2, relaxed=True, model=None, data=None, f=lambda x: x.sum(-1) ** 2)
    (biased, _), (shifted, _) = (
        target_of(gumbel_softmax(), p) for p in (bare, replace(bare, closed_form=raised.closed_form))
    )
    assert torch.allclose(shifted - biased, torch.ones(2).double())


def test_an_expectation_takes_no_share_of_log_q():
    plain = replace(regression(shared=True), objective=Expectation())
    fx = ask(prepare(rloo(2), plain), range(4), None, MEASURE, Count()).known
    assert torch.allclose(fx["fx"], plain.f(fx["x"], plain.data))
