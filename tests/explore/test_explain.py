"""Explanations reconcile with the run to the last bit, and the command prints them."""

import shutil
from dataclasses import replace

import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.d2.budget import ranking
from d2prune.d2.fixed_point import SCALE
from d2prune.execution import InProcess
from d2prune.explore.explain import explain, read_ranking, read_threshold
from d2prune.explore.sample_index import SampleIndex
from d2prune.explore.terminal import shorten
from d2prune.parts.files import DECISIONS
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from tests.explore.conftest import HOSTILE, SAME
from tests.pools import tree


def test_with_groups_a_sample_has_the_threshold_of_its_group(finished):
    """In the explanation, in the index and in its table, for the run's own selection and for none."""
    params = {**finished.select.params, "groups": "shard"}
    grouped = replace(finished, select=replace(finished.select, params=params))
    index, labels = SampleIndex(grouped), grouped.parts.column(DECISIONS, "shard").to_pylist()
    fixed, kept = index.ranking.fixed_N.tolist(), index.ranking.kept_N.copy()
    kept[[at for at, label in enumerate(labels) if label == labels[0]]] = False
    for kept_N in (index.ranking.kept_N, kept):
        lowest = {
            label: min(
                (f for f, own, k in zip(fixed, labels, kept_N, strict=True) if k and own == label),
                default=None,
            )
            for label in set(labels)
        }
        expected = {label: None if found is None else found / SCALE for label, found in lowest.items()}
        table = index.group_thresholds(kept_N)
        assert {row.name: row.threshold for row in table} == expected
        assert sum(row.kept for row in table) == kept_N.sum()
        assert sum(row.ranked for row in table) == index.ranking.ranked
        ranking_of = replace(index.ranking, kept_N=kept_N)
        for position in range(0, len(labels), 10):
            assert read_threshold(grouped, position, ranking_of) == expected[labels[position]]
    for position in range(0, len(labels), 10):
        found = explain(grouped, position, index.ranking)
        assert found.threshold == index.threshold_of(position)
    assert SampleIndex(finished).group_thresholds(index.ranking.kept_N) == []


def test_every_score_equals_the_sum_of_its_messages(finished):
    stored = read_ranking(finished)
    order = ranking(stored.fixed_N).tolist()
    explained = [explain(finished, position, stored) for position in range(len(finished))]
    assert all(one.reconciled for one in explained)
    assert [one.rank for one in explained] == [order.index(position) + 1 for position in range(len(finished))]
    assert any(one.suppressed_by for one in explained) and any(one.suppressed for one in explained)
    for one in explained:
        # Suppression sent equals suppression received at the other end.
        for neighbour in one.suppressed:
            (back,) = [n for n in explained[neighbour.position].neighbours if n.position == one.position]
            assert back.suppression_received == neighbour.suppression_sent
        # The strongest suppressor is the one that the run recorded.
        if (by := one.suppressed_by) is not None:
            strongest = max(n.suppression_received for n in one.neighbours)
            assert by.suppression_received == strongest == one.sample["suppression"]
            assert by.uid == one.sample["suppressed_by"]
        assert (one.kept_from * len(finished) <= stored.kept_N.sum()) == one.sample["kept"]


def test_the_command_prints_one_block_per_sample(finished, capsys):
    assert main(["explain", finished.work_dir, SAME, "mute", "html", "escape", "long"]) == 0
    out = capsys.readouterr().out
    assert out.count("  caption   ") == 5 and "00000003/mute  rejected: caption-missing" in out
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert "[31mred" in out and all(len(line) < 400 for line in out.splitlines())
    assert f"{SAME}: 2 samples" in out
    assert finished.fields == () and "checksum" not in out and "sha256" not in out


def test_clamped_score_is_printed_as_an_upper_bound(finished, capsys):
    lowest = int(finished.parts.column(DECISIONS, "difficulty").to_numpy().argmin())
    assert main(["explain", finished.work_dir, finished.parts.column(DECISIONS, "uid")[lowest].as_py()]) == 0
    assert "0.0000  difficulty (clip_score at most " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{work}", "zz"],
            "zz: found no such sample; expected a uid, the unique beginning of one, a key or shard/key",
        ),
        (
            ["{work}", "000000000000000000000000000000ff"],
            "similar uids: 00000000000000000000000000000000, 0000000",
        ),
        (["{work}/nothing", "zz"], "found no finished selection"),
        (["{work}", "zz", "--run", "xyz"], "--run xyz: 0 selections match; expected one of "),
    ],
)
def test_usage_errors_are_one_line(finished, capsys, arguments, message):
    assert main(["explain", *(text.format(work=finished.work_dir) for text in arguments)]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith("d2prune: ") and message in shown


def test_remote_run_is_read_in_ranges(finished, monkeypatch):
    """The same explanation from a store without local files."""
    for name, data in tree(finished.work_dir).items():
        store.write_bytes(f"memory://explained/{name}", data)
    remote = open_run("memory://explained", finished.select.fingerprint)
    monkeypatch.setattr(store, "read_bytes", None)
    monkeypatch.setitem(remote.__dict__, "urls", {})
    expected = replace(explain(finished, 7, read_ranking(finished)), url=None)
    assert explain(remote, 7, read_ranking(remote)) == expected


def test_other_methods_have_a_score_and_no_messages(finished, finished_config, tmp_path, capsys):
    shutil.copytree(finished.work_dir, tmp_path / "work")
    select = finished_config.select.model_copy(update={"method": "random"})
    update = {"select": select, "work_dir": str(tmp_path / "work"), "output": str(tmp_path / "output")}
    result = run(finished_config.model_copy(update=update), InProcess(), "select")
    other = open_run(str(tmp_path / "work"))
    # Without --run, the newest of the two selections is opened.
    assert other.select.fingerprint == result.manifests["select"].fingerprint != finished.select.fingerprint
    explained = [explain(other, position, read_ranking(other)) for position in range(5)]
    assert all(one.reconciled and not one.suppressed and not one.suppressed_by for one in explained)
    assert main(["explain", other.work_dir, "html"]) == 0
    assert "selection score by random" in capsys.readouterr().out


def test_a_run_opens_by_the_beginning_of_its_fingerprint(finished, finished_config, finished_result):
    only = finished_result.manifests["select"].fingerprint
    assert finished.select.fingerprint == only
    assert open_run(finished_config.work_dir, only[:6]).select == finished.select


def test_texts_are_shortened_to_one_line_of_visible_characters():
    assert shorten("שלום 你好 é") == "שלום 你好 é"
    assert shorten("a\n\x1b[1mb\u202ec") == r"a \x1b[1mb\u202ec"
    assert len(shorten(HOSTILE["long"])) == 100 and shorten(HOSTILE["long"]).endswith("…")
