"""Comparisons of selections, lists of their sets, exports, rejected samples and names of runs."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.explore.api import Explorer
from d2prune.explore.workspace import Workspace
from d2prune.output import subset
from d2prune.reshard.reshard import reshard
from d2prune.runs.finished import open_run
from tests.explore.conftest import SAME
from tests.explore.requests import ask, get


def kept_uids(work, fingerprint, fraction=None):
    """The uids that a selection keeps, or would keep at a fraction, by position."""
    run = open_run(work, fingerprint)
    table = run.parts.take_merged(np.arange(len(run)), ["uid", "kept", "selection_fixed"])
    kept = np.array(table["kept"].to_pylist())
    if fraction is not None:
        fixed = np.array(table["selection_fixed"].to_pylist())
        order = np.lexsort((np.arange(len(run)), -fixed))
        kept = np.zeros(len(run), bool)
        kept[order[: int(len(run) * fraction)]] = True
    return [uid for uid, is_kept in zip(table["uid"].to_pylist(), kept, strict=True) if is_kept]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("first", "gamma"),
        ("gamma", "first"),
        ("first", "first@0.5"),
        ("first@0.2", "gamma@0.2"),
        ("first", "part"),
        ("part", "gamma@0.9"),
    ],
)
def test_comparison_equals_that_of_the_uids(several, several_server, a, b):
    work, found = several
    specs, uids = {}, {}
    for side, text in (("a", a), ("b", b)):
        name, _, fraction = text.partition("@")
        specs[side] = text.replace(name, found[name])
        uids[side] = kept_uids(work, found[name], float(fraction) if fraction else None)
    both, only_a, only_b = (
        [uid for uid in uids["a"] if uid in uids["b"]],
        [uid for uid in uids["a"] if uid not in uids["b"]],
        [uid for uid in uids["b"] if uid not in uids["a"]],
    )
    answer = ask(several_server, "/api/compare", **specs)
    assert (answer["both"], answer["a"]["only"], answer["b"]["only"]) == (len(both), len(only_a), len(only_b))
    assert answer["a"]["kept"] == len(uids["a"]) and answer["b"]["kept"] == len(uids["b"])
    for among, side, expected in (("both", "a", both), ("only-a", "a", only_a), ("only-b", "b", only_b)):
        query = {**specs, "among": among, "run": answer[side]["run"]}
        rows = ask(several_server, "/api/samples", limit=200, **query)
        assert sorted(row["uid"] for row in rows["rows"]) == sorted(expected)
        assert rows["total"] == len(expected)
    if answer["a"]["elsewhere"]:
        assert (
            sum(answer["a"]["elsewhere"].values()) == len(only_a) and "kept" not in answer["a"]["elsewhere"]
        )


def test_coverage_of_both_sides(several, several_server):
    _, found = several
    gaps = ask(several_server, "/api/coverage", a=found["first"], b=f"{found['first']}@0.9")
    assert 0 < gaps["b"] < gaps["a"] < 2
    assert ask(several_server, "/api/coverage", a=found["part"], b=f"{found['first']}@1")["b"] == 0


def test_lists_of_the_slider_open_and_can_be_walked(several_server):
    preview = ask(several_server, "/api/preview", fraction=0.5)
    query = {"b": "@0.5", "among": "only-b"}
    rows = ask(several_server, "/api/samples", limit=200, **query)
    assert rows["total"] == preview["added"]["total"] > 12
    assert rows["rows"][:12] == preview["added"]["rows"]
    # From the first to the last, and back.
    positions, at = [row["position"] for row in rows["rows"]], rows["rows"][0]["position"]
    for place, position in enumerate(positions):
        here = ask(several_server, "/api/around", at=position, **query)
        assert here["place"] == place and here["total"] == len(positions)
        previous, following = here["previous"], here["next"]
        assert (previous and previous["position"]) == (positions[place - 1] if place else None)
        assert (following and following["position"]) == (positions[place + 1 :] or [None])[0]
    outside = next(p for p in range(127) if p not in positions)
    assert ask(several_server, "/api/around", at=outside, **query)["place"] is None
    assert get(several_server, f"/api/around?at={10**30}")[0].status == 400 and at in positions


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    ("at", "position"),
    [
        ("125", 125),
        ("126", 126),
        ("", 125),
        ("3", 125),
        ("127", 125),
        ("-1", 125),
        ("x", 125),
        ("9" * 5000, 125),
    ],
)
def test_a_sample_opens_by_its_uid_and_position(several_server, monkeypatch, held, at, position):
    monkeypatch.setattr("d2prune.explore.texts.Texts.all_held", held)
    for name in (SAME, SAME.upper()):
        found = ask(several_server, f"/api/sample/{name}", at=at)
        assert found["position"] == position and found["sample"]["uid"] == SAME
        if held:
            assert found["same_uid"] == [125, 126]
    answer, body = get(several_server, f"/api/sample/{'b' * 32}?at={at}")
    assert answer.status == 400 and b"found no uid" in body


@pytest.mark.parametrize("query", [{"q": "red"}, {"reason": "kept"}, {"b": "@0.5", "among": "only-b"}, {}])
def test_an_exported_list_is_the_list_and_reshards(several_server, finished_config, tmp_path, query):
    listed = [row["uid"] for row in ask(several_server, "/api/samples", limit=200, **query)["rows"]]
    text = "&".join(f"{name}={value}" for name, value in query.items())
    answer, body = get(several_server, f"/export/samples.parquet?{text}")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="samples.parquet"'
    table = pq.read_table(io.BytesIO(body))
    assert sorted(table["uid"].to_pylist()) == sorted(listed)
    assert {"caption", "selection_score", "reason", "kept", "clip_score"} <= set(table.column_names)
    if "q" in query:
        assert all("red" in caption for caption in table["caption"].to_pylist())
    answer, body = get(several_server, f"/export/subset.npy?{text}")
    (tmp_path / "subset.npy").write_bytes(body)
    rows = subset.read(str(tmp_path / "subset.npy"))
    assert subset.is_sorted(rows) and subset.decode(rows) == sorted(listed)
    if "reason" in query:
        written = reshard(finished_config.input, str(tmp_path / "subset.npy"), str(tmp_path / "out"))
        assert written.counts["written"] == len(listed)


def test_an_empty_list_exports_empty_files(several_server):
    _, body = get(several_server, "/export/samples.parquet?q=nothing+at+all")
    assert pq.read_table(io.BytesIO(body)).num_rows == 0
    _, body = get(several_server, "/export/subset.npy?q=nothing+at+all")
    assert len(subset.parse(body, "subset")) == 0
    assert get(several_server, "/export/samples.parquet?low=x")[0].status == 400
    for path in ("/export/", "/export/index.html", "/export/../app.js", "/export/subset.npy/"):
        assert get(several_server, path)[0].status == 404


def test_damage_in_the_middle_of_an_export_breaks_the_download(several_server, monkeypatch):
    def broken(run, positions, similarities):
        yield from ()
        raise UserError("damaged")

    monkeypatch.setattr("d2prune.explore.export.sample_tables", broken)
    assert get(several_server, "/export/samples.parquet")[0].status == 400


def test_rejected_samples_are_listed_with_their_reason(several_server):
    found = ask(several_server, "/api/rejected")
    assert found["total"] == 1
    (row,) = found["rows"]
    assert (row["key"], row["shard"], row["reason"]) == ("mute", "00000003", "caption-missing")
    assert row["meaning"] == "no txt member" and row["detail"]
    assert found["reasons"] == [
        {"reason": "caption-missing", "meaning": "no txt member", "samples": 1, "filtered": False}
    ]
    for query, total in (({"q": "MUTE 0000"}, 1), ({"q": "absent"}, 0), ({"reason": "tar-zeros"}, 0)):
        assert ask(several_server, "/api/rejected", **query)["total"] == total
    _, body = get(several_server, "/export/rejected.parquet")
    assert pq.read_table(io.BytesIO(body)).to_pylist() == [{k: v for k, v in row.items() if k != "meaning"}]


def test_runs_are_listed_with_what_tells_them_apart(several, several_server, finished_config):
    _, found = several
    listed = {run["fingerprint"]: run for run in ask(several_server, "/api/runs")["runs"]}
    assert set(listed) == set(found.values())
    first, gamma, part = (listed[found[name]] for name in ("first", "gamma", "part"))
    assert first["ids"] and first["name"] == first["ids"][0][:8] and not gamma["ids"]
    assert first["budget"] == {"what": "fraction", "value": 0.3} and gamma["budget"]["value"] == 0.4
    assert first["gammas"][1] != gamma["gammas"][1] == "3" and first["n_neighbors"] == 4
    assert first["input"] == finished_config.input and part["samples"] < first["samples"] == 127
    for run in listed.values():
        assert ask(several_server, "/api/run", run=run["name"])["kept"] == run["kept"]
    assert ask(several_server, "/api/run")["run"] == first["name"]


def test_an_id_that_runs_prints_opens_its_run(several, capsys):
    work, found = several
    assert main(["runs", work]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    run_id = line.split()[0]
    assert "30%" in line and "<- " in line
    for name in (run_id, run_id[:6], found["first"], found["first"][:6]):
        assert open_run(work, name).select.fingerprint == found["first"]
    assert main(["explain", work, "html", "--run", run_id]) == 0
    explorer = Explorer(open_run(work, run_id))
    address = explorer.comparison_address("@0.2")
    assert address == f"#/compare?run={run_id[:8]}&a={run_id[:8]}&b={run_id[:8]}%400.2"
    assert main(["explore", work, "--compare", "zz"]) == 2
    assert "--compare zz: 0 selections match; expected one of " in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec", ["@", "@0", "@1.5", "@nan", "@x", "@-1", "zz", "zz@0.1", "@0.1@0.2", "@1e999"]
)
@pytest.mark.parametrize("path", ["/api/compare?a=", "/api/coverage?b=", "/api/samples?among=both&b="])
def test_a_wrong_selection_is_a_client_error(several_server, path, spec):
    assert get(several_server, path + spec)[0].status == 400


@pytest.mark.parametrize(
    "path", ["/api/run?run=", "/api/samples?run=", "/image/small/0?run=", "/export/subset.npy?run="]
)
@pytest.mark.parametrize("name", ["..", "%2e%2e%2f", "zz", "%00", "%ff" * 5000])
def test_an_unknown_run_is_a_client_error(several_server, path, name):
    assert get(several_server, path + name)[0].status == 400


def test_few_runs_stay_open(several, monkeypatch):
    work, found = several
    monkeypatch.setattr("d2prune.explore.workspace._OPEN_RUNS", 2)
    workspace = Workspace(open_run(work, found["first"]))
    first = workspace.default
    for name in ("gamma", "part", "gamma"):
        workspace.open(found[name])
    assert workspace.open("") is workspace.open(found["first"]) is first
    gamma = workspace.open(found["gamma"])
    # Runs of one pool share its texts.
    assert gamma.index.texts is first.index.texts
    assert workspace.open(found["part"]).index.texts is not first.index.texts
