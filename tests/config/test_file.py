"""Configuration files and overrides: who is blamed, which bytes are read, and from where."""

import os

import fsspec
import pytest

from d2prune.config.file import MAX_BYTES
from d2prune.config.model import RunConfig
from d2prune.errors import UserError

OK = "input: a\nwork_dir: w\noutput: o\nselect:\n  fraction: 0.3\n"


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "run.yaml"

    def _load(data, *overrides):
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return RunConfig.load(path, overrides)

    return _load


@pytest.fixture
def refuse(load, tmp_path):
    def _refuse(data, *overrides):
        with pytest.raises(UserError) as caught:
            load(data, *overrides)
        text = str(caught.value)
        assert text.isprintable() and len(text) < 600
        return text.replace(str(tmp_path), "")

    return _refuse


@pytest.mark.parametrize(
    ("text", "overrides", "line"),
    [
        (
            OK.replace("0.3", "2"),
            ["graph.seed=1"],
            "/run.yaml: line 5: select.fraction = 2: expected a number above 0 and up to 1, or null; "
            "0.3 means 30%",
        ),
        (
            OK,
            ["graph.seed=1", "select.fraction=2"],
            "--set select.fraction=2: select.fraction = 2: expected a number above 0 and up to 1, or null; "
            "0.3 means 30%",
        ),
        (
            OK,
            ["select.size=5"],
            "--set select.size=5: select: expected exactly one of fraction, size, min_score; found fraction, "
            "size",
        ),
        (
            OK + "  size: 5\n",
            ["graph.seed=1"],
            "/run.yaml: line 4: select: expected exactly one of fraction, size, min_score; found fraction, "
            "size",
        ),
        (
            OK,
            ["select={size: 1, min_score: 2}"],
            "--set select={size: 1, min_score: 2}: select: expected exactly one of fraction, size, "
            "min_score; found size, min_score",
        ),
        (
            OK,
            ["select.fraction=9", "select.fraction=9"],
            "--set select.fraction=9: select.fraction = 9: expected a number above 0 and up to 1, or null; "
            "0.3 means 30%",
        ),
        (
            OK.replace("0.3", "2"),
            ["embed.decode=far"],
            "--set embed.decode=far: embed.decode = 'far': expected local or remote; /run.yaml: line 5: "
            "select.fraction = 2: expected a number above 0 and up to 1, or null; 0.3 means 30%",
        ),
        (OK, ["work_dir=o"], "--set work_dir=o: output: found o, the work_dir; expected another folder"),
        (
            OK + "score: {difficulty: taste}\n",
            [],
            "/run.yaml: line 6: score.difficulty: unknown score 'taste'; expected one of clip_score, width, "
            "height, s_clip_loss, norm_sim_2, norm_sim_inf, near_target, or a number of "
            "embed.fields, as in embed: {fields: {taste: number}}",
        ),
        (OK, ["graph.sed=1"], "--set graph.sed=1: unknown key graph.sed; did you mean graph.seed?"),
        (OK + "grahp:\n", [], "/run.yaml: line 6: unknown key grahp; did you mean graph?"),
        (OK, ["graph=5"], "--set graph=5: graph = 5: expected a section with keys such as features"),
        (OK, ["input.x=1"], "--set input.x=1: input is not a section"),
        (OK, ["output=a #b"], "--set output=a #b: the value is invalid YAML: found a comment (#b); put a "
         "value that contains ` #` in quotes"),
        (OK, ["graph={seed: 1, seed: 2}"], "--set graph={seed: 1, seed: 2}: the value is invalid YAML: key "
         "seed is given twice, in lines 1 and 1; expected it once"),
        (OK, ["select"], "--set select: expected KEY=VALUE, as in select.fraction=0.3"),
        (OK, ["=1"], "--set =1: expected KEY=VALUE, as in select.fraction=0.3"),
        (OK, ["a..b=1"], "--set a..b=1: expected KEY=VALUE, as in select.fraction=0.3"),
        (OK, ["graph.seed=\x1b[1m"], "--set graph.seed=\\x1b[1m: the value is invalid YAML: found the "
         "character '\\x1b'; expected printable text"),
    ],
)  # fmt: skip
def test_the_message_names_the_line_or_the_override(refuse, text, overrides, line):
    assert refuse(text, *overrides) == line


