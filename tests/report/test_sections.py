"""What was lost, groups of duplicates, trade-offs and the head of the page, against naive counts."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from d2prune.parts.spans import Spans
from d2prune.report import describe, formatting
from d2prune.report.collect import collect
from d2prune.report.outcome import describe_outcome
from d2prune.report.record import ReportParams
from d2prune.report.stage import write_report
from d2prune.report.suppression import summarise
from d2prune.report.survey import choose_parts
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest
from tests.report.synthetic import build_run, items
from tests.report.test_stage import read, read_decisions


def edges(run):
    """(from, to) -> squared distance, of the whole graph."""
    found, start = {}, 0
    for unit in run.graph.units:
        rows = artifacts.read_table(f"{run.work_dir}/graph", unit, "neighbors.parquet").to_pylist()
        for index, row in enumerate(rows, start):
            found.update(
                {(index, to): sq for to, sq in zip(row["indices"], row["sq_distances"], strict=True)}
            )
        start += len(rows)
    return found


def test_suppressed_samples_equal_a_naive_count(run):
    data, rows, sq = collect(run, ReportParams()), read_decisions(run), edges(run)
    dropped = [i for i, row in enumerate(rows) if not row["kept"] and row["forward_score"] >= data.threshold]
    cosine = [1 - sq[i, rows[i]["suppressor"]] / 2 for i in dropped]
    assert data.suppressed.samples == len(dropped) > 20
    assert data.suppressed.unlike == sum(value < 0.9 for value in cosine)
    shown = [card.uid for card in data.unlike.cards[::2]]
    by_score = sorted((-rows[i]["difficulty"], i) for i, c in zip(dropped, cosine, strict=True) if c < 0.9)
    firsts = {}
    for _, i in by_score:
        firsts.setdefault(rows[i]["suppressor"], rows[i]["uid"])
    assert shown[: len(firsts)] == list(firsts.values())[: len(shown)]


@pytest.mark.parametrize(("cosines", "warns"), [([0.95] * 9, False), ([0.95] * 3 + [0.5], True), ([], False)])
def test_warning_is_given_from_a_quarter_upwards(run, cosines, warns):
    found = summarise(np.array(cosines))
    survey = type("S", (), {"parts": (1, 1)})
    text = describe.warning(found if cosines else None, survey)
    assert bool(text) == warns
    if warns:
        assert text.startswith(
            "1 of the 4 samples that only suppression dropped (25%) have no near-duplicate"
        )
        page = read(write_report(run, ReportParams()))
        assert ('class="warning"' in page) == collect(run, ReportParams()).suppressed.is_large


def test_trade_off_starts_where_the_run_is(run):
    data, sq = collect(run, ReportParams()), edges(run)
    kept = {i for i, row in enumerate(read_decisions(run)) if row["kept"]}
    near = {(a, b) for (a, b), distance in sq.items() if distance <= 0.1}
    share = sum(any((a, b) in near for b in kept) for a in kept) / len(kept)
    assert data.here.copies == pytest.approx(share)
    own = data.curves[0]
    assert (data.here.mean_score, data.here.coverage, data.here.copies) == pytest.approx(
        (own.mean_score[5], own.coverage[5], own.copies[5])
    )
    assert read(write_report(run, ReportParams())).count(">you are here") == 2


def test_groups_without_dedup_are_the_near_copies_of_the_graph(run):
    data, sq = collect(run, ReportParams()), edges(run)
    near = {a for (a, _), distance in sq.items() if distance <= 0.1}
    assert not data.duplicates.by_dedup
    assert 0 < data.duplicates.samples <= len(near)
    sizes = [group.size for group in data.duplicates.largest]
    assert sizes == sorted(sizes, reverse=True)
    by_uid = {row["uid"]: row["selection_score"] for row in read_decisions(run)}
    for group in data.duplicates.largest:
        keeper, *others = (by_uid[card.uid] for card in group.cards)
        assert keeper >= max(others)


def test_groups_of_the_dedup_stage_have_their_keeper_first(tmp_path):
    run = build_run(tmp_path, items(60), empty_shard=False)
    keeper = {5: 2, 50: 2, 7: 40}
    units = []
    for number, (start, end) in enumerate([(0, 40), (40, 60)]):
        dropped = [i in keeper for i in range(start, end)]
        table = pa.table(
            {
                "dropped": dropped,
                "reason": ["duplicate" if drop else None for drop in dropped],
                "keeper": [keeper.get(i, -1) for i in range(start, end)],
                "keeper_uid": [None] * (end - start),
                "group": [keeper.get(i, i) for i in range(start, end)],
                "sq_distance": [None] * (end - start),
            },
            schema=schemas.DUPLICATES,
        )
        neighbors = artifacts.read_table(
            f"{run.work_dir}/graph", run.graph.units[number], "neighbors.parquet"
        )
        tables = {"duplicates.parquet": table, "neighbors.parquet": neighbors}
        units.append(artifacts.commit_unit(f"{run.work_dir}/dedup", f"u{number}", tables, {}))
    dedup = Manifest("dedup", "f", {}, {}, tuple(units), {}, {})
    found = collect(dataclasses.replace(run, dedup=dedup), ReportParams()).duplicates
    assert (found.groups, found.samples, found.by_dedup) == (2, 5, True)
    groups = [(group.size, [int(card.uid, 16) for card in group.cards]) for group in found.largest]
    assert groups == [(3, [2, 5, 50]), (2, [40, 7])]


def test_fields_and_rejects_are_listed_with_counts(run, tmp_path):
    kept = [row["kept"] for row in read_decisions(run)]
    # Of 91 dropped samples, 9 are in English; of 39 kept ones, all but 3.
    dropped = np.cumsum(~np.array(kept))
    lang = ["en" if (k and i % 13) or (not k and dropped[i] % 10 == 0) else "de" for i, k in enumerate(kept)]
    url = [f"https://h{name}.x/" for name in lang]
    leak = [f"s3://me:secret@{name}/x" for name in lang]
    fields = {"lang": lang, "url": url, "origin": leak}
    other = build_run(tmp_path, items(130), fields=fields, detail="12 of 99 bytes")
    assert "secret" not in read(write_report(other, ReportParams()))
    data = collect(other, ReportParams(examples=2))
    for name, value in (("lang", "de"), ("Host of url", "hde.x")):
        table = next(table for table in data.shifted.tables if table.name == name)
        german = next(found for found in table.values if found.value == value)
        assert german.samples == lang.count("de")
        assert german.kept == sum(k for k, found in zip(kept, lang, strict=True) if found == "de")
        assert (name, german) in data.shifted.lost
    missing = next(row for row in data.reasons if row.reason == "image-missing")
    assert missing.examples == ("00000000.tar/bad0: 12 of 99 bytes", "00000002.tar/bad0: 12 of 99 bytes")


def test_input_and_date_are_shown_without_credentials(run):
    page = read(write_report(dataclasses.replace(run, date="1 May 2030, 12:00 UTC"), ReportParams()))
    assert "s3://pool/{00000000..00000004}.tar (5 tars)" in page
    assert "Report made on 1 May 2030, 12:00 UTC" in page
    assert "secret" not in page


def test_clamped_scores_are_counted_beside_the_histogram(run):
    rows = read_decisions(run)
    lowest = [row for row in rows if row["difficulty"] == 0]
    data = collect(dataclasses.replace(run, is_clamped=True), ReportParams())
    assert data.clamped == (len(lowest), sum(row["kept"] for row in lowest))
    assert data.difficulty.kept.sum() + data.difficulty.dropped.sum() == len(rows) - len(lowest)


@pytest.mark.parametrize(
    ("difficulty", "is_clamped", "expected"),
    [
        (0.0, True, "\u2264 \u22120.498"),
        (0.0, False, "\u22120.498"),
        (0.5, True, "0.002"),
        (None, True, "\u2013"),
    ],
)
def test_only_a_clamped_score_is_an_upper_bound(difficulty, is_clamped, expected):
    assert formatting.score(difficulty, 0.498, is_clamped) == expected


@pytest.mark.parametrize(
    ("score", "threshold", "note"),
    [
        (0.479, 0.48, "0.479 below the threshold 0.480"),
        (0.47996, 0.48, "0.47996 below the threshold 0.48000"),
    ],
)
def test_a_score_just_below_the_threshold_is_shown_with_the_threshold(score, threshold, note):
    assert describe_outcome("below-budget", score, threshold, "d2") == f"dropped: forward score {note}"


@pytest.mark.parametrize(("limit", "count"), [(10**6, 3), (40, 2), (39, 1), (1, 1)])
def test_survey_reads_whole_parts_up_to_its_limit(limit, count):
    spans = Spans.of_rows([20, 0, 20, 20])
    parts = choose_parts(spans, limit, seed=0)
    assert len(parts) == count
    assert parts == sorted(set(parts) & {0, 2, 3}) == choose_parts(spans, limit, seed=0)


def test_a_larger_pool_is_surveyed_in_part_and_the_page_says_so(run):
    page = read(write_report(run, ReportParams(survey_rows=50)))
    data = collect(run, ReportParams(survey_rows=50))
    assert data.suppressed.samples < collect(run, ReportParams()).suppressed.samples
    assert "of the 4 shards, drawn at random" in page or not data.shifted


def test_close_to_the_threshold_is_close_to_that_of_the_own_group(tmp_path):
    """Each shard has its own budget; a sample between two thresholds may be close to neither."""
    run = build_run(tmp_path, items(120))
    rows = read_decisions(run)
    select = dataclasses.replace(run.select, params={**run.select.params, "groups": "shard"})
    data = collect(dataclasses.replace(run, select=select), ReportParams(gallery=12))
    (border,) = (gallery for gallery in data.galleries if gallery.title == "Close to the threshold")
    lowest = {}
    for row in rows:
        if row["kept"]:
            lowest[row["shard"]] = min(row["selection_score"], lowest.get(row["shard"], np.inf))
    margin = {row["uid"]: row["selection_score"] - lowest[row["shard"]] for row in rows}
    for kept, ascending in ((True, 1), (False, -1)):
        uids = [row["uid"] for row in rows if row["kept"] == kept]
        expected = sorted(uids, key=lambda uid: (ascending * margin[uid], uid))[:6]
        assert {card.uid for card in border.cards if card.kept == kept} == set(expected)
    assert data.threshold is None


def test_a_cluster_shows_no_image_twice(tmp_path):
    pool = items(100, groups=3)
    # Half of the pool are copies of three images, with captions of their own.
    copies = [
        dataclasses.replace(item, image=pool[at % 3].image) if at % 2 else item
        for at, item in enumerate(pool)
    ]
    copies = [
        dataclasses.replace(item, image_emb=pool[at % 3].image_emb) if at % 2 else item
        for at, item in enumerate(copies)
    ]
    data = collect(build_run(tmp_path, copies), ReportParams(gallery=4))
    assert data.clusters
    for cluster in data.clusters:
        images = [card.image for card in cluster.cards]
        assert len(set(images)) == len(images) > 1
