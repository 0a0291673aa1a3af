"""The rescore stage: its columns equal the library's scores, for any number of parts and workers."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.parts.files import EMBEDDINGS, PAIR_SCORES, RANKS
from d2prune.parts.reader import Parts
from d2prune.rescore.target import CENTROIDS, TARGET, hash_matrix, read_centroids, read_target
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from d2prune.scores import norm_sim, s_clip_loss
from d2prune.store.columns import vectors

ALL = "s_clip_loss + 0.1*norm_sim_2 - norm_sim_inf"


def read_pool(config, manifests):
    parts = Parts(config.work_dir, {name: manifests[name].units for name in ("embed", "rescore")})
    tables = [table for _, table in parts.read_all(EMBEDDINGS, ["image_emb", "text_emb"])]
    sides = [
        np.concatenate([vectors(table[f"{side}_emb"]) for table in tables]) for side in ("image", "text")
    ]
    scores = pa.concat_tables(table for _, table in parts.read_all(PAIR_SCORES, parts.names(PAIR_SCORES)))
    return *sides, scores


def target_file(tmp_path, kind, width=8):
    rows = np.random.default_rng(1).normal(size=(30, width)).astype(np.float32)
    path = tmp_path / f"target.{kind}"
    if kind == "npy":
        np.save(path, rows)
    else:
        pq.write_table(pa.table({"image_emb": pa.array(rows.tolist(), pa.list_(pa.float32()))}), path)
    return str(path), rows


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_columns_equal_the_library(configure, tmp_path, kind):
    plain = run(configure(), InProcess(), stop_after="embed")
    raw = Parts(configure().work_dir, {"embed": plain.manifests["embed"].units})
    d = vectors(raw.read(0, EMBEDDINGS, ["image_emb"])["image_emb"]).shape[1]
    target, rows = target_file(tmp_path, kind, d)
    config = configure(score={"difficulty": ALL, "target": target, "reference_size": 40, "seed": 3})
    result = run(config, InProcess(), stop_after="rescore")
    image, text, scores = read_pool(config, result.manifests)
    assert scores.column_names == ["s_clip_loss", "norm_sim_2", "norm_sim_inf"]
    assert result.manifests["rescore"].counters == {"scored": len(image)}
    expected = s_clip_loss(image, text, reference_size=40, seed=3)
    assert np.allclose(scores["s_clip_loss"].to_numpy(), expected, atol=1e-6)
    assert np.allclose(scores["norm_sim_2"].to_numpy(), norm_sim(image, rows), atol=1e-5)
    assert np.allclose(scores["norm_sim_inf"].to_numpy(), norm_sim(image, rows, np.inf), atol=1e-5)
    # Only the scores are left: the references' rows are intermediate.
    units = {receipt.key for receipt in result.manifests["rescore"].units}
    found = {path.parent.name for path in (tmp_path / "work" / "rescore").glob("units/*/*")}
    assert not found or found == units


def test_difficulty_and_cut_off_use_the_scores(configure):
    config = configure(
        score={"difficulty": "s_clip_loss"},
        select={"fraction": 0.3, "drop_score": "norm_sim_2", "drop_fraction": 0.2},
    )
    result = run(config, InProcess(), stop_after="rank")
    _, _, scores = read_pool(config, result.manifests)
    ranks = Parts(config.work_dir, {name: found.units for name, found in result.manifests.items()})
    table = pa.concat_tables(table for _, table in ranks.read_all(RANKS, ["difficulty", "ranked"]))
    score = scores["s_clip_loss"].to_numpy().astype(np.float64)
    offset = result.manifests["rank"].facts["offset"]
    assert offset == -score.min()
    assert (table["difficulty"].to_numpy() == np.maximum(score + offset, 0).astype(np.float32)).all()
    likeness, ranked = scores["norm_sim_2"].to_numpy(), table["ranked"].to_numpy()
    assert likeness[ranked].min() >= likeness[~ranked].max() and (~ranked).sum() == int(0.2 * len(score))


def test_stage_is_planned_only_if_used_and_graph_depends_on_it_only_through_the_cut_off(configure):
    plain = plan_run(configure())
    assert "rescore" not in plan_run(configure()).artifacts
    scored = plan_run(configure(score={"difficulty": "s_clip_loss"}))
    assert list(scored.artifacts)[:3] == ["embed", "rescore", "graph"]
    assert scored["graph"].fingerprint == plain["graph"].fingerprint
    assert scored["rank"].fingerprint != plain["rank"].fingerprint
    colder = plan_run(configure(score={"difficulty": "s_clip_loss", "temperature": 0.05}))
    assert colder["rank"].fingerprint != scored["rank"].fingerprint
    cut = {"fraction": 0.3, "drop_score": "s_clip_loss", "drop_fraction": 0.1}
    assert plan_run(configure(select=cut))["graph"].inputs.keys() == {"embed", "rescore"}
    own = configure(embed__fields={"s_clip_loss": "number"}, score={"difficulty": "s_clip_loss"})
    assert own.pair_scores == ()


@pytest.mark.parametrize(
    ("score", "line"),
    [
        (
            {"difficulty": "norm_sim_inf"},
            "score.target: found null; expected a file, which norm_sim_inf needs",
        ),
        (
            {"difficulty": "clip_score*near_target", "centroids": "c.npy"},
            "score.target: found null; expected a file, which near_target needs",
        ),
        (
            {"difficulty": "near_target", "target": "t.npy"},
            "score.centroids: found null; expected a file, which near_target needs",
        ),
        ({"difficulty": "s_clip_loss", "temperature": 0}, "score.temperature"),
        ({"difficulty": "s_clip_los"}, "did you mean s_clip_loss"),
    ],
)
def test_wrong_options_are_one_line(configure, score, line):
    with pytest.raises(UserError, match=line):
        configure(score=score)


def npy(rows):
    sink = io.BytesIO()
    np.save(sink, rows)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (None, r"target\.npy: not found; expected floats \[M, D\]"),
        (b"", "target.npy: cannot be read"),
        (b"no numpy file", "target.npy: cannot be read"),
        (npy(np.array([{}], dtype=object)), "target.npy: cannot be read"),
        (npy(np.ones((3, 4), int)), r"found int64 \(3, 4\); expected floats"),
        (npy(np.ones(4)), r"found float64 \(4,\); expected floats"),
        (npy(np.ones((0, 4))), r"found float64 \(0, 4\); expected floats"),
        (npy(np.zeros((3, 4))), "score.target: embedding of row 0"),
    ],
)
def test_wrong_targets_are_one_line(tmp_path, data, line):
    path = tmp_path / "target.npy"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=line) as error:
        read_target(str(path), hash_matrix(str(path), TARGET))
    assert "\n" not in str(error.value)


def test_wrong_centroids_are_one_line(configure, tmp_path):
    target, path = target_file(tmp_path, "npy", 24)[0], tmp_path / "centroids.npy"
    score = {"difficulty": "near_target", "target": target, "centroids": str(path)}
    for rows, line in (
        (np.ones((3, 1)), r"score.centroids: found shape \(3, 1\); expected rows of 24"),
        (np.full((3, 24), np.nan), r"centroids.npy: found NaN or infinite; expected finite floats"),
        (np.ones((3, 24), int), r"score.centroids: .*centroids.npy: found int64 \(3, 24\); expected floats"),
    ):
        np.save(path, rows)
        with pytest.raises(UserError, match=line) as error:
            run(configure(score=score), InProcess(), stop_after="rescore")
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=r"score.centroids: .*centroids.npy: not found; expected floats"):
        plan_run(configure(score=score))
    with pytest.raises(UserError, match=r"centroids.npy: not found"):
        read_centroids(str(path), "0" * 64)
    np.save(path, np.ones((3, 24)))
    with pytest.raises(UserError, match=r"centroids.npy changed during the run; run again"):
        read_centroids(str(path), hash_matrix(target, CENTROIDS))


def test_target_of_another_width_or_changed_is_one_line(configure, tmp_path):
    np.save(tmp_path / "target.npy", np.ones((3, 1)))
    config = configure(score={"difficulty": "norm_sim_2", "target": str(tmp_path / "target.npy")})
    with pytest.raises(UserError, match=r"score.target: found shape \(3, 1\); expected rows of"):
        run(config, InProcess(), stop_after="rescore")
    with pytest.raises(UserError, match=r"target\.npy changed during the run; run again"):
        read_target(str(tmp_path / "target.npy"), "0" * 64)


def test_rankings_by_different_scores_share_no_unit(configure):
    """A fixed offset is no part of what tells them apart."""
    keys = []
    for temperature in (0.01, 0.05):
        score = {"difficulty": "s_clip_loss", "offset": 1.0, "temperature": temperature, "reference_size": 40}
        manifests = run(configure(score=score), InProcess(), stop_after="rank").manifests
        keys.append({receipt.key for receipt in manifests["rank"].units})
    assert not keys[0] & keys[1]


def test_scores_on_ray_equal_those_in_process(configure, ray_executor, tmp_path):
    config = configure(score={"difficulty": "s_clip_loss", "reference_size": 50})
    alone = run(config, InProcess(), stop_after="rescore").manifests["rescore"]
    shutil.rmtree(tmp_path / "work" / "rescore")
    assert run(config, ray_executor, stop_after="rescore").manifests["rescore"].units == alone.units
