"""Gammas as numbers and as multiples of the graph's median squared distance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune import selection_scores
from d2prune.d2.api import select
from d2prune.d2.gamma import (
    check_gamma,
    describe_gamma,
    median_sq_distance,
    resolve_gamma,
    resolve_gammas,
)
from d2prune.errors import UserError
from tests.oracles import graph_from_edges


@pytest.mark.parametrize(
    ("given_gamma", "checked"),
    [
        ("auto", "3/median"),
        ("4/median", "4/median"),
        (" 2.50/median", "2.5/median"),
        ("0/median", "0/median"),
        (1, 1.0),
        (np.float32(0.5), 0.5),
        ("0.5", 0.5),
        (0, 0.0),
    ],
)
def test_a_gamma_is_a_number_or_a_multiple(given_gamma, checked):
    found = check_gamma("gamma_reverse", given_gamma, 3.0)
    assert found == checked and type(found) is type(checked)
    assert check_gamma("gamma_reverse", found, 3.0) == found


@pytest.mark.parametrize(
    "wrong",
    [-1, -0.1, math.nan, math.inf, "inf", "nan/median", "inf/median", "-1/median", "/median", "median", "",
     "Auto ", "4 / mean", None, True, [1], {}, b"1", "1e999", 1j],
)  # fmt: skip
def test_other_values_are_one_line(wrong):
    with pytest.raises(
        UserError, match=r"^gamma_reverse: found .*; expected a finite number >= 0, `auto`, or"
    ):
        check_gamma("gamma_reverse", wrong, 3.0)


@given(st.lists(st.floats(0, 4, width=32), max_size=30))
def test_median_is_that_of_a_sorted_list_counted_once_or_in_both_directions(distances):
    edges = sorted(distances)
    expected = edges[(len(edges) - 1) // 2] if edges else 0.0
    if expected == 0.0:
        longer = [edge for edge in edges if edge > 0]
        expected = longer[(len(longer) - 1) // 2] if longer else None
    array_E = np.array(distances, np.float32)
    assert median_sq_distance(array_E) == expected
    assert median_sq_distance(np.concatenate([array_E, array_E[::-1]])) == expected


def test_a_pool_without_lengths_has_gamma_zero():
    nothing, copies, one = np.zeros(0, np.float32), np.zeros(6, np.float32), np.array([0.25] * 2, np.float32)
    assert resolve_gammas("auto", "auto", nothing, "sample") == (0.0, 0.0)
    assert resolve_gammas("auto", 2, copies, "sample") == (0.0, 2.0)
    assert resolve_gammas("auto", "1/median", one, "sample") == (32.0, 4.0)
    assert resolve_gammas("auto", "auto", one, "sample") == (32.0, 40.0)
    assert resolve_gammas("auto", "auto", one, "training") == (1.2, 4.0)
    assert resolve_gammas("4/median", 2, one, "training") == (16.0, 2.0)
    with pytest.raises(UserError, match="difficulty_kind: found 'aum'; expected 'sample' or 'training'"):
        resolve_gammas("auto", "auto", one, "aum")


def test_a_multiple_gives_the_scores_of_its_number():
    graph = graph_from_edges(4, {(0, 1): 0.5, (1, 2): 0.25, (2, 3): 1.0})
    scores = [0.5, 1.0, 0.75, 0.25]
    assert median_sq_distance(graph.sq_distances) == 0.5
    auto = selection_scores(graph, scores, difficulty_kind="sample")
    assert auto.tolist() == selection_scores(graph, scores, 16.0, 20.0).tolist()
    assert selection_scores(graph, scores).tolist() == selection_scores(graph, scores, 0.6, 2.0).tolist()
    parts = select(graph, scores, "2/median", "auto", partitions=[0, 1, 0, 1])
    assert parts.selection_score.tolist() == selection_scores(graph, scores, 4.0, 2.0).tolist()


def test_descriptions_name_the_number_and_its_multiple():
    assert describe_gamma("4/median", resolve_gamma("4/median", 0.814)) == "4.914 (4/median)"
    assert describe_gamma(1.0, 1.0) == "1"
