import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from d2prune.report import ReportParams, flagged_dropped, summary_rows, write_report
from d2prune.report.collect import collect
from d2prune.store import artifacts
from d2prune.store.columns import vectors
from tests.report.synthetic import build_run, items

HOSTILE = [
    '<script>alert(1)</script><img src=x onerror=alert(2)>"\'><a href="javascript:alert(3)">x</a>',
    "</bdi></figcaption></style></title><h1>out</h1><!-- ",
    "{{ 7*7 }} {% raw %} ${x} &lt;b&gt;",
    "\u202eright to left override \u0635\u0648\u0631\u0629 \u0628\u064a\u062a",
    "long " + "A" * 10_000,
    "\x00\x1f\u2028control",
    "",
]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.bdi = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open.append(tag)
        if tag == "bdi":
            self.bdi.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append(data)
        if "bdi" in self.open:
            self.bdi[-1] += data


def read(url):
    return Path(url).read_text(encoding="utf-8")


def decided(run):
    return [
        row
        for unit in run.select.units
        for row in artifacts.read_table(f"{run.work_dir}/select", unit, "decisions.parquet").to_pylist()
    ]


def test_numbers_equal_naive_counts(run):
    data = collect(run, ReportParams())
    rows = decided(run)
    kept = [row for row in rows if row["kept"]]
    assert data.embedded == data.sampled == 130
    assert [(step.label, step.count, step.lost) for step in data.flow] == [
        ("Read", 137, 0),
        ("Embedded", 130, 7),
        ("Kept", 39, 91),
        ("Written", 39, 0),
    ]
    losses = {(loss.stage, loss.reason): loss.count for loss in data.losses}
    assert losses == {
        ("embed", "image-missing"): 4,
        ("embed", "caption-empty"): 2,
        ("embed", "image-truncated"): 1,
        ("select", "below-budget"): 91,
    }
    assert data.threshold == pytest.approx(min(row["selection_score"] for row in kept))
    assert data.difficulty.kept.sum() == data.selection.kept.sum() == len(kept)
    assert data.difficulty.dropped.sum() == 91
    assert sum(cluster.count for cluster in data.clusters) == 130
    assert sum(round(c.count * c.kept_share) for c in data.clusters) == 39
    d2 = data.curves[0]
    assert d2.fraction[5] == pytest.approx(0.3)
    assert d2.mean_score[5] == pytest.approx(np.mean([row["difficulty"] for row in kept]), rel=1e-5)
    assert data.headline[2][1] == f"{np.mean([row['difficulty'] for row in kept]):.3f}"


def test_coverage_curve_equals_brute_force(run):
    data = collect(run, ReportParams())
    points = []
    for unit in run.embed.units:
        table = artifacts.read_table(f"{run.work_dir}/embed", unit, "embeddings.parquet")
        joined = np.concatenate([vectors(table["image_emb"]), vectors(table["text_emb"])], axis=1).astype(
            np.float64
        )
        points.append(joined / np.linalg.norm(joined, axis=1, keepdims=True))
    points = np.concatenate(points)
    kept = np.array([row["kept"] for row in decided(run)])
    gap = np.linalg.norm(points[:, None] - points[None, kept], axis=2).min(axis=1).mean()
    assert data.curves[0].coverage[5] == pytest.approx(gap, abs=1e-3)
    metric = next(metric for metric in data.metrics if metric.name == "Coverage gap")
    assert float(metric.kept) == pytest.approx(gap, abs=1e-3)


def test_galleries_show_what_they_say(run):
    data = collect(run, ReportParams(gallery=10))
    dense, sparse, duplicates, mismatched, border = data.galleries
    rows = {row["uid"]: row for row in decided(run)}
    assert len(dense.pictures) == len(sparse.pictures) == 5
    assert all(picture.kept for picture in (*dense.pictures, *sparse.pictures))
    assert len(duplicates.pictures) == 10
    for one, other in zip(duplicates.pictures[::2], duplicates.pictures[1::2], strict=True):
        assert not one.kept
        assert rows[one.uid]["suppressed_by"] == other.uid
    lowest = sorted((row["difficulty"], uid) for uid, row in rows.items() if not row["kept"])[:5]
    assert [picture.uid for picture in mismatched.pictures] == [uid for _, uid in lowest]
    assert [picture.kept for picture in border.pictures] == [True] * 5 + [False] * 5
    scores = [rows[picture.uid]["selection_score"] for picture in border.pictures]
    assert scores == sorted(scores, reverse=True)
    assert all(picture.image for gallery in data.galleries for picture in gallery.pictures)


