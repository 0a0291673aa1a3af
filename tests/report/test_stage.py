import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from d2prune.parts.map_file import MapLayout, write_layout
from d2prune.report.collect import collect
from d2prune.report.record import ReportParams
from d2prune.report.stage import write_report
from d2prune.report.summary import summary_rows
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


def read_decisions(run):
    return [
        row
        for unit in run.select.units
        for row in artifacts.read_table(f"{run.work_dir}/select", unit, "decisions.parquet").to_pylist()
    ]


def test_numbers_equal_naive_counts(run):
    data = collect(run, ReportParams())
    rows = read_decisions(run)
    kept = [row for row in rows if row["kept"]]
    assert data.embedded == data.sampled == 130
    assert [(step.label, step.count, step.lost) for step in data.flow] == [
        ("Read", 137, 0),
        ("Embedded", 130, 7),
        ("Kept", 39, 91),
        ("Written", 39, 0),
    ]
    reasons = {(row.stage, row.reason): row.count for row in data.reasons}
    assert reasons == {
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
    own = data.curves[0]
    assert own.fraction[5] == pytest.approx(0.3)
    assert own.mean_score[5] == pytest.approx(np.mean([row["difficulty"] for row in kept]), rel=1e-5)
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
    kept = np.array([row["kept"] for row in read_decisions(run)])
    gap = np.linalg.norm(points[:, None] - points[None, kept], axis=2).min(axis=1).mean()
    assert data.curves[0].coverage[5] == pytest.approx(gap, abs=1e-3)
    metric = next(metric for metric in data.metrics if metric.name == "Coverage gap")
    assert float(metric.kept) == pytest.approx(gap, abs=1e-3)


def test_galleries_show_the_samples_that_their_titles_promise(run):
    data = collect(run, ReportParams(gallery=10))
    lowest_scores, border, dense, sparse = data.galleries
    rows = {row["uid"]: row for row in read_decisions(run)}
    assert len(dense.cards) == len(sparse.cards) == 5
    assert all(card.kept for card in (*dense.cards, *sparse.cards))
    unlike = data.unlike.cards
    assert len(unlike) == 2 * min(5, data.suppressed.unlike) > 0
    for one, other in zip(unlike[::2], unlike[1::2], strict=True):
        assert rows[one.uid]["suppressed_by"] == other.uid
        assert rows[one.uid]["forward_score"] >= data.threshold
        assert float(dict(one.scores)["cosine"]) < 0.9
    lowest = sorted((row["difficulty"], uid) for uid, row in rows.items() if not row["kept"])[:5]
    assert [card.uid for card in lowest_scores.cards] == [uid for _, uid in lowest]
    assert [card.kept for card in border.cards] == [True] * 5 + [False] * 5
    scores = [rows[card.uid]["selection_score"] for card in border.cards]
    assert scores == sorted(scores, reverse=True)
    assert all(card.image for gallery in data.galleries for card in gallery.cards)


def test_notes_distinguish_low_scores_from_suppression(run):
    data = collect(run, ReportParams(gallery=60))
    rows = {row["uid"]: row for row in read_decisions(run)}
    notes = set()
    for card in data.galleries[0].cards:
        score = rows[card.uid]["forward_score"]
        low = f"dropped: forward score {score:.3f} below the threshold {data.threshold:.3f}"
        suppressed = "dropped: suppressed by neighbours picked earlier"
        assert card.note == (low.replace("-", "\u2212") if score < data.threshold else suppressed)
        notes.add(card.note)
    assert notes


def test_page_is_self_contained_and_small(run):
    page = read(write_report(run, ReportParams()))
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


def test_page_structure_is_accessible(run):
    parsed = Page(read(write_report(run, ReportParams())))
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
    evil = HOSTILE[0]
    fields = {
        "url": [f"https://me:secret@{evil}{index % 2}/x?token=secret" for index in range(60)],
        evil: [evil + str(index % 3) for index in range(60)],
    }
    run = build_run(tmp_path_factory.mktemp("hostile"), pool, fields=fields, detail=evil)
    return dataclasses.replace(
        run,
        input=[evil, "s3://key:secret@bucket/" + evil],
        date=evil,
        score_name=evil,
        written=dataclasses.replace(run.written, url="s3://key:secret@bucket/" + evil, train_command=evil),
        timings={evil: 1.0},
        parameters={
            evil: {evil: evil, "list": [evil] * 50, "endpoint": "https://me:secret@host/x?token=secret"}
        },
    )


def test_hostile_text_is_escaped(hostile):
    page = read(write_report(hostile, ReportParams(gallery=60)))
    parsed = Page(page)
    assert not any(tag == "script" for tag, _ in parsed.tags)
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert not any("javascript:" in value for _, name, value in parsed.attributes if name in ("href", "src"))
    assert sum(tag == "h1" for tag, _ in parsed.tags) == 1
    # Captions are shown as text, inside <bdi>.
    assert any(text.startswith("<script>alert(1)</script>") for text in parsed.bdi)
    assert any("{{ 7*7 }} {% raw %} ${x} &lt;b&gt;" in text for text in parsed.bdi)
    assert any("\u202eright to left" in text for text in parsed.bdi)
    assert "A" * 200 not in page
    assert "\x00" not in page
    assert "secret" not in page
    assert not any(text.count("\u202e") for text in parsed.texts if text not in parsed.bdi)


def test_same_run_gives_the_same_page_apart_from_timings(run):
    first = write_report(run, ReportParams())
    before = read(first)
    assert write_report(run, ReportParams()) == first
    assert read(first) == before
    slower = dataclasses.replace(run, timings={"embed": 99.0})
    assert write_report(slower, ReportParams()) == first
    assert "1 min 39 s" in read(first)
    assert write_report(run, ReportParams(gallery=2)) != first


def test_missing_pool_gives_a_report_without_images(run):
    gone = [url + ".gone" for url in run.shard_urls]
    data = collect(dataclasses.replace(run, shard_urls=gone), ReportParams())
    assert data.galleries
    assert not any(card.image for gallery in data.galleries for card in gallery.cards)


@pytest.mark.parametrize(
    ("count", "fraction"), [(1, 1.0), (2, 0.5), (3, 1.0), (30, 1.0), (30, 0.04), (30, 0.0)]
)
def test_small_pools_and_extreme_fractions(tmp_path, count, fraction):
    run = build_run(tmp_path, items(count), fraction=fraction)
    page = read(write_report(run, ReportParams()))
    assert f"kept {round(fraction * count)} of {count} samples" in page
    assert "nan" not in "".join(Page(page).texts).lower().split()


def test_samples_removed_by_the_cut_off_are_counted_but_not_ranked(tmp_path):
    run = build_run(tmp_path, items(100), cut_off=20)
    data = collect(run, ReportParams(gallery=20))
    assert [(step.label, step.count, step.lost) for step in data.flow[2:4]] == [
        ("Passed the cut-off", 80, 20),
        ("Kept", 30, 50),
    ]
    assert {(row.reason, row.count) for row in data.reasons if row.stage == "select"} == {
        ("below-budget", 50),
        ("cut-off", 20),
    }
    assert data.selection.edges[-1] < 99
    assert data.selection.dropped.sum() == 50
    removed = {f"{index:032x}" for index in range(20)}
    _, border, dense, sparse = data.galleries
    shown = {card.uid for gallery in (dense, sparse, border) for card in gallery.cards}
    assert not shown & removed
    assert not {card.uid for card in data.unlike.cards[::2]} & removed
    # The first curve at the run's own fraction is the kept set, so no sample that was cut off precedes it.
    kept = [row["difficulty"] for row in read_decisions(run) if row["kept"]]
    assert data.curves[0].mean_score[5] == pytest.approx(np.mean(kept), rel=1e-5)


def test_scores_are_shown_without_the_offset(run):
    shifted = collect(dataclasses.replace(run, score_offset=0.25), ReportParams())
    plain = collect(run, ReportParams())
    assert float(shifted.headline[2][1]) == pytest.approx(float(plain.headline[2][1]) - 0.25, abs=2e-3)
    np.testing.assert_allclose(shifted.difficulty.edges, plain.difficulty.edges - 0.25)
    assert np.array_equal(shifted.difficulty.kept, plain.difficulty.kept)
    np.testing.assert_allclose(shifted.curves[0].mean_score, plain.curves[0].mean_score - 0.25)
    uids = [[card.uid for card in gallery.cards] for gallery in plain.galleries]
    assert [[card.uid for card in gallery.cards] for gallery in shifted.galleries] == uids


def test_gallery_size_0_gives_no_galleries(run):
    page = read(write_report(run, ReportParams(gallery=0)))
    assert "<img" not in page


def test_large_pools_are_sampled(run):
    data = collect(run, ReportParams(sample_rows=50, queries=20))
    assert data.sampled == 50
    assert data.difficulty.kept.sum() == 39
    page = read(write_report(run, ReportParams(sample_rows=50)))
    assert "random sample of 50 of the 130" in page


def test_the_map_is_that_of_the_explorer_or_of_a_random_sample(tmp_path):
    run = build_run(tmp_path, items(60))
    own = collect(run, ReportParams(queries=50))
    assert own.map_points.shape == (50, 2) and 0 < own.map_kept.sum() < 50
    assert "50 samples, placed so that" in read(write_report(run, ReportParams(gallery=0, queries=50)))
    rows = np.arange(0, 60, 2)
    xy = np.random.default_rng(0).integers(0, 65_536, (30, 2)).astype(np.uint16)
    assert write_layout(run.work_dir, run.graph.fingerprint, MapLayout(rows, xy))
    data = collect(run, ReportParams(map_points=20))
    assert len(data.map_points) == 20
    kept = np.array([row["kept"] for row in read_decisions(run)])[rows]
    everything = collect(run, ReportParams())
    np.testing.assert_array_equal(everything.map_kept, kept)
    np.testing.assert_array_equal(everything.map_points, xy)
    page = read(write_report(run, ReportParams(gallery=0)))
    assert "Map of the pool" in page and "30 samples, placed so that" in page


def test_thumbnails_stay_within_their_budget(tmp_path, monkeypatch):
    from d2prune.report import cards

    monkeypatch.setattr(cards, "_THUMBNAIL_BUDGET", 20_000)
    run = build_run(tmp_path, items(100))
    page = read(write_report(run, ReportParams(gallery=100)))
    uris = re.findall(r"data:image/webp;base64,[^\"]+", page)
    assert sum(map(len, set(uris))) <= 20_000
    assert "no image" in page


def test_summary_lists_counts_recall_and_locations(run):
    rows = dict(summary_rows(run, "s3://me:secret@bucket/report.html"))
    assert rows["samples read"] == "137"
    assert rows["rejected"] == "7"
    assert [rows[f"  {reason}"] for reason in ("image-missing", "caption-empty", "image-truncated")] == [
        "4",
        "2",
        "1",
    ]
    assert rows["embedded"] == "130"
    assert rows["kept"] == "39 (30.0% of embedded)"
    assert rows["shards written"] == "2"
    assert rows["graph recall"] == "0.972 (95% interval 0.961 to 0.981)"
    assert "secret" not in rows["report"]
    assert rows["train with"].startswith("python -m open_clip_train.main")
    short = dict(summary_rows(dataclasses.replace(run, written=None), None))
    assert not {"report", "shards", "shards written", "train with"} & short.keys()


def test_another_method_than_d2_is_named(run):
    page = read(write_report(dataclasses.replace(run, method="random"), ReportParams(gallery=60)))
    assert "ranks samples with the method random instead of D2" in page
    assert "dropped: random ranked enough other samples higher" in page
