"""`select.method`: ranks equal the baseline's own order, on any number of workers."""

import dataclasses

import numpy as np
import pytest

from d2prune.baselines import by_diversity, by_score
from d2prune.config.sections import Method
from d2prune.d2 import budget
from d2prune.d2.fixed_point import to_fixed
from d2prune.errors import UserError
from d2prune.execution import InProcess, Resources
from d2prune.knn.features import features
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.rank.methods import METHODS, PoolMethod, divide_to_fixed, find_method, random_scores
from d2prune.rank.params import RankParams, Resolved
from d2prune.rank.ranking import rank
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from d2prune.store import artifacts, columns
from tests.pools import tree

CUT = {"embed__fields": {"beauty": "number", "colour": "text"}, "select__drop_score": "beauty",
       "select__drop_fraction": 0.1}  # fmt: skip


@pytest.fixture(scope="module")
def ranked(tmp_path_factory, pool, tiny_model):
    """ranked(method) returns (config, manifests, ranks in one table); all methods share one graph."""
    import pyarrow as pa

    from d2prune.config.model import RunConfig

    folder = tmp_path_factory.mktemp("methods")

    def _ranked(method, **select):
        values = {
            "input": str(pool),
            "work_dir": str(folder / "work"),
            "output": str(folder / method),
            "embed": {"model": str(tiny_model), "batch_size": 16, "fields": CUT["embed__fields"]},
            "graph": {"n_neighbors": 4},
            "select": {
                "fraction": 0.3,
                "drop_score": "beauty",
                "drop_fraction": 0.1,
                "method": method,
                **select,
            },
        }
        config = RunConfig.parse(values, "test")
        result = run(config, InProcess(), stop_after="rank")
        rows = [
            artifacts.read_table(f"{config.work_dir}/rank", receipt, "ranks.parquet")
            for receipt in result.manifests["rank"].units
        ]
        return config, result.manifests, pa.concat_tables(rows)

    return _ranked


def expected_order(method, config, manifests, table):
    """The baseline applied to the data in the artifacts: positions in pick order."""
    graph, cut_off = read_graph(f"{config.work_dir}/graph", manifests["graph"].units)
    left = np.flatnonzero(~cut_off)
    difficulty = table["difficulty"].to_numpy()
    tables = [
        artifacts.read_table(f"{config.work_dir}/embed", receipt, "embeddings.parquet")
        for receipt in manifests["embed"].units
    ]
    image, text = (
        np.concatenate([columns.vectors(t[name]) for t in tables]) for name in ("image_emb", "text_emb")
    )
    rows = features("image+text", image, text)[left]
    if method == "facility_location":
        return [i for i in by_diversity.facility_location(graph).tolist() if not cut_off[i]]
    if method == "forward":
        return [i for i in by_score.forward(graph, difficulty, "auto").tolist() if not cut_off[i]]
    order = {
        "score": lambda: by_score.top_score(difficulty[left]),
        "moderate": lambda: by_score.moderate(rows),
        "ccs": lambda: by_score.ccs(difficulty[left], seed=3),
        "k_center": lambda: by_diversity.k_center(rows, seed=3),
        "herding": lambda: by_diversity.herding(rows),
        "semdedup": lambda: by_diversity.semdedup(rows, 12, difficulty[left], 3)[0],
    }[method]()
    return left[order].tolist()


@pytest.mark.parametrize("method", [method.name for method in METHODS if method.name != "random"])
def test_ranks_equal_the_baselines_order(ranked, method):
    config, manifests, table = ranked(method, seed=3)
    members = np.flatnonzero(table["ranked"].to_numpy())
    assert len(members) == 144
    t = table["selection_score"].to_numpy()[members]
    order = members[budget.ranking(t)].tolist()
    assert order == expected_order(method, config, manifests, table)
    assert (table["suppressor"].to_numpy() == -1).all() and not table["suppression"].to_numpy().any()
    if isinstance(find_method(method), PoolMethod):
        assert len(set(t.tolist())) == 144 and t.max() == 2**40 and 0 < t.min() == 2**40 // 144
    d2 = ranked("d2")[2]
    assert (table["forward_score"].to_numpy() == d2["forward_score"].to_numpy()).all()
    assert (table["ranked"].to_numpy() == d2["ranked"].to_numpy()).all()


def test_random_scores_depend_on_position_and_seed_alone(ranked):
    config, manifests, table = ranked("random", seed=5)
    t = table["selection_score"].to_numpy()
    assert (t == random_scores(5, np.arange(160))).all() and (t != random_scores(4, np.arange(160))).any()
    many = random_scores(0, np.arange(100_000))
    assert 0 <= many.min() and many.max() < 2**40
    counts = np.bincount(many >> 36, minlength=16)
    assert abs(counts - 6250).max() < 500 and abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 0.02
    parts = Parts(config.work_dir, {stage: manifests[stage].units for stage in ("embed", "graph")})
    folder = f"{config.work_dir}/rank-again"
    params = plan_run(config)["rank"].params
    resolved = Resolved(**manifests["rank"].facts)
    for workers in (1, 4):
        receipts = rank(parts, folder, params, resolved, InProcess(), Resources(workers=workers))
        assert receipts == list(manifests["rank"].units)


def test_other_methods_do_not_change_the_fingerprint_of_d2(configure):
    plain, named = plan_run(configure()), plan_run(configure(select__method="d2", select__seed=7))
    assert type(plain["rank"].params) is RankParams
    assert set(dataclasses.asdict(plain["rank"].params)) == {
        "difficulty",
        "offset",
        "gamma_forward",
        "gamma_reverse",
    }
    assert plain["rank"].fingerprint == named["rank"].fingerprint
    others = {plan_run(configure(select__method=method))["rank"].fingerprint for method in Method.__args__}
    assert len(others) == len(Method.__args__)
    assert set(Method.__args__) == {"d2", *(method.name for method in METHODS)}


def test_run_with_groups_is_the_same_on_any_number_of_workers(configure, tmp_path):
    outputs = []
    for workers in (1, 3):
        places = {"work_dir": str(tmp_path / f"work{workers}"), "output": str(tmp_path / f"out{workers}")}
        chosen = {"select__method": "semdedup", "select__groups": "colour", "ray__workers": workers}
        config = configure(**CUT, **places, **chosen)
        result = run(config, InProcess())
        assert result.report is not None and result.manifests["select"].counters["kept"] == 48
        outputs.append(
            {name: data for name, data in tree(config.output).items() if name.endswith((".tar", ".npy"))}
        )
    assert outputs[0] == outputs[1] and len(outputs[0]) > 1


def test_invalid_methods_and_pools_are_rejected(configure):
    for method, most in (("k_center", "100,000"), ("semdedup", "2,000,000")):
        with pytest.raises(UserError, match=f"has 3,000,000 samples, expected at most {most}"):
            find_method(method).check_size(3_000_000)
    with pytest.raises(UserError, match="method ccs computes no score"):
        configure(select__method="ccs", select__min_score=0.5, select__fraction=None)
    with pytest.raises(UserError, match=r"select\.method = 'd3'"):
        configure(select__method="d3")


def test_scores_of_pool_methods_fall_strictly_and_never_overflow():
    n = 10**12
    got = divide_to_fixed(np.array([n, n - 1, n // 2, 1]), n).tolist()
    assert got == [k * 2**40 // n for k in (n, n - 1, n // 2, 1)]
    assert (np.diff(divide_to_fixed(1000 - np.arange(1000), 1000)) < 0).all()
    assert to_fixed([1.0])[0] == divide_to_fixed(np.array([7]), 7)[0]