def test_notes_tell_low_scores_from_suppressed_ones(run):
    data = collect(run, ReportParams(gallery=60))
    rows = {row["uid"]: row for row in decided(run)}
    notes = set()
    for picture in data.galleries[3].pictures:
        low = rows[picture.uid]["forward_score"] < data.threshold
        assert picture.note == ("dropped: low from the start" if low else "dropped: neighbours stand for it")
        notes.add(picture.note)
    assert notes


def test_page_needs_nothing_from_outside_and_is_small(run):
    page = read(write_report(run))
    assert len(page.encode()) < 5_000_000
    parsed = Page(page)
    for _, name, value in parsed.attributes:
        if name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster"):
            assert value.startswith(("#", "data:image/webp;base64,")), (name, value[:80])
        assert not name.startswith("on")
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in parsed.tags
    }
    assert "url(" not in page.replace("url(#hatch)", "")
    assert "@import" not in page


def test_page_is_accessible_in_its_structure(run):
    parsed = Page(read(write_report(run)))
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("header") == tags.count("title") == 1
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for tag, a in parsed.tags if tag == "a"]
    labels = [name for _, a in parsed.tags for name in a.get("aria-labelledby", "").split()]
    assert set(targets) | set(labels) <= set(ids)
    assert all(a.get("alt") for tag, a in parsed.tags if tag == "img")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in parsed.tags if tag == "svg")
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    pool = items(60)
    for index, caption in enumerate(HOSTILE * 7):
        pool[index] = dataclasses.replace(pool[index], caption=caption)
    run = build_run(tmp_path_factory.mktemp("hostile"), pool)
    evil = HOSTILE[0]
    return dataclasses.replace(
        run,
        score_name=evil,
        written=dataclasses.replace(run.written, url="s3://key:secret@bucket/" + evil, train_command=evil),
        timings={evil: 1.0},
        parameters={
            evil: {evil: evil, "list": [evil] * 50, "endpoint": "https://me:secret@host/x?token=secret"}
        },
    )


def test_hostile_text_stays_text(hostile):
    page = read(write_report(hostile, ReportParams(gallery=60)))
    parsed = Page(page)
    assert not any(tag == "script" for tag, _ in parsed.tags)
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert not any("javascript:" in value for _, name, value in parsed.attributes if name in ("href", "src"))
    assert sum(tag == "h1" for tag, _ in parsed.tags) == 1
    # All of it is there, as text, inside <bdi>.
    assert any(text.startswith("<script>alert(1)</script>") for text in parsed.bdi)
    assert any("{{ 7*7 }} {% raw %} ${x} &lt;b&gt;" in text for text in parsed.bdi)
    assert any("\u202eright to left" in text for text in parsed.bdi)
    assert "A" * 200 not in page
    assert "\x00" not in page
    assert "secret" not in page
    assert not any(text.count("\u202e") for text in parsed.texts if text not in parsed.bdi)


def test_same_run_same_page_apart_from_times(run):
    first = write_report(run)
    before = read(first)
    assert write_report(run) == first
    assert read(first) == before
    slower = dataclasses.replace(run, timings={"embed": 99.0})
    assert write_report(slower) == first
    assert "1 min 39 s" in read(first)
    assert write_report(run, ReportParams(gallery=2)) != first


def test_a_pool_that_is_gone_leaves_a_report_without_pictures(run):
    gone = [dataclasses.replace(shard, url=shard.url + ".gone") for shard in run.shards]
    data = collect(dataclasses.replace(run, shards=gone), ReportParams())
    assert data.galleries
    assert not any(picture.image for gallery in data.galleries for picture in gallery.pictures)


@pytest.mark.parametrize(
    ("count", "fraction"), [(1, 1.0), (2, 0.5), (3, 1.0), (30, 1.0), (30, 0.04), (30, 0.0)]
)
def test_small_pools_and_extreme_fractions(tmp_path, count, fraction):
    run = build_run(tmp_path, items(count), fraction=fraction)
    page = read(write_report(run))
    assert f"kept {round(fraction * count)} of {count} samples" in page
    assert "nan" not in "".join(Page(page).texts).lower().split()


