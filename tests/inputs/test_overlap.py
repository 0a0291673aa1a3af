"""Input, work_dir and output: which pairs are refused before anything starts, and which are harmless."""

import pytest
import yaml

from d2prune import store
from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.inputs.items import parse_items
from d2prune.inputs.overlap import check_items
from d2prune.inputs.shards import expand_input
from tests.pools import tree

# input, work_dir, output, what the message says (None: allowed). {} is the parent of them all.
PAIRS = [
    ("{}/in", "{}/work", "{}/out", None),
    ("{}/in", "{}/out-work", "{}/out", None),
    ("{}/in", "{}/in2", "{}/in3", None),
    ("{}/in", "{}/runs/work", "{}/runs/out", None),
    ("{}/in", "{}/out/work", "{}/out/{{run_id}}", None),
    ("{}/in/*.tar", "{}/in/work", "{}/in/out", None),
    ("{}/in/*/*.tar", "{}/work", "{}/in/a/out", None),
    ("{}/in/{{0..3}}.tar", "{}/in/work", "{}/in/out", None),
    ("{}/in/0.tar", "{}/work", "{}/in/out", None),
    ("{}/in", "{}/in/.work", "{}/out", None),
    ("{}/out/0123456789abcdef", "{}/work", "{}/out/{{run_id}}", None),
    ("{}/out-1", "{}/work", "{}/out", None),
    ("{}/in", "{}/work", "{}/in", "input {}/in is in output {}/in"),
    ("{}/in", "{}/in", "{}/out", "input {}/in is in work_dir {}/in"),
    ("{}/in", "{}/work", "{}/in/out", "output {}/in/out is in input {}/in, so a later run would read it"),
    ("{}/in/", "{}/in/a/work", "{}/out", "work_dir {}/in/a/work is in input {}/in/, so a later run"),
    ("{}/in", "{}/work", "{}/in/{{run_id}}", "is in input {}/in, so a later run"),
    ("{}/in/*/*.tar", "{}/work", "{}/in/out", "output {}/in/out is in input {}/in/*/*.tar"),
    ("{}/in/**/*.tar", "{}/in/a/b/work", "{}/out", "work_dir {}/in/a/b/work is in input"),
    ("{}/in/o?t/*.tar", "{}/work", "{}/in/out", "output {}/in/out is in input"),
    ("{}/*/x.tar", "{}/work", "{}/out", "work_dir {}/work is in input {}/*/x.tar"),
    ("{}/in/*.tar", "{}/work", "{}/in", "input {}/in/*.tar is in output {}/in"),
    ("{}/in/{{0..3}}.tar", "{}/work", "{}/in", "input {}/in/{{0..3}}.tar is in output {}/in"),
    ("{}/{{in,more}}", "{}/more/work", "{}/out", "work_dir {}/more/work is in input {}/{{in,more}}"),
    (["{}/in", "{}/more"], "{}/work", "{}/more/out", "output {}/more/out is in input {}/more"),
    ("{}/in::{}/more", "{}/work", "{}/more/out", "output {}/more/out is in input {}/more"),
    ("{}/out/in", "{}/work", "{}/out", "input {}/out/in is in output {}/out"),
    ("{}/work/in/0.tar", "{}/work", "{}/out", "input {}/work/in/0.tar is in work_dir {}/work"),
    ("{}/work/in/*.tar", "{}/work", "{}/out", "input {}/work/in/*.tar is in work_dir {}/work"),
    ("{}/in", "{}/out/work", "{}/out", "work_dir {}/out/work is in output {}/out"),
    ("{}/in", "{}/work", "{}/work/out", "output {}/work/out is in work_dir {}/work"),
    ("{}/in", "{}/work", "{}//work/", "are the same folder; expected two different folders"),
    ("{}/in", "{}", "{}/out", "is in work_dir {}"),
    ("{}//in", "{}/work", "{}/in//out", "is in input"),
]
# Other spellings of local folders: of `in`, `work` and `out` as above.
LOCAL_PAIRS = [
    ("{}/in", "{}/work", "{}/x/../in/out", "is in input {}/in"),
    ("{}/link", "{}/work", "{}/in/out", "is in input {}/link"),
    ("{}/in", "{}/work", "{}/link/out", "is in input {}/in"),
    ("file://{}/in", "{}/work", "{}/in/out", "is in input file://{}/in"),
    ("{}/in", "{}/work", "file://{}/in/out", "is in input {}/in"),
    ("in", "{}/work", "{}/in/out", "is in input in"),
    ("*/*.tar", "{}/work", "{}/out", "work_dir {}/work is in input */*.tar"),
    (".", "{}/work", "{}/out", "work_dir {}/work is in input ."),
    ("{}/in", "work", "{}/work/out", "is in work_dir work"),
    ("{}/in", "{}/work", "./work/.", "are the same folder"),
    ("*.tar", "{}/work", "{}/out", None),
]