def test_long_and_deep_overrides_are_cut(refuse):
    assert "found a key of 10001 names; expected at most 20" in refuse(OK, "a" + ".a" * 10_000 + "=1")
    assert refuse(OK, "graph.seed=" + "9" * 10_000).startswith("--set graph.seed=999")


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["embed.models=[a/b, c/d]"], lambda c: c.embed.models == {"a": "a/b", "c": "c/d"}),
        (["embed.model="], lambda c: c.embed.model is None),
        ([" graph.seed = 5 "], lambda c: c.graph.seed == 5),
        (["embed.fields={a=b: number}", "score.difficulty='`a=b`'"], lambda c: "a=b" in c.score.difficulty),
        (["output='a #b'"], lambda c: c.output == "a #b"),
        (["output=s3://b/x=1/{run_id}"], lambda c: c.output == "s3://b/x=1/{run_id}"),
        (["select.fraction=null", "select.size=7"], lambda c: c.select.size == 7),
        (["select.fraction=9", "select.fraction=0.5"], lambda c: c.select.fraction == 0.5),
        (["graph={seed: 1}", "graph.seed=2", "graph.n_neighbors=1e1"], lambda c: c.graph.n_neighbors == 10),
    ],
)
def test_overrides_apply_in_order(load, overrides, found):
    assert found(load(OK, *overrides))


def test_an_empty_section_has_its_defaults(load, refuse):
    empty = "".join(f"{name}:\n" for name in ("embed", "filter", "columns", "graph", "report", "ray"))
    assert load(OK + empty) == load(OK)
    assert load(OK + empty, "embed.model=demo").embed.model == "demo"
    assert load(OK + "embed: {fields: , models: }\n") == load(OK)
    assert load(OK.replace("  fraction: 0.3\n", ""), "select.fraction=0.5").select.fraction == 0.5
    assert "found none" in refuse(OK.replace("  fraction: 0.3\n", ""))


@pytest.mark.parametrize(
    "data",
    [
        OK.replace("\n", "\r\n"),
        "\ufeff" + OK,
        OK.encode("utf-16"),
        f"---\n{OK}...\n",
        f"%YAML 1.2\n---\n{OK}",
    ],
)
def test_other_encodings_and_line_ends_read_the_same(load, data):
    assert load(data) == load(OK)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "/run.yaml: expected keys such as input, work_dir and output; found an empty file"),
        (b"- a", "/run.yaml: expected keys such as input, work_dir and output; found a list"),
        (b"text", "/run.yaml: expected keys such as input, work_dir and output; found a single value"),
        (b"\x80\x81", "/run.yaml: cannot be read: expected text in UTF-8; found other bytes at 0"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "/run.yaml: invalid YAML: line 1: found the character '\\x7f'; "
         "expected printable text"),
        (b"\xff\xfea", "/run.yaml: cannot be read: expected text in UTF-8; found other bytes at 2"),
        (b"a" * (MAX_BYTES + 1), "/run.yaml: found more than 4 MiB; expected a configuration file"),
        (b"input: {x}\nwork_dir: w\noutput: o\nselect: {fraction: 1}", "/run.yaml: line 1: input = "
         "{'x': None}: expected text, or a list of text; put text with braces in quotes"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_bytes_that_are_no_configuration(refuse, data, line):
    assert refuse(data) == line


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("none.yaml", "cannot be read"),
        (".", "found a folder; expected a file"),
        ("a\0b", "found a NUL character"),
        ("x" * 300, "the name is too long"),
    ],
)
def test_paths_that_cannot_be_read(tmp_path, name, fault):
    with pytest.raises(UserError, match=fault):
        RunConfig.load(f"{tmp_path}/{name}")


def test_any_url_is_read(monkeypatch, tmp_path):
    fsspec.filesystem("memory").pipe_file("/config/run.yaml", OK.encode())
    assert RunConfig.load("memory://config/run.yaml").output == "o"
    (tmp_path / "run.yaml").write_text(OK)
    assert RunConfig.load(f"file://{tmp_path}/run.yaml").output == "o"
    with pytest.raises(UserError, match=r"^memory://config/none.yaml: cannot be read: "):
        RunConfig.load("memory://config/none.yaml")
    with pytest.raises(UserError, match=r"^config nothing://run.yaml: "):
        RunConfig.load("nothing://run.yaml")
    fsspec.filesystem("memory").pipe_file("/config/large.yaml", b"a" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="found more than 4 MiB"):
        RunConfig.load("memory://config/large.yaml")


def test_a_pipe_is_read(tmp_path):
    """`--config <(envsubst <run.yaml)`."""
    read, write = os.pipe()
    with open(write, "w") as sink:
        sink.write(OK)
    assert RunConfig.load(f"/dev/fd/{read}").output == "o"
    os.close(read)


def test_only_the_home_folder_is_expanded(load, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = ("output=~/out/{run_id}", "work_dir=$HOME/w", "input=[~/a, s3://b/~/c]", "embed.model=~/m")
    config = load(OK, *overrides)
    assert config.output == f"{tmp_path}/out/{{run_id}}"
    assert config.work_dir == "$HOME/w"
    assert config.input == [f"{tmp_path}/a", "s3://b/~/c"]
    assert config.embed.model == f"{tmp_path}/m"
