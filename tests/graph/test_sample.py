"""The sample that recall is measured on is drawn from the rows of lowest rank of all parts."""

from types import SimpleNamespace

import numpy as np

from d2prune.graph.steps import given
from d2prune.graph.steps.part_rows import RANKED_ROW
from d2prune.knn.stable_sample import lowest


def test_the_sample_is_drawn_a_few_parts_at_a_time(monkeypatch):
    monkeypatch.setattr(given, "RECALL_QUERIES", 30)
    rng = np.random.default_rng(0)
    # Ranks repeat in other parts, but not within one.
    ranks = [rng.choice(2_000, 60, replace=False).astype(np.uint64) for _ in range(50)]
    excluded = np.arange(0, 40, 2, dtype=np.uint64)
    sizes = []
    monkeypatch.setattr(
        given, "lowest", lambda rank_N, *rest: sizes.append(len(rank_N)) or lowest(rank_N, *rest)
    )

    def read_ranked(part):
        records = np.empty(60, RANKED_ROW)
        records["rank"], records["row"] = ranks[part], np.arange(60)
        return 2 * np.arange(60), records

    job = SimpleNamespace(parts=range(50), starts=200 * np.arange(51))
    found, positions = given.draw_sample(job, excluded, read_ranked)
    chosen = lowest(np.concatenate(ranks), 30, excluded)
    expected = np.sort(200 * (chosen // 60) + 2 * (chosen % 60))
    assert positions.tolist() == expected.tolist()
    assert sorted(found.tolist()) == sorted(np.concatenate(ranks)[chosen].tolist())
    assert max(sizes) <= 30 + 60 * 8
