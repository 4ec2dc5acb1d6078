"""A problem in a picture: the objective along a line through its parameter points, what f gives under q, and the data.

At the ends of the line the true gradient is drawn as a tangent: a gradient of something else would not touch the curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from bench.evaluate import Count, ask, plain_samples, prepare
from bench.measure import chunk_of, pinned
from bench.report.axes import GREY, PALE, Box, sheet, style
from bench.train import objective_at
from estimators.noise import PILOT
from problems.base import Point, Problem
from problems.truth import true_gradient

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from torch import Tensor

ALONG = np.linspace(-0.25, 1.25, 31)  # places on the line: 0 is its start, 1 its end
TANGENT = 0.18  # half of a tangent's length, in the same unit
DRAWS = 512
LONGEST = 2.0  # of a step along the gradient, where there is one point only
SHOWN = 10  # images
LEVEL = 1.96
DPI = 120


@dataclass(frozen=True, eq=False)
class Line:
    """Two places in parameter space, `[P]` each (theta and then the model), and their names."""

    start: Tensor
    end: Tensor
    names: tuple[str, str]

    def at(self, t: float) -> Tensor:
        """The place so far along: 0 is the start, 1 the end."""
        return self.start + t * (self.end - self.start)


def write_picture(problem: Problem, path: Path) -> None:
    """Draw `problem` into a PNG file."""
    with style(), pinned(1):
        picture(problem).savefig(path, dpi=DPI)


def picture(problem: Problem) -> Figure:
    """The objective along the line, the integrand at each point, and the data where they are images."""
    bits = images(problem)
    boxes = [Box(3.3, 2.1, left=0.9), Box(3.0, 2.1, left=0.75)] + (
        [Box(1.9, 2.1, left=0.3)] if bits is not None else []
    )
    notes = [
        f"Left: {problem.objective.name} by {DRAWS} draws, the same at every place, with its 95% interval; bold, the tangents that "
        "the true gradient gives. Right: what one draw gives at each parameter point (the middle 99% of it)."
    ]
    figure, axes = sheet(boxes, 3, problem.name, notes)
    draw_objective(axes[0], problem)
    draw_integrand(axes[1], problem)
    if bits is not None:
        draw_images(axes[2], bits)
    return figure


def line_of(problem: Problem) -> Line:
    """From the first to the last of its points; or, where there is one, along its gradient."""
    names = problem.point_names()
    first, last = (flat(problem.at(name)) for name in (names[0], names[-1]))
    if len(names) > 1 and not torch.equal(first, last):
        return Line(first, last, (names[0], names[-1]))
    truth = true_gradient(problem.at(names[0]))
    norm = 0.0 if truth is None else float(truth.gradient.norm())
    along = torch.ones_like(first) if truth is None or not norm else truth.gradient / norm
    return Line(first, first + LONGEST * along / along.norm(), (names[0], "along the gradient"))


def flat(problem: Problem) -> Tensor:
    """theta and then the model: `[P]`."""
    return torch.cat([t.detach().double().reshape(-1) for t in (problem.theta, problem.model) if t is not None])


def moved(problem: Problem, place: Tensor) -> Problem:
    """The problem at a place `[P]`."""
    cut = problem.theta.numel()
    there = Point(place[:cut].reshape(problem.theta.shape), None if problem.model is None else place[cut:])
    return replace(problem, theta=there.theta, model=there.model)


def draw_objective(ax: Axes, problem: Problem) -> None:
    """L along the line, with the tangents of the true gradient at its ends."""
    line = line_of(problem)
    found = np.array([objective_at(moved(problem, line.at(t)), replicates=DRAWS) for t in ALONG])
    value, error = found[:, 0], LEVEL * found[:, 1]
    sns.lineplot(x=ALONG, y=value, ax=ax, color="#0173b2", linewidth=1)
    ax.fill_between(ALONG, value - error, value + error, color="#0173b2", alpha=0.2, linewidth=0)
    ends = [(0.0, line.start), (1.0, line.end)] if len(problem.points) > 1 else [(0.0, line.start)]
    for t, place in ends:
        truth = true_gradient(moved(problem, place))
        if truth is not None:
            slope = float(truth.gradient @ (line.end - line.start))
            level = float(np.interp(t, ALONG, value))
            reach = np.array([-TANGENT, TANGENT])
            ax.plot(t + reach, level + slope * reach, color="#d55e00", linewidth=2.5, solid_capstyle="round")
    room = 0.1 * (value.max() - value.min() or 1.0)
    ax.set_ylim(value.min() - room, value.max() + room)
    ax.set_xticks([0, 1], list(line.names))
    ax.set_ylabel(problem.objective.name)
    sns.despine(ax=ax)


def draw_integrand(ax: Axes, problem: Problem) -> None:
    """Distribution under q of f, or of f - log q, at each parameter point; a datum's where there are data."""
    found = pd.concat(
        [pd.DataFrame({"point": name, "fx": integrand(problem.at(name))}) for name in problem.point_names()],
        ignore_index=True,
    )
    middle = found["fx"].quantile([0.005, 0.995])
    shown = found[found["fx"].between(*middle)]
    sns.ecdfplot(shown, x="fx", hue="point", ax=ax, palette="colorblind", linewidth=1)
    ax.set_xlabel("f - log q" if problem.objective.ratio else "f")
    ax.set_ylabel("share of draws")
    legend = ax.get_legend()
    if legend is not None:
        legend.set_frame_on(False)
        legend.set_title("")
    sns.despine(ax=ax)


def integrand(problem: Problem) -> np.ndarray:
    """fx of DRAWS draws, of all data."""
    whole = replace(problem, batch=0)
    trial = prepare(plain_samples(whole, whole.objective.samples), whole, 0, "picture")
    chunk = min(chunk_of(trial), DRAWS)
    parts = [
        ask(trial, range(start, start + chunk), None, PILOT, Count()).known["fx"] for start in range(0, DRAWS, chunk)
    ]
    return torch.cat([part.reshape(-1) for part in parts]).numpy()


def images(problem: Problem) -> np.ndarray | None:
    """The first data as square images of bits, `[N, side, side]`; None where they are none."""
    if problem.data is None or problem.data.shape[1] < 16:
        return None
    pixels = problem.data[:SHOWN].numpy()
    side = math.isqrt(pixels.shape[1])
    if not np.isin(pixels, (0, 1)).all() or side * side not in (pixels.shape[1], pixels.shape[1] - 10):
        return None
    return pixels[:, : side * side].reshape(-1, side, side)


def draw_images(ax: Axes, bits: np.ndarray) -> None:
    """Images in two columns."""
    rows = -(-len(bits) // 2)
    side = bits.shape[1]
    wall = np.full((rows * (side + 1) + 1, 2 * (side + 1) + 1), 0.35)
    for k, image in enumerate(bits):
        top, left = 1 + k // 2 * (side + 1), 1 + k % 2 * (side + 1)
        wall[top : top + side, left : left + side] = image
    ax.imshow(wall, cmap="gray_r", vmin=0, vmax=1)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title("data", color=GREY)
    for spine in ax.spines.values():
        spine.set_color(PALE)
