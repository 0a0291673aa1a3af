"""Library arguments: whatever holds numbers or labels gives one result; anything else one clear line."""

import decimal
import fractions

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from d2prune import d2_prune, deduplicate, knn_graph, scores, selection_scores
from d2prune.arguments import as_labels, as_number, as_rows, as_scores, as_whole
from d2prune.errors import ArgumentError, UserError

ROWS = np.random.default_rng(0).integers(-8, 8, (12, 4)).astype(np.float32) / 8 + np.float32(0.0625)
SCORE = np.arange(12, dtype=np.float32) / 4


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


SAME_ROWS = {
    "float64": ROWS.astype(np.float64),
    "float16": ROWS.astype(np.float16),
    "long double": ROWS.astype(np.longdouble),
    "other byte order": ROWS.astype(">f4"),
    "Fortran order": np.asfortranarray(ROWS),
    "not contiguous": np.repeat(ROWS, 2, axis=1)[:, ::2],
    "negative strides": ROWS[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only(ROWS),
    "list": ROWS.tolist(),
    "tuple of arrays": tuple(ROWS),
    "masked array without masked values": np.ma.masked_array(ROWS),
    "object array": ROWS.astype(object),
    "torch": torch.tensor(ROWS),
    "torch bfloat16": torch.tensor(ROWS).bfloat16(),
    "torch half": torch.tensor(ROWS).half(),
    "torch requires_grad": torch.tensor(ROWS, requires_grad=True),
    "torch bfloat16 requires_grad": torch.tensor(ROWS).bfloat16().requires_grad_(),
    "torch transposed": torch.tensor(np.ascontiguousarray(ROWS.T)).T,
    "torch sparse": torch.tensor(ROWS).to_sparse(),
    "list of torch rows": list(torch.tensor(ROWS, requires_grad=True)),
    "pandas frame": pd.DataFrame(ROWS),
    "pandas nullable frame": pd.DataFrame(ROWS).astype("Float32"),
    "pandas series of arrays": pd.Series(list(ROWS)),
    "pandas series of lists": pd.Series(ROWS.tolist()),
    "pyarrow table": pa.table({str(i): ROWS[:, i] for i in range(4)}),
    "pyarrow lists": pa.array(ROWS.tolist()),
    "pyarrow fixed-size lists": pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 4),
    "pyarrow chunks": pa.chunked_array([ROWS[:5].tolist(), ROWS[5:].tolist()]),
}
SAME_SCORE = {
    "float64": SCORE.astype(np.float64),
    "other byte order": SCORE.astype(">f4"),
    "strided": np.repeat(SCORE, 2)[::2],
    "read-only": read_only(SCORE),
    "list": SCORE.tolist(),
    "fractions": [fractions.Fraction(i, 4) for i in range(12)],
    "decimals": [decimal.Decimal(i) / 4 for i in range(12)],
    "object array": SCORE.astype(object),
    "torch": torch.tensor(SCORE),
    "torch bfloat16": torch.tensor(SCORE).bfloat16().requires_grad_(),
    "list of torch numbers": list(torch.tensor(SCORE)),
    "pandas": pd.Series(SCORE, index=range(100, 112)),
    "pandas nullable": pd.Series(SCORE, dtype="Float64"),
    "pyarrow": pa.array(SCORE),
    "pyarrow chunks": pa.chunked_array([SCORE[:3], SCORE[3:]]),
}


@pytest.fixture(scope="module")
def wanted():
    return d2_prune(ROWS, SCORE, 0.5, 2)


@pytest.mark.parametrize("kind", SAME_ROWS)
def test_embeddings_of_any_kind_give_one_result(wanted, kind):
    assert as_rows(SAME_ROWS[kind]).tolist() == ROWS.tolist()
    found = d2_prune(SAME_ROWS[kind], SCORE, 0.5, 2)
    assert found.indices.tolist() == wanted.indices.tolist()
    assert found.selection_score.tolist() == wanted.selection_score.tolist()


@pytest.mark.parametrize("kind", SAME_SCORE)
def test_difficulty_of_any_kind_gives_one_result(wanted, kind):
    found = d2_prune(ROWS, SAME_SCORE[kind], 0.5, 2)
    assert found.selection_score.tolist() == wanted.selection_score.tolist()
    graph = knn_graph(ROWS, 2)
    assert (selection_scores(graph, SAME_SCORE[kind]) == selection_scores(graph, SCORE)).all()


def test_arrays_are_not_copied():
    assert as_rows(ROWS) is ROWS or np.shares_memory(as_rows(ROWS), ROWS)
    assert np.shares_memory(as_rows(tensor := torch.tensor(ROWS)), tensor.numpy())


