"""What `explain` says is what the run did: sums agree to the bit, every name leads to its samples."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.d2.budget import ranking
from d2prune.execution import InProcess
from d2prune.explore.explain import _find, explain, find, read_line
from d2prune.explore.terminal import plain
from d2prune.runs.driver import run
from d2prune.parts.files import DECISIONS
from d2prune.runs.finished import open_run
from tests.docs.commands import ROOT
from tests.explore.conftest import HOSTILE, SAME
from tests.pools import tree


def test_every_score_is_the_sum_of_its_messages(finished):
    line = read_line(finished)
    order = ranking(line.fixed_N).tolist()
    told = [explain(finished, position, line) for position in range(len(finished))]
    assert all(of.reconciled for of in told)
    assert [of.rank for of in told] == [order.index(position) + 1 for position in range(len(finished))]
    assert any(of.suppressed_by for of in told) and any(of.suppressed for of in told)
    for of in told:
        # Whom it says it suppressed say so themselves, by the same amount; the strongest is the one
        # the run recorded.
        for taken in of.suppressed:
            other = told[taken.position]
            assert next(n for n in other.neighbours if n.position == of.position).lowered == taken.lowers
        if (by := of.suppressed_by) is not None:
            assert by.lowered == max(n.lowered for n in of.neighbours) == of.sample["suppression"]
            assert by.uid == of.sample["suppressed_by"]
        assert (of.kept_from * len(finished) <= line.kept_N.sum()) == of.sample["kept"]


def test_take_keeps_the_order_asked_for(finished):
    positions = np.random.default_rng(0).permutation(len(finished))
    uids = np.array(finished.column(DECISIONS, "uid").to_pylist())
    assert finished.take(positions, DECISIONS, ["uid"])["uid"].to_pylist() == uids[positions].tolist()
    assert finished.take(positions[:0], DECISIONS, ["uid"]).num_rows == 0


def test_a_name_finds_all_that_bear_it(finished):
    first = finished.take(np.array([0]), DECISIONS, ["uid", "key", "shard"]).to_pylist()[0]
    ends = len(finished)
    names = [
        first["uid"],
        first["uid"][:9],
        first["key"],
        f"{first['shard']}/{first['key']}",
        SAME,
        "mute",
        "0",
        "zz",
    ]
    found = find(finished, names)
    for name in names[:4]:
        assert found[name].positions == (0,)
    assert found[SAME].positions == (ends - 2, ends - 1)
    assert [r.reason for r in found["mute"].rejected] == ["caption-missing"]
    # A beginning that fits several names them and chooses none.
    assert found["0"].positions == () and len(found["0"].nearest) == 3
    assert found["zz"] == type(found["zz"])((), ())


def test_the_command_prints_one_block_for_each(finished, capsys):
    assert main(["explain", finished.work_dir, SAME, "mute", "html", "escape", "long"]) == 0
    out = capsys.readouterr().out
    assert out.count("  caption   ") == 5 and "00000003/mute  rejected: caption-missing" in out
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert "[31mred" in out and all(len(line) < 400 for line in out.splitlines())
    assert f"{SAME}: 2 samples" in out


def test_a_key_is_found_without_the_folder_it_was_packed_from():
    uid, key, shard = (pa.chunked_array([values]) for values in (["aa", "bb"], ["./1", "2"], ["s", "s"]))
    rejects = pa.table({"shard": ["s"], "key": ["./3"], "reason": ["x"], "detail": [""]})
    for name, positions in (("1", (0,)), ("./1", (0,)), ("s/1", (0,)), ("2", (1,)), ("s/2", (1,))):
        assert _find(name, uid, key, shard, rejects).positions == positions
    assert _find("s/3", uid, key, shard, rejects).rejected[0].key == "./3"


def test_a_score_that_was_raised_to_zero_says_so(finished, capsys):
    lowest = int(finished.column(DECISIONS, "difficulty").to_numpy().argmin())
    assert main(["explain", finished.work_dir, finished.column(DECISIONS, "uid")[lowest].as_py()]) == 0
    assert "0.0000  difficulty (clip_score at most " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{work}", "zz"], "zz: no uid, unique beginning of one, or key in this run"),
        (
            ["{work}", "000000000000000000000000000000ff"],
            "nearest: 00000000000000000000000000000000, 0000000",
        ),
        (["{work}/nothing", "zz"], "no finished selection"),
        (["{work}", "zz", "--run", "xyz"], "--run xyz: 0 selections start so; expected one of "),
    ],
)
def test_mistakes_are_one_line(finished, capsys, arguments, line):
    assert main(["explain", *(text.format(work=finished.work_dir) for text in arguments)]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith("d2prune: ") and line in shown


def test_a_reader_that_has_enough_is_no_error(finished):
    # More than a pipe holds.
    uids = " ".join(sorted(set(finished.column(DECISIONS, "uid").to_pylist())))
    command = f"{sys.executable} -m d2prune.cli.main explain {finished.work_dir} {uids} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_a_remote_run_is_read_in_ranges(finished, monkeypatch):
    """The same through a store that has no files to map."""
    for name, data in tree(finished.work_dir).items():
        store.write_bytes(f"memory://explained/{name}", data)
    remote = open_run("memory://explained", finished.select.fingerprint)
    monkeypatch.setattr(store, "read_bytes", None)
    monkeypatch.setitem(remote.__dict__, "urls", {})
    line = read_line(remote)
    assert explain(remote, 7, line) == replace(explain(finished, 7, read_line(finished)), url=None)


def test_another_method_has_a_score_and_no_messages(finished, finished_config, tmp_path, capsys):
    shutil.copytree(finished.work_dir, tmp_path / "work")
    select = finished_config.select.model_copy(update={"method": "random"})
    update = {"select": select, "work_dir": str(tmp_path / "work"), "output": str(tmp_path / "output")}
    result = run(finished_config.model_copy(update=update), InProcess(), "select")
    other = open_run(str(tmp_path / "work"))
    # The newest of two.
    assert other.select.fingerprint == result.manifests["select"].fingerprint != finished.select.fingerprint
    told = [explain(other, position, read_line(other)) for position in range(5)]
    assert all(of.reconciled and not of.suppressed and not of.suppressed_by for of in told)
    assert main(["explain", other.work_dir, "html"]) == 0
    assert "selection score by random" in capsys.readouterr().out


def test_the_run_is_the_newest_or_the_one_named(finished, finished_config, finished_result):
    only = finished_result.manifests["select"].fingerprint
    assert finished.select.fingerprint == only and finished.others == ()
    assert open_run(finished_config.work_dir, only[:6]).select == finished.select


def test_plain_keeps_letters_of_every_script_and_nothing_that_acts():
    assert plain("שלום 你好 é") == "שלום 你好 é"
    assert plain("a\n\x1b[1mb\u202ec") == "a [1mb c"
    assert len(plain(HOSTILE["long"])) == 100 and plain(HOSTILE["long"]).endswith("…")
