"""Selectors: the grammar, the grids, and a sentence for everything else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import Refusal, nearest
from bench.selector import Choice, choose, parse, read


class Member:
    def __init__(self, lacks="", **settings):
        self.lacks = lacks
        self._settings = settings

    def settings(self):
        return self._settings


MEMBERS = {
    "rloo": Member(samples=2),
    "rebar": Member(eta=1.0, temperature=0.5, learned=False, form="plain", seed=None),
    "disarm": Member(),
    "reinforce": Member(samples=1, baseline=0.0),
    "pyro_elbo": Member(lacks="pyro"),
    "pyro_graph": Member(lacks="pyro"),
}


def chosen(text):
    return [(c.name, dict(c.settings)) for c in choose(text, MEMBERS, "estimator")]


def test_a_name_alone_has_its_defaults():
    assert chosen("rloo") == [("rloo", {"samples": 2})]
    assert chosen("disarm") == [("disarm", {})]


def test_a_list_is_a_grid():
    assert chosen("rloo[samples=2,4]") == [("rloo", {"samples": 2}), ("rloo", {"samples": 4})]
    grid = [(c[1]["samples"], c[1]["baseline"]) for c in chosen("reinforce[samples=1,2,baseline=0,.5]")]
    assert grid == [(1, 0.0), (1, 0.5), (2, 0.0), (2, 0.5)]


def test_a_token_without_equals_continues_the_setting_before_it():
    (one, two) = chosen("rebar[eta=1,temperature=.5,1]")
    assert (one[1]["eta"], one[1]["temperature"]) == (1.0, 0.5)
    assert (two[1]["eta"], two[1]["temperature"]) == (1.0, 1.0)


def test_commas_outside_brackets_separate_selectors():
    assert [c[0] for c in chosen("rloo[samples=2,4], disarm")] == ["rloo", "rloo", "disarm"]


def test_globs_take_what_matches_and_has_the_settings():
    assert [c[0] for c in chosen("re*")] == ["rebar", "reinforce"]
    assert [c[0] for c in chosen("*[samples=3]")] == ["rloo", "reinforce"]
    assert not any(c.exact for c in choose("r*", MEMBERS, "estimator"))
    assert all(c.exact for c in choose("rloo", MEMBERS, "estimator"))


def test_equal_values_are_one():
    assert chosen("rebar[eta=1,1.0,1e0]") == chosen("rebar[eta=1]")


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("4", 2, 4),
        ("1e3", 2, 1000),
        ("4", 2.0, 4.0),
        (".5", 1.0, 0.5),
        ("true", False, True),
        ("no", True, False),
        ("sum", "mean", "sum"),
        ("12", "mean", "12"),
        ("12", None, 12),
        ("1.5", None, 1.5),
        ("none", None, None),
        ("(4,2)", (8,), (4, 2)),
        ("word", None, "word"),
    ],
)
def test_values_follow_the_type_of_the_default(text, default, value):
    found = read(text, default, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rlo", "there is no estimator 'rlo'; did you mean 'rloo'?"),
        ("x*", "no estimator matches 'x*'"),
        ("rloo[sample=2]", "has no setting 'sample'; its settings are samples; did you mean 'samples'?"),
        ("disarm[samples=2]", "it has no settings"),
        ("rloo[samples=two]", "rloo[samples=two]: 'two' is not a whole number"),
        ("rloo[samples=2.5]", "'2.5' is not a whole number"),
        ("rebar[eta=nan]", "'nan' is not a finite number"),
        ("rebar[learned=maybe]", "neither true nor false"),
        ("rloo[2]", "belongs to no setting; write it as rloo[setting=2]"),
        ("rloo[samples=2", "a bracket is not closed"),
        ("rloo]", "closes that was never opened"),
        ("rloo[samples=2]x", "nothing may follow"),
        ("rloo[samples=2,samples=3]", "samples is given twice"),
        ("rloo[samples=]", "a value of samples is empty"),
        ("", "a name is missing"),
        ("*[depth=3]", "no estimator that matches '*' has depth"),
        ("pyro_elbo", "pyro_elbo needs pyro, which is not installed"),
        ("pyro_*", "what matches 'pyro_*' needs pyro, which is not installed"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(Refusal) as refusal:
        chosen(text)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_are_listed_where_they_are_few_enough_to_read():
    assert nearest("zzz", ["b", "a"]) == "; there are: a, b"
    assert nearest("zzz", map(str, range(100))) == "; `python -m bench list` names all 100"


def test_a_grid_that_is_too_large_is_refused_before_it_is_made():
    values = ",".join(map(str, range(200)))
    with pytest.raises(Refusal, match="40,000 members"):
        chosen(f"reinforce[samples={values},baseline={values}]")


fragments = st.sampled_from(
    [*MEMBERS, "[", "]", "(", ")", "=", ",", "*", "?", "samples", "eta", "2", ".5", " ", "-", "'"]
)


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=30), st.lists(fragments, max_size=12).map("".join)))
def test_any_text_gives_choices_or_a_sentence(text):
    said = ""
    try:
        found = choose(text, MEMBERS, "estimator")
    except Refusal as refusal:
        said = str(refusal)
    else:
        assert found
        assert all(isinstance(c, Choice) and set(c.settings) == set(MEMBERS[c.name].settings()) for c in found)
    assert "\n" not in said or "\n" in text


whole = st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=4, unique=True)
real = st.lists(st.floats(-1e6, 1e6).map(lambda v: v + 0.0), min_size=1, max_size=4, unique=True)


@settings(deadline=None, derandomize=True)
@given(whole, real)
def test_a_written_grid_is_read_back(samples, baselines):
    text = f"reinforce[samples={','.join(map(str, samples))},baseline={','.join(map(repr, baselines))}]"
    found = [(c.settings["samples"], c.settings["baseline"]) for c in choose(text, MEMBERS, "estimator")]
    assert found == list(itertools.product(samples, baselines))


def test_parse_keeps_what_was_typed():
    (selector,) = parse("rebar[eta=1,2,temperature=.5]")
    assert selector.pattern == "rebar"
    assert selector.grid == {"eta": ("1", "2"), "temperature": (".5",)}