def test_whole_numbers_are_embeddings():
    codes = np.arange(1, 25).reshape(12, 2) % 7
    assert as_rows(codes.astype(np.uint8)).dtype == np.float32
    assert as_rows(codes).dtype == np.float64
    assert d2_prune(codes.tolist(), SCORE, 0.5, 2).indices.shape == (6,)


WRONG_ROWS = {
    "None": None,
    "number": 3.0,
    "text": "abc",
    "generator": (row for row in ROWS),
    "mapping": {"a": ROWS},
    "set": {1, 2},
    "1-d": ROWS[0],
    "3-d": ROWS[None],
    "no columns": ROWS[:, :0],
    "no rows": ROWS[:0],
    "booleans": ROWS > 0,
    "complex": ROWS.astype(complex),
    "strings": ROWS.astype(str),
    "dates": ROWS.astype("M8[s]"),
    "records": np.zeros(12, [("a", "f4")]),
    "ragged": [[1.0, 2.0], [3.0]],
    "ragged arrays": pd.Series([ROWS[0], ROWS[0, :2]] * 6),
    "text in a frame": pd.DataFrame({"a": ["x"] * 12, "b": 1.0}),
    "masked": np.ma.masked_less(ROWS, 0),
    "missing": pd.DataFrame({"a": [1.0, None] * 6}),
    "NaN": np.where(ROWS > 0.5, np.nan, ROWS),
    "meta tensor": torch.empty(12, 4, device="meta"),
    # Made by the test, since the first one takes a second.
    "nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
}


@pytest.mark.parametrize("kind", WRONG_ROWS)
def test_other_embeddings_are_refused(kind):
    rows = WRONG_ROWS[kind]
    rows = rows() if callable(rows) else rows
    check_refusal(lambda: d2_prune(rows, SCORE), "embedding")
    check_refusal(lambda: knn_graph(rows), "embedding")
    check_refusal(lambda: scores.prototypes(rows, 1), "embedding")


def check_refusal(call, name):
    with pytest.raises(ValueError) as caught:
        call()
    text = str(caught.value)
    assert isinstance(caught.value, ArgumentError) and text.startswith(name)
    assert "found" in text and "expected" in text and text.isprintable() and len(text) < 400


WRONG_SCORES = {
    "None": None,
    "number": 1.0,
    "short": SCORE[:5],
    "2-d": SCORE[:, None],
    "frame": pd.DataFrame({"a": SCORE}),
    "text": ["a"] * 12,
    "text among numbers": [1.0, "a"] * 6,
    "complex": SCORE * 1j,
    "dates": np.zeros(12, "M8[s]"),
    "NaN": np.where(SCORE > 1, np.nan, SCORE),
    "infinite": np.where(SCORE > 1, np.inf, SCORE),
    "None among numbers": [1.0, None] * 6,
    "pandas.NA": pd.Series([1, None] * 6, dtype="Int64"),
    "pyarrow null": pa.array([1.0, None] * 6),
    "masked": np.ma.masked_greater(SCORE, 1),
    "10**400": [10**400] * 12,
    "generator": (value for value in SCORE),
}


@pytest.mark.parametrize("kind", WRONG_SCORES)
def test_other_scores_are_refused(kind):
    check_refusal(lambda: d2_prune(ROWS, WRONG_SCORES[kind]), "difficulty")
    if kind != "None":
        check_refusal(
            lambda: d2_prune(ROWS, SCORE, drop_score=WRONG_SCORES[kind], drop_fraction=0.1), "drop_score"
        )


