"""Stored scores and expressions over them, read from embed artifacts and used in runs."""

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.parts.reader import Parts
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from d2prune.scores.column import read_score
from d2prune.store import artifacts


@pytest.fixture
def embedded(tmp_path):
    """(folder, receipts) of two parts, with column names that look like expressions."""
    import pyarrow as pa

    folder, receipts = str(tmp_path / "embed"), []
    for part, rows in enumerate((3, 2)):
        table = pa.table(
            {
                "clip_score": pa.array([0.1 * (part + row + 1) for row in range(rows)], pa.float32()),
                "aesthetic": pa.array([float(row) for row in range(rows)]),
                "sim-l14": pa.array(range(rows), pa.int32()),
                "sim": pa.array([1] * rows),
                "l14": pa.array([7] * rows),
                "lang": pa.array(["en"] * rows),
                "offset": pa.array(range(rows)),
            }
        )
        receipts.append(artifacts.commit_unit(folder, f"{part}", {"samples.parquet": table}))
    return Parts(str(tmp_path), {"embed": receipts})


def test_columns_and_expressions_are_read(embedded):
    clip = np.float64(np.array([0.1, 0.2, 0.3, 0.2, 0.3], np.float32))
    aesthetic = np.array([0, 1, 2, 0, 1.0])
    assert (read_score(embedded, [0, 1], "clip_score", "o") == clip.astype(np.float32)).all()
    got = read_score(embedded, [0, 1], "0.5*clip_score + 0.5*aesthetic", "o")
    assert got.dtype == np.float32 and (got == (0.5 * clip + 0.5 * aesthetic).astype(np.float32)).all()
    # An exact column name takes precedence over an expression.
    assert read_score(embedded, [0, 1], "sim-l14", "o").tolist() == [0, 1, 2, 0, 1]
    assert read_score(embedded, [0, 1], "`sim-l14` * 2", "o").tolist() == [0, 2, 4, 0, 2]
    assert read_score(embedded, [0, 1], "sim - l14", "o").tolist() == [-6] * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clip_scor",
            r"no score 'clip_scor'; did you mean clip_score\? expected one of clip_score, aesthetic,",
        ),
        (
            "clip_score + aestetic",
            r"no score 'aestetic' in 'clip_score \+ aestetic'; did you mean aesthetic\?",
        ),
        (
            "zzz",
            "no score 'zzz'; expected one of clip_score, aesthetic, sim-l14, sim, l14, or a number field of",
        ),
        ("lang", "'lang' is string, expected a number"),
        ("2 * lang", "'lang' is string, expected a number"),
        ("1 / aesthetic", "1 / aesthetic is inf in row 0 of 0, expected a finite number"),
        ("clip_score **", "is not a score"),
    ],
)
def test_invalid_score_is_a_one_line_error(embedded, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_score(embedded, [0, 1], text, "score.difficulty")
    assert "\n" not in str(error.value) and str(error.value).startswith("score.difficulty: ")


def test_run_ranks_and_cuts_off_by_expressions(configure):
    fields = {"embed__fields": {"beauty": "number"}}
    config = configure(
        **fields,
        score__difficulty="0.5*clip_score + 0.1*beauty",
        select__drop_score="-beauty",
        select__drop_fraction=0.2,
    )
    result = run(config, InProcess(), stop_after="rank")
    embed, rank = result.manifests["embed"], result.manifests["rank"]
    folder = f"{config.work_dir}/embed"
    samples = [artifacts.read_table(folder, receipt, "samples.parquet") for receipt in embed.units]
    clip, beauty = (
        np.concatenate([table[name].to_numpy() for table in samples]).astype(np.float64)
        for name in ("clip_score", "beauty")
    )
    ranks = [
        artifacts.read_table(f"{config.work_dir}/rank", receipt, "ranks.parquet") for receipt in rank.units
    ]
    difficulty = np.concatenate([table["difficulty"].to_numpy() for table in ranks])
    ranked = np.concatenate([table["ranked"].to_numpy() for table in ranks])
    score = (0.5 * clip + 0.1 * beauty).astype(np.float32)
    assert (
        difficulty == np.maximum(score.astype(np.float64) - float(score.min()), 0).astype(np.float32)
    ).all()
    assert ranked.sum() == 128 and beauty[~ranked].min() >= beauty[ranked].max()
    plain = configure(**fields, score__difficulty="beauty")
    assert plan_run(plain)["rank"].fingerprint != plan_run(config)["rank"].fingerprint


def test_mistyped_expression_is_a_configuration_error(configure):
    with pytest.raises(UserError, match=r"test: .*score\.difficulty: 'clip_score \+' is not a score"):
        configure(score__difficulty="clip_score +")
    with pytest.raises(UserError, match=r"select\.drop_score: 'eval\(beauty\)'"):
        configure(select__drop_score="eval(beauty)", select__drop_fraction=0.1)
    configure(embed__fields={"a b": "number"}, score__difficulty="a b")