def test_what_a_cut_off_removed_is_counted_but_never_ranked(tmp_path):
    run = build_run(tmp_path, items(100), cut_off=20)
    data = collect(run, ReportParams(gallery=20))
    assert [(step.label, step.count, step.lost) for step in data.flow[2:4]] == [
        ("Past the cut-off", 80, 20),
        ("Kept", 30, 50),
    ]
    assert {(loss.reason, loss.count) for loss in data.losses if loss.stage == "select"} == {
        ("below-budget", 50),
        ("cut-off", 20),
    }
    assert data.selection.edges[-1] < 99
    assert data.selection.dropped.sum() == 50
    removed = {f"{index:032x}" for index in range(20)}
    dense, sparse, duplicates, _, border = data.galleries
    shown = {picture.uid for gallery in (dense, sparse, border) for picture in gallery.pictures}
    assert not shown & removed
    assert not {picture.uid for picture in duplicates.pictures[::2]} & removed
    # The D2 curve at the run's own fraction is the kept set, so nothing that was cut off comes before it.
    kept = [row["difficulty"] for row in decided(run) if row["kept"]]
    assert data.curves[0].mean_score[5] == pytest.approx(np.mean(kept), rel=1e-5)


def test_scores_are_shown_without_their_offset(run):
    shifted = collect(dataclasses.replace(run, score_offset=0.25), ReportParams())
    plain = collect(run, ReportParams())
    assert float(shifted.headline[2][1]) == pytest.approx(float(plain.headline[2][1]) - 0.25, abs=2e-3)
    np.testing.assert_allclose(shifted.difficulty.edges, plain.difficulty.edges - 0.25)
    assert np.array_equal(shifted.difficulty.kept, plain.difficulty.kept)
    np.testing.assert_allclose(shifted.curves[0].mean_score, plain.curves[0].mean_score - 0.25)
    uids = [[picture.uid for picture in gallery.pictures] for gallery in plain.galleries]
    assert [[picture.uid for picture in gallery.pictures] for gallery in shifted.galleries] == uids


def test_no_galleries_when_none_are_wanted(run):
    page = read(write_report(run, ReportParams(gallery=0)))
    assert "<img" not in page


def test_a_sample_of_a_larger_pool(run):
    data = collect(run, ReportParams(sample_rows=50, queries=20, map_points=30))
    assert (data.sampled, len(data.map_points)) == (50, 30)
    assert data.difficulty.kept.sum() == 39
    page = read(write_report(run, ReportParams(sample_rows=50)))
    assert "random sample of 50 of the 130" in page


def test_page_stays_under_its_limit_with_many_large_pictures(tmp_path, monkeypatch):
    from d2prune.report import galleries

    monkeypatch.setattr(galleries, "_THUMBNAIL_BUDGET", 20_000)
    run = build_run(tmp_path, items(100))
    page = read(write_report(run, ReportParams(gallery=100)))
    uris = re.findall(r"data:image/webp;base64,[^\"]+", page)
    assert sum(map(len, set(uris))) <= 20_000
    assert "no picture" in page


def test_summary_rows(run):
    rows = dict(summary_rows(run, "s3://me:secret@bucket/report.html"))
    assert rows["samples read"] == "137"
    assert rows["rejected"] == "7"
    assert [rows[f"  {reason}"] for reason in ("image-missing", "caption-empty", "image-truncated")] == [
        "4",
        "2",
        "1",
    ]
    assert rows["embedded"] == "130"
    assert rows["kept"] == "39 (30.0 % of embedded)"
    assert rows["shards written"] == "2"
    assert rows["graph recall"] == "0.972 (95 % interval 0.961 to 0.981)"
    assert "secret" not in rows["report"]
    assert rows["train with"].startswith("python -m open_clip_train.main")
    short = dict(summary_rows(dataclasses.replace(run, written=None), None))
    assert not {"report", "shards", "shards written", "train with"} & short.keys()


def test_flagged_dropped(run):
    rows = decided(run)
    flagged = {row["uid"] for row in rows[::7]}
    share = flagged_dropped(run.work_dir, run.select, flagged)
    assert (share.flagged, share.samples, share.dropped) == (19, 130, 91)
    assert share.flagged_dropped == sum(not row["kept"] for row in rows[::7])
