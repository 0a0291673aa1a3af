"""`d2prune index` and `d2prune search` as a user calls them."""

from pathlib import Path

import numpy as np
import pytest

from d2prune.cli.main import main
from tests.explore.conftest import SAME
from tests.pools import draw, tree


@pytest.fixture
def call(capsys):
    """Runs the command line; returns the exit code and both outputs."""

    def _call(*argv):
        code = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _call


def test_index_then_search_by_text_and_image(indexed, tiny_model, tmp_path, call):
    code, out, _ = call("index", indexed.work_dir)
    assert code == 0 and "pool.faiss for faiss, ids.parquet for uids" in out
    code, out, err = call("search", indexed.work_dir, "a red flag", "--model", tiny_model, "--top", 4)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 1 + 2 * 4 and lines[0].split()[0] == "similarity", err
    assert all(line.strip().startswith(("kept", "dropped")) for line in lines[2::2])
    again = call("search", indexed.work_dir, "--top", 4, "--model", tiny_model, "a red flag")
    assert again[:2] == (0, out)
    (tmp_path / "query.jpg").write_bytes(draw("bar", "blue", 2))
    image = ("--image", tmp_path / "query.jpg", "--model", tiny_model)
    code, out, _ = call("search", indexed.work_dir, *image)
    assert code == 0 and len(out.splitlines()) == 1 + 2 * 10


def test_what_is_printed_is_safe_for_a_terminal(indexed, call):
    code, out, _ = call("search", indexed.work_dir, "--like", "html", "--top", 10_000)
    assert code == 0 and "[31mred" in out
    assert not any(character in out for character in "\x1b\x07\u202e")
    assert all(len(line) < 140 for line in out.splitlines())


def test_what_was_found_reshards(indexed, finished_config, tmp_path, call):
    subset, out = tmp_path / "subset.npy", tmp_path / "out"
    code, printed, _ = call("search", indexed.work_dir, "--like", "html", "--top", 12, "--output", subset)
    assert code == 0 and printed.splitlines()[-1] == f"{subset}: 12 samples"
    assert np.load(subset).dtype == np.dtype("u8,u8")
    assert call("reshard", "--subset", subset, "--input", finished_config.input, "--output", out)[0] == 0
    assert call("verify", out, "--full")[0] == 0
    assert np.load(out / "subset.npy").tolist() == np.load(subset).tolist()


def test_near_a_target_set(tables, tmp_path, call):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "targets.npy", rng.normal(size=(6, 16)).astype(np.float32))
    subset = tmp_path / "subset.npy"
    before = tree(Path(tables.work_dir))
    near = ("--near", tmp_path / "targets.npy", "--top", 40, "--output", subset)
    code, out, _ = call("search", tables.work_dir, *near)
    assert code == 0 and len(np.load(subset)) == 40 and len(out.splitlines()) == 1 + 2 * 10 + 1
    assert tree(Path(tables.work_dir)) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "search: found no query; expected one of TEXT, --image, --like and --near"),
        (["flag", "--like", "x"], "search: found TEXT, --like; expected one of"),
        (["--like", "x", "flag"], "search: found TEXT, --like; expected one of"),
        (["--top", "3", "flag", "pole"], "unrecognized arguments: flag pole"),
        (["--top", "3", "flag", "--pole"], "unrecognized arguments: flag --pole"),
        (["  "], "TEXT: found nothing; expected what to find"),
        (["flag"], "imported from tables, so the run does not know it"),
        (["flag", "--pretrained", "openai"], "--pretrained openai: expected --model, too"),
        (["flag", "--model", "ViT-B-33"], "ViT-B-33"),
        (["--image", "/nowhere.jpg"], "--image /nowhere.jpg: not found; expected an image"),
        (["--like", "nobody"], "--like nobody: found no such sample; expected one embedded sample"),
        (["--near", "/nowhere.npy"], "--near: /nowhere.npy: not found; expected floats [M, D]"),
        (["--near", "{wrong}"], "query: found embeddings of shape (3, 5); expected [M, 16 or 32]"),
        (["--near", "{zeros}"], "found all zeros; expected finite values"),
        (["--near", "{text}"], "cannot be read"),
        (["flag", "--index", "s3://bucket/x"], "--index: found s3://bucket/x; expected a local folder"),
        (["flag", "--index", "{folder}"], "found no index of graph"),
        (["flag", "--top", "0"], "--top: found 0; expected a whole number from 1"),
        (["flag", "--run", "zz"], "--run zz: 0 selections match"),
    ],
)
def test_a_mistake_is_one_line(tables, tmp_path, call, words, message):
    np.save(tmp_path / "wrong.npy", np.ones((3, 5), np.float32))
    np.save(tmp_path / "zeros.npy", np.zeros((3, 16), np.float32))
    (tmp_path / "text.npy").write_text("not an array")
    places = {name: tmp_path / f"{name}.npy" for name in ("wrong", "zeros", "text")} | {"folder": tmp_path}
    code, out, err = call("search", tables.work_dir, *(word.format(**places) for word in words))
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err


def test_a_local_model_must_be_named_and_be_the_runs_own(indexed, call):
    code, _, err = call("search", indexed.work_dir, "flag")
    assert code == 2 and "of which the run records only the hash" in err
    code, _, err = call("search", indexed.work_dir, "flag", "--model", "demo")
    assert code == 2 and "the model of this run" in err and err.count("\n") == 1


def test_the_name_of_several_samples_is_refused(indexed, call):
    code, _, err = call("search", indexed.work_dir, "--like", SAME)
    assert code == 2 and f"--like {SAME}: found 2 samples; expected one" in err


def test_the_index_of_another_graph_is_refused(indexed, tables, call):
    folder = next(Path(tables.work_dir, "index").glob("*/index.json")).parent
    code, _, err = call("search", indexed.work_dir, "--like", "html", "--index", folder)
    assert code == 2 and "found the index of graph" in err and err.count("\n") == 1
