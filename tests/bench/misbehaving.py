"""A plug-in of estimators that break the contract, each in one way, and of two that keep it."""

import ctypes
import inspect
import os
import signal
import sys
import time
from pathlib import Path

import torch

from estimators.base import Estimator, Noise


def draw(q, noise):
    return q.sample(noise)


def score(q, x, fx):
    return q.score(x, fx)


def made(name, combine, draw=draw, **more):
    return Estimator(name, 1, draw, combine, ["bernoulli"], **more)


def honest():
    """REINFORCE, as it should be."""
    return made("honest", score)


def slow(seconds=1.0):
    """REINFORCE that takes its time for every draw."""

    def drawn(q, noise):
        time.sleep(seconds)
        return q.sample(noise)

    return made("slow", score, drawn, settings={"seconds": seconds})


def tires():
    """REINFORCE that sleeps for ever where it is timed."""

    def combine(q, x, fx):
        if any(frame.function == "time_together" for frame in inspect.stack()):
            time.sleep(1e6)
        return q.score(x, fx)

    return made("tires", combine)


def raises():
    """Raises."""

    def combine(q, x, fx):
        raise RuntimeError("two lines\nof trouble")

    return made("raises", combine)


def leaves():
    """Calls sys.exit."""
    return made("leaves", lambda q, x, fx: sys.exit(3))


def sleeps(file=""):
    """Sleeps for ever, and makes a file as it begins."""

    def combine(q, x, fx):
        if file:
            Path(file).touch()
        time.sleep(1e6)

    return made("sleeps", combine)


def stubborn():
    """Sleeps for ever and will not be terminated."""

    def combine(q, x, fx):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)

    return made("stubborn", combine)


def exits():
    """Ends its process."""
    return made("exits", lambda q, x, fx: os._exit(3))


def crashes():
    """Reads where nothing is."""
    return made("crashes", lambda q, x, fx: ctypes.string_at(0))


def not_a_number():
    """NaN in one replicate of each block."""

    def combine(q, x, fx):
        g = q.score(x, fx)
        g[0] = torch.nan
        return g

    return made("not_a_number", combine)


def misshapen():
    """The wrong shape."""
    return made("misshapen", lambda q, x, fx: q.score(x, fx)[..., :-1])


def asks_too_much():
    """Names what nobody offers."""
    return made("asks_too_much", lambda q, x, fx, wishes: q.score(x, fx))


def prints():
    """Writes to the standard output, which belongs to the results."""

    def combine(q, x, fx):
        print("hello from an estimator")
        return q.score(x, fx)

    return made("prints", combine)


def disarm(factor=0.5):
    """DisARM with a factor that ought to be one half."""

    def drawn(theta, noise):
        p = theta.sigmoid()
        return torch.stack([1 - noise < p, noise < p]).to(theta)

    def combine(theta, x, fx):
        return factor * (fx[0] - fx[1])[..., None] * (x[0] - x[1]) * theta.abs().sigmoid()

    return Estimator("disarm", 2, drawn, combine, ["bernoulli"], noise=[Noise("uniform")])


ESTIMATORS = {
    **{f.__name__: f for f in (honest, slow, tires, raises, leaves, sleeps, stubborn, exits, crashes)},
    **{f.__name__: f for f in (not_a_number, misshapen, asks_too_much, prints)},
    "disarm_of": disarm,
}
