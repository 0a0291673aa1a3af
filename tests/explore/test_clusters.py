"""The explorer's clusters are the report's, extended to every sample."""

import dataclasses

import numpy as np
import pytest

from d2prune.explore import clusters
from d2prune.explore.clusters import NOT_LABELLED, read_clusters
from d2prune.explore.sample_index import SampleIndex
from d2prune.knn.features import features
from d2prune.report import metrics
from d2prune.report.collect import collect
from d2prune.report.random_sample import draw_positions
from d2prune.report.record import ReportParams
from d2prune.report.stage import run_record


def test_clusters_equal_those_of_the_report(finished, finished_config, finished_result):
    shown = collect(
        run_record(finished_config, finished_result.pool, finished_result.manifests, finished_result.seconds),
        ReportParams(gallery=0),
    ).clusters
    explored = SampleIndex(finished).cluster_counts()
    assert [(name, samples / 127, kept / samples) for _, name, samples, kept in explored] == [
        (cluster.words, cluster.share, pytest.approx(cluster.kept_share)) for cluster in shown
    ]


def test_samples_outside_the_reports_sample_join_the_nearest_cluster(finished, monkeypatch):
    few = ReportParams(sample_rows=60, clusters=4)
    monkeypatch.setattr(clusters, "ReportParams", lambda: few)
    found = read_clusters(finished)
    sampled = draw_positions(finished.parts.spans, 60, 256, 0)
    points_ND = features("image+text", *finished.parts.take_vectors(np.arange(127)))
    _, centroids = metrics.cluster(points_ND[sampled], metrics.cluster_count(60, 4), 0)
    assert found.complete and len(found.names) == len(centroids) == 2
    for label, point in zip(found.label_N.tolist(), points_ND, strict=True):
        distances = [float(np.square(point - centroid).sum()) for centroid in centroids]
        assert distances[label] == pytest.approx(min(distances), abs=1e-6)
    sample_only = read_clusters(finished, limit=0)
    assert not sample_only.complete
    assert np.flatnonzero(sample_only.label_N != NOT_LABELLED).tolist() == sampled.tolist()
    assert sample_only.label_N[sampled].tolist() == found.label_N[sampled].tolist()


def test_run_without_embeddings_has_no_clusters(finished):
    units = [
        dataclasses.replace(
            unit, files=tuple(file for file in unit.files if file.name != finished.embeddings_file)
        )
        for unit in finished.embed.units
    ]
    bare = dataclasses.replace(finished, embed=dataclasses.replace(finished.embed, units=tuple(units)))
    found = read_clusters(bare)
    assert found.names == () and set(found.label_N.tolist()) == {NOT_LABELLED}
    assert SampleIndex(bare).cluster_counts() == []
