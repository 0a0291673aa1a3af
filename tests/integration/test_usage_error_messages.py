"""The exact message of every common usage error.

Errors that need a model or a run are in test_usage_errors.py.
"""

import re

import pytest
import yaml

from d2prune.cli.main import main
from d2prune.embed.worker import check_reject_rate
from d2prune.errors import UserError
from tests.pools import tree, write_pool


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders and files that the messages name."""
    folder = tmp_path_factory.mktemp("errors")
    write_pool(folder / "pool", 2, 2)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.jpg").write_bytes(b"x")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("x")
    (folder / "broken.yaml").write_text("input: x\nembed: {model: demo\nselect: 3\n")
    (folder / "empty.yaml").write_text("")
    (folder / "text.npy").write_text("x")
    return folder


def config(place, change):
    values = {
        "input": f"{place}/pool",
        "work_dir": f"{place}/work",
        "output": f"{place}/out",
        "embed": {"model": "demo"},
        "select": {"fraction": 0.3},
    }
    path = place / "run.yaml"
    path.write_text(
        yaml.safe_dump({name: value for name, value in (values | change).items() if value is not None})
    )
    return str(path)


CONFIGURED = [
    ({"selct": {}}, "{yaml}: line N: unknown key selct; did you mean select?"),
    (
        {"select": {"fracton": 0.3}},
        "{yaml}: line N: unknown key select.fracton; did you mean select.fraction?",
    ),
    (
        {"input": None},
        "{yaml}: input is missing; expected, for example, input: s3://pool/{{00000000..00000012}}.tar",
    ),
    ({"select": None}, "{yaml}: select is missing; expected, for example, select: {{fraction: 0.3}}"),
    (
        {"embed": {}},
        "embed.model is missing: {place}/pool/00000000.tar is a tar, and its images need a model; "
        "`d2prune models` lists the names, and embed.model=demo is bundled to try things out",
    ),
    (
        {"select": {"fraction": 30}},
        "{yaml}: line N: select.fraction = 30: expected a number above 0 and up to 1, or null; 0.3 means 30%",
    ),
    (
        {"select": {"fraction": "30%"}},
        "{yaml}: line N: select.fraction = '30%': expected a number above 0 and up to 1, or null; "
        "0.3 means 30%",
    ),
    (
        {"select": {"fraction": 0.3, "size": 5}},
        "{yaml}: line N: select: expected exactly one of fraction, size, min_score; found fraction, size",
    ),
    (
        {"graph": {"n_neighbors": 0}},
        "{yaml}: line N: graph.n_neighbors: found 0; expected a whole number from 1 to 1,024, since "
        "select.method d2 uses the graph",
    ),
    # Both are reported before anything is embedded.
    (
        {"score": {"difficulty": "aesthetic"}},
        "{yaml}: line N: score.difficulty: unknown score 'aesthetic'; expected one of "
        "clip_score, width, "
        "height, s_clip_loss, norm_sim_2, norm_sim_inf, near_target, or a number of "
        "embed.fields, as in embed: {{fields: {{aesthetic: number}}}}",
    ),
    (
        {"select": {"fraction": 0.3, "groups": "language"}},
        "{yaml}: line N: select.groups: unknown column 'language'; expected shard, or a text of "
        "embed.fields, as in embed: {{fields: {{language: text}}}}",
    ),
    (
        {"embed": {"model": "ViT-B32", "pretrained": "openai"}},
        "embed.model = ViT-B32: unknown, did you mean ViT-B-32?; list them with d2prune models",
    ),
    (
        {"input": "s3://"},
        "{yaml}: line N: input = 's3://': expected a bucket after //, as in s3://bucket/folder",
    ),
    (
        {"output": "{place}/work/"},
        "{yaml}: line N: output: found {place}/work/, the work_dir; expected another folder",
    ),
    ({"input": "{place}/nothing"}, "input {place}/nothing: does not exist"),
    (
        {"input": "{place}/pictures"},
        "input {place}/pictures: found 1 .jpg; expected tars; NAME.parquet with NAME.npz beside "
        "it (DataComp's "
        "metadata); img_emb/, text_emb/ and metadata/ (clip-retrieval); NAME.parquet with "
        "NAME.image_emb.npy or "
        "NAME.npy beside it; parquet with columns of embeddings",
    ),
    ({"input": "{place}/pool/*.tgz"}, "input {place}/pool/*.tgz: no tar matches"),
    (
        {"input": "{place}/pool/{{00000000..00000002}}.tar"},
        "input {place}/pool/00000002.tar: does not exist (of 3 named by "
        "{place}/pool/{{00000000..00000002}}.tar)",
    ),
    (
        {"output": "{place}/mine"},
        "output {place}/mine is not empty and has no claim of a d2prune run (found thesis.txt); "
        "expected an empty folder",
    ),
    (
        {"work_dir": "/proc/none/work"},
        "/proc/none/work/.lease/00000001.json: cannot be written, its folder cannot be made: "
        "[Errno 2] No such file or directory: '/proc/none'",
    ),
]


def fill(value, place):
    """Replace the placeholders in a value and everything below it."""
    if isinstance(value, str):
        return value.format(place=place, yaml=f"{place}/run.yaml")
    return {name: fill(inner, place) for name, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(("change", "line"), CONFIGURED, ids=lambda value: str(value)[:60])
def test_configuration_errors(place, capsys, change, line):
    path = config(place, fill(change, place))
    before = tree(place)
    assert main(["run", "--config", path, "--no-ray"]) == 2
    assert re.sub(r"line \d+:", "line N:", capsys.readouterr().err) == f"d2prune: {fill(line, place)}\n"
    assert tree(place) == before


def test_tar_with_all_images_before_all_captions():
    """`tar cf x.tar *.jpg *.txt` separates the image and the caption of every sample."""
    counters = {"read": 8, "rejected": 8, "rejected.image-missing": 4, "rejected.caption-missing": 4}
    with pytest.raises(UserError) as raised:
        check_reject_rate(counters, 0.2)
    assert str(raised.value) == (
        "8 of 8 samples were rejected (100.0%; 4 image-missing, 4 caption-missing), "
        "embed.max_reject_rate is 20.0%; "
        "the members of a sample must be adjacent in the tar: create it with tar --sort=name"
    )


COMMANDS = [
    (
        "run --config {place}/none.yaml",
        "{place}/none.yaml: cannot be read: [Errno 2] No such file or directory: '{place}/none.yaml'",
    ),
    (
        "run --config {place}/broken.yaml",
        "{place}/broken.yaml: invalid YAML: line 3, column 7: expected ',' or '}}', but got ':'",
    ),
    (
        "run --config {place}/empty.yaml",
        "{place}/empty.yaml: expected keys such as input, work_dir and output; found an empty file",
    ),
    (
        "run --config {yaml} --set select.fraction",
        "--set select.fraction: expected KEY=VALUE, as in select.fraction=0.3",
    ),
    ("run --config {yaml} --workers 0", "--workers: found 0; expected a whole number from 1 to 100,000"),
    ("verify {place}/nothing", "output {place}/nothing: not found"),
    (
        "reshard --subset {place}/none.npy --input {place}/pool --output {place}/o",
        "subset file {place}/none.npy: not found",
    ),
    (
        "reshard --subset {place}/text.npy --input {place}/pool --output {place}/o",
        "subset file {place}/text.npy: found 1 bytes that are neither .npy nor rows of 16 bytes",
    ),
    (
        "explain {place}/pool abc",
        "{place}/pool: found no finished selection (select/*/manifest.json); expected the "
        "work_dir of a run that "
        "reached `select`",
    ),
    (
        "sweep --config {yaml} --fractions 10,30",
        "--fractions: found 10; expected a number above 0 and up to 1",
    ),
    (
        "sweep --config {yaml} --no-ray",
        "{place}/work: found no embeddings for these settings; run `d2prune run --config ... "
        "--stop-after graph` "
        "first",
    ),
]


@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=lambda value: value[:60])
def test_command_errors(place, capsys, command, line):
    config(place, {})
    before = tree(place)
    assert main(fill(command, place).split()) == 2
    assert capsys.readouterr().err == f"d2prune: {fill(line, place)}\n"
    assert tree(place) == before