def fill(value, parent):
    return [fill(item, parent) for item in value] if isinstance(value, list) else value.format(*[parent] * 4)


def check(parent, case):
    given, work_dir, output, message = (value and fill(value, parent) for value in case)
    written = {"work_dir": work_dir, "output": output}
    if message is None:
        check_items(parse_items(given), written)
        return
    with pytest.raises(UserError) as caught:
        check_items(parse_items(given), written)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("case", PAIRS, ids=str)
@pytest.mark.parametrize("parent", ["/none/of/these", "s3://bucket/none", "gs://bucket"])
def test_pairs(case, parent, monkeypatch):
    monkeypatch.setattr("d2prune.inputs.items._is_present", lambda name, is_remote: False)
    check(parent, case)


@pytest.mark.parametrize("case", LOCAL_PAIRS, ids=str)
def test_pairs_in_other_spellings(case, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    check(str(tmp_path), case)


def test_aliases_of_a_scheme_are_one_location():
    with pytest.raises(UserError, match="is in input"):
        check_items(parse_items("s3a://b/in"), {"output": "s3://b/in/out"})
    check_items(parse_items("s3://b/in"), {"output": "gs://b/in/out"})


def test_a_link_below_the_input_that_leads_to_the_output_is_found_by_the_listing(tmp_path):
    store.write_bytes(f"{tmp_path}/in/0.tar", b"x")
    (tmp_path / "in" / "old").symlink_to(tmp_path / "out")
    written = {"output": f"{tmp_path}/out"}
    (tmp_path / "out").mkdir()
    assert len(expand_input(f"{tmp_path}/in", written)) == 1
    store.write_bytes(f"{tmp_path}/out/00000000.tar", b"y")
    with pytest.raises(UserError, match=r"input .*in/old/00000000\.tar is in output"):
        expand_input(f"{tmp_path}/in", written)


@pytest.mark.parametrize("command", ["run", "plan", "sweep", "reshard"])
@pytest.mark.parametrize(
    ("key", "place", "line"),
    [
        ("output", "pool/out", "is in input {}/pool, so a later run would read it as input"),
        ("work_dir", "pool/work", "is in input {}/pool, so a later run would read it as input"),
        ("work_dir", "out/work", "is in output {}/out"),
    ],
)
def test_commands_refuse_before_anything_starts(pool, tmp_path, capsys, command, key, place, line):
    (tmp_path / "pool").symlink_to(pool)
    values = {"input": f"{tmp_path}/pool", "work_dir": f"{tmp_path}/work", "output": f"{tmp_path}/out"}
    values[key] = f"{tmp_path}/{place}"
    if command == "reshard":
        (tmp_path / "s.npy").write_bytes(b"")
        places = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
        arguments = ["reshard", f"--subset={tmp_path}/s.npy", *places]
    else:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(values | {"embed": {"model": "demo"}, "select": {"fraction": 0.5}}))
        arguments = [command, f"--config={path}"]
    before = tree(tmp_path)
    assert main(arguments) == 2
    lines = [text for text in capsys.readouterr().err.splitlines() if text.startswith("d2prune: ")]
    assert len(lines) == 1 and line.format(tmp_path) in lines[0]
    assert tree(tmp_path) == before and not list(pool.rglob("out*"))


def test_reshard_refuses_a_subset_file_in_its_output(pool, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "s.npy").write_bytes(b"")
    arguments = ["reshard", f"--subset={tmp_path}/out/s.npy", f"--input={pool}", f"--output={tmp_path}/out"]
    assert main(arguments) == 2
    assert f"subset file {tmp_path}/out/s.npy is in output {tmp_path}/out" in capsys.readouterr().err