LABELS = {
    "numbers": ([3, 1, 3, 1], [1, 0, 1, 0]),
    "text": (["b", "a", "b", "a"], [1, 0, 1, 0]),
    "None": ([None, "a", None, "a"], [1, 0, 1, 0]),
    "NaN": ([float("nan"), 1.0, np.nan, 1.0], [1, 0, 1, 0]),
    "NaN array": (np.array([np.nan, 1.0, np.nan, 1.0]), [1, 0, 1, 0]),
    "pandas.NA": ([pd.NA, 1, None, 1], [1, 0, 1, 0]),
    "NaT": ([pd.NaT, 1, np.datetime64("NaT"), 1], [1, 0, 1, 0]),
    "only missing": ([None, pd.NA, float("nan"), None], [0, 0, 0, 0]),
    "mixed": ([1, "1", 1.0, b"1"], [0, 1, 0, 2]),
    "mixed and missing": (["x", 1, None, "x"], [0, 1, 2, 0]),
    "numbers of several types": ([2, 1.0, np.int8(2), True], [1, 0, 1, 0]),
    "tuples": ([(1, 2), (1, 1), (1, 2), (1, 1)], [1, 0, 1, 0]),
    "booleans": (np.array([True, False, True, False]), [1, 0, 1, 0]),
    "categories": (pd.Series(["b", "a", None, "a"], dtype="category"), [1, 0, 2, 0]),
    "nullable": (pd.Series([2, 1, None, 1], dtype="Int64"), [1, 0, 2, 0]),
    "strings of pandas": (pd.Series(["b", "a", None, "a"], dtype="string"), [1, 0, 2, 0]),
    "dates": (pd.Series(pd.to_datetime(["2021", "2020", None, "2020"])), [1, 0, 2, 0]),
    "pyarrow": (pa.array(["b", "a", None, "a"]), [1, 0, 2, 0]),
    "pyarrow dictionary": (pa.array(["b", "a", None, "a"]).dictionary_encode(), [1, 0, 2, 0]),
    "torch": (torch.tensor([3, 1, 3, 1]), [1, 0, 1, 0]),
    "list of torch numbers": (list(torch.tensor([3, 1, 3, 1])), [1, 0, 1, 0]),
    "byte strings": (np.array([b"b", b"a", b"b", b"a"]), [1, 0, 1, 0]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_numbered(kind):
    labels, numbers = LABELS[kind]
    assert as_labels(labels, "groups").tolist() == numbers
    rows, score = ROWS[:8], SCORE[:8]
    twice = pd.concat([labels, labels]) if isinstance(labels, pd.Series) else None
    if isinstance(labels, list):
        twice = labels + labels
    if twice is not None:
        found = d2_prune(rows, score, 0.5, 2, groups=twice)
        assert found.indices.tolist() == d2_prune(rows, score, 0.5, 2, groups=numbers * 2).indices.tolist()


@pytest.mark.parametrize(
    "labels",
    ["a" * 12, 5, [1, 2], np.zeros((12, 2)), [[1]] * 12, [{}] * 12, {1: 2}, set(range(12)),
     (i for i in range(12)), np.ma.masked_equal(np.arange(12), 3)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_labels_are_refused(labels):
    check_refusal(lambda: d2_prune(ROWS, SCORE, groups=labels), "groups")


NUMBERS = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "10**400": 10**400,
    "-1": -1,
    "True": True,
    "text": "0.3",
    "None": None,
    "list": [1],
    "mapping": {},
    "long text": "x" * 10_000,
    "complex": 1j,
    "array": np.array([1.0, 2.0]),
    "tensor": torch.ones(2),
}
ACCEPTED = {
    ("fraction", "None"),
    ("target_recall", "None"),
    ("offset", "-1"),
    ("n_neighbors", "10**400"),
    ("gamma_forward", "text"),
    ("gamma_reverse", "text"),
}


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    "name",
    ["fraction", "n_neighbors", "gamma_forward", "gamma_reverse", "drop_fraction", "target_recall", "offset"],
)
def test_other_numbers_are_refused(name, value):
    if (name, value) not in ACCEPTED:
        check_refusal(lambda: d2_prune(ROWS, SCORE, drop_score=SCORE, **{name: NUMBERS[value]}), name)


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), fractions.Fraction(1, 2)]
)
def test_numbers_of_other_libraries(wanted, value):
    assert d2_prune(ROWS, SCORE, value, np.int64(2)).indices.tolist() == wanted.indices.tolist()


def test_sizes_at_the_edges():
    assert d2_prune(ROWS[:1], SCORE[:1]).indices.tolist() == [0]
    all_others = d2_prune(ROWS, SCORE, 0.5, 11)
    for k in (12, 1000, 2**62):
        assert (d2_prune(ROWS, SCORE, 0.5, k).selection_score == all_others.selection_score).all()


def test_graphs_are_refused():
    for graph in (None, ROWS, "abc"):
        check_refusal(lambda graph=graph: selection_scores(graph, SCORE), "graph")
        check_refusal(lambda graph=graph: deduplicate(graph, SCORE, 0.9), "graph")


def test_arguments_of_deduplicate():
    graph = knn_graph(ROWS, 2)
    wanted = deduplicate(graph, SCORE, 0.5).tolist()
    assert max(wanted) >= 0 and all(
        deduplicate(graph, difficulty, 0.5).tolist() == wanted for difficulty in SAME_SCORE.values()
    )
    for kind in WRONG_SCORES:
        check_refusal(lambda kind=kind: deduplicate(graph, WRONG_SCORES[kind], 0.5), "difficulty")
    for cosine in (*NUMBERS.values(), 0, 1.0001):
        check_refusal(lambda cosine=cosine: deduplicate(graph, SCORE, cosine), "min_cosine")


def test_arguments_are_usage_errors_and_value_errors():
    assert issubclass(ArgumentError, UserError) and issubclass(ArgumentError, ValueError)
    with pytest.raises(ArgumentError, match=r"k: found 2.5; expected a whole number, 1 to 5"):
        as_whole(2.5, "k", 1, 5)
    with pytest.raises(ArgumentError, match="x: found nan; expected more"):
        as_number(float("nan"), "x", "more", lambda value: value > 0)
    assert np.isnan(as_scores([1.0, None], "s")).tolist() == [False, True]
