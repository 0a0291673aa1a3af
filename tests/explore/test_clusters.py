"""The explorer's clusters are the report's, for every sample."""

import dataclasses

import numpy as np
import pytest

from d2prune.explore import clusters
from d2prune.explore.clusters import NONE, read_clusters
from d2prune.explore.index import Index
from d2prune.report import metrics
from d2prune.report.collect import collect
from d2prune.report.data import ReportParams
from d2prune.report.pool_sample import choose_positions
from d2prune.report.stage import run_record


def test_they_are_those_that_the_report_shows(finished, finished_config, finished_result):
    shown = collect(
        run_record(finished_config, finished_result.pool, finished_result.manifests, finished_result.seconds),
        ReportParams(gallery=0),
    ).clusters
    ours = Index(finished).cluster_counts()
    assert [(name, samples / 127, kept / samples) for _, name, samples, kept in ours] == [
        (cluster.words, cluster.share, pytest.approx(cluster.kept_share)) for cluster in shown
    ]


def test_samples_that_the_report_did_not_look_at_go_to_the_nearest(finished, monkeypatch):
    few = ReportParams(sample_rows=60, clusters=4)
    monkeypatch.setattr(clusters, "ReportParams", lambda: few)
    found = read_clusters(finished)
    sampled = choose_positions(finished.parts.spans, 60, 256, 0)
    image_ND, text_ND = finished.parts.take_vectors(np.arange(127))
    points_ND = metrics.join_features(image_ND, text_ND, "image+text")
    _, centres = metrics.k_means(points_ND[sampled], metrics.cluster_count(60, 4), 0)
    assert found.whole and len(found.names) == len(centres) == 2
    for label, point in zip(found.label_N.tolist(), points_ND, strict=True):
        distances = [float(np.square(point - centre).sum()) for centre in centres]
        assert distances[label] == pytest.approx(min(distances), abs=1e-6)
    sample_only = read_clusters(finished, limit=0)
    assert not sample_only.whole
    assert np.flatnonzero(sample_only.label_N != NONE).tolist() == sampled.tolist()
    assert sample_only.label_N[sampled].tolist() == found.label_N[sampled].tolist()


def test_a_run_without_embeddings_has_none(finished):
    units = [
        dataclasses.replace(
            unit, files=tuple(file for file in unit.files if file.name != finished.embeddings)
        )
        for unit in finished.embed.units
    ]
    bare = dataclasses.replace(finished, embed=dataclasses.replace(finished.embed, units=tuple(units)))
    found = read_clusters(bare)
    assert found.names == () and set(found.label_N.tolist()) == {NONE}
    assert Index(bare).cluster_counts() == []
