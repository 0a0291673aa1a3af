"""The mistakes that users are likeliest to make, each with the exact line it gets: what is wrong, and what to do.

Those that need a model or a run are in test_mistakes.py.
"""

import pytest
import yaml

from d2prune.cli.main import main
from d2prune.embed.worker import check_reject_rate
from d2prune.errors import UserError
from tests.pools import tree, write_pool


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders to be wrong about."""
    folder = tmp_path_factory.mktemp("tour")
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
    ({"selct": {}}, "{yaml}: unknown key selct; did you mean select?"),
    ({"select": {"fracton": 0.3}}, "{yaml}: unknown key select.fracton; did you mean select.fraction?"),
    (
        {"input": None},
        "{yaml}: input is missing; expected such as input: s3://pool/{{00000000..00000012}}.tar",
    ),
    ({"select": None}, "{yaml}: select is missing; expected such as select: {{fraction: 0.3}}"),
    (
        {"embed": {}},
        "embed.model is missing: {place}/pool/00000000.tar is a tar, and its images need a model; "
        "`d2prune models` lists the names, and embed.model=demo is bundled to try things out",
    ),
    (
        {"select": {"fraction": 30}},
        "{yaml}: select.fraction = 30: input should be less than or equal to 1; 0.3 means 30 %",
    ),
    (
        {"select": {"fraction": "30%"}},
        "{yaml}: select.fraction = '30%': input should be a valid number, unable to parse string as a number; "
        "0.3 means 30 %",
    ),
    (
        {"select": {"fraction": 0.3, "size": 5}},
        "{yaml}: select: expected exactly one of fraction, size, min_score; got fraction, size",
    ),
    (
        {"graph": {"n_neighbors": 0}},
        "{yaml}: graph.n_neighbors = 0: input should be greater than or equal to 1",
    ),
    # Both are found before anything is embedded, not after.
    (
        {"score": {"difficulty": "aesthetic"}},
        "{yaml}: configuration: score.difficulty: no score is called 'aesthetic'; known: clip_score, width, height, "
        "and numbers of embed.fields, as in embed: {{fields: {{aesthetic: number}}}}",
    ),
    (
        {"select": {"fraction": 0.3, "groups": "language"}},
        "{yaml}: configuration: select.groups: 'language' is no column; expected shard or a text of "
        "embed.fields, as in embed: {{fields: {{language: text}}}}",
    ),
    (
        {"embed": {"model": "ViT-B32", "pretrained": "openai"}},
        "embed.model = ViT-B32: unknown, did you mean ViT-B-32?; list them with d2prune models",
    ),
    ({"input": "s3://"}, "{yaml}: input = 's3://': expected a bucket after //, as in s3://bucket/folder"),
    (
        {"output": "{place}/work/"},
        "{yaml}: configuration: output and work_dir are both {place}/work/; expected a folder of its own for the "
        "output",
    ),
    ({"input": "{place}/nothing"}, "input {place}/nothing: does not exist"),
    (
        {"input": "{place}/pictures"},
        "input {place}/pictures: found 1 .jpg; expected tars; NAME.parquet with NAME.npz beside it (DataComp's "
        "metadata); img_emb/, text_emb/ and metadata/ (clip-retrieval); NAME.parquet with NAME.image_emb.npy or "
        "NAME.npy beside it; parquet with columns of embeddings",
    ),
    ({"input": "{place}/pool/*.tgz"}, "input {place}/pool/*.tgz: no tar matches"),
    (
        {"input": "{place}/pool/{{00000000..00000002}}.tar"},
        "input {place}/pool/00000002.tar: does not exist (of 3 named by {place}/pool/{{00000000..00000002}}.tar)",
    ),
    (
        {"output": "{place}/mine"},
        "output {place}/mine is not empty and no run of d2prune claims it (thesis.txt and 0 more); expected an empty "
        "folder",
    ),
    (
        {"work_dir": "/proc/none/work"},
        "/proc/none/work/.lease/00000001.json: cannot be written, its folder cannot be made: "
        "/proc/none/work/.lease/00000001.json: not found",
    ),
]


def filled(value, place):
    if isinstance(value, str):
        return value.format(place=place, yaml=f"{place}/run.yaml")
    return {name: filled(inner, place) for name, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(("change", "line"), CONFIGURED, ids=lambda value: str(value)[:60])
def test_a_wrong_configuration(place, capsys, change, line):
    path = config(place, filled(change, place))
    before = tree(place)
    assert main(["run", "--config", path, "--no-ray"]) == 2
    assert capsys.readouterr().err == f"d2prune: {filled(line, place)}\n"
    assert tree(place) == before


def test_a_tar_with_all_pictures_before_all_captions():
    """`tar cf x.tar *.jpg *.txt`: each sample falls into two halves."""
    counters = {"read": 8, "rejected": 8, "rejected.image-missing": 4, "rejected.caption-missing": 4}
    with pytest.raises(UserError) as told:
        check_reject_rate(counters, 0.2)
    assert str(told.value) == (
        "8 of 8 samples were rejected (100.0%; 4 image-missing, 4 caption-missing), embed.max_reject_rate is 20.0%; "
        "the members of a sample must be adjacent in the tar: create it with tar --sort=name"
    )


COMMANDS = [
    (
        "run --config {place}/none.yaml",
        "{place}/none.yaml: the configuration cannot be read: [Errno 2] No such file or directory: '{place}/none.yaml'",
    ),
    (
        "run --config {place}/broken.yaml",
        "{place}/broken.yaml: not YAML: line 3, column 7: expected ',' or '}}', but got ':'",
    ),
    (
        "run --config {place}/empty.yaml",
        "{place}/empty.yaml: expected keys such as input, work_dir and output; got an empty file",
    ),
    (
        "run --config {yaml} --set select.fraction",
        "--set select.fraction: expected KEY=VALUE, as in select.fraction=0.3",
    ),
    ("run --config {yaml} --workers 0", "{yaml}: ray.workers = 0: input should be greater than 0"),
    ("verify {place}/nothing", "output {place}/nothing: not found"),
    (
        "reshard --subset {place}/none.npy --input {place}/pool --output {place}/o",
        "subset file {place}/none.npy: not found",
    ),
    (
        "reshard --subset {place}/text.npy --input {place}/pool --output {place}/o",
        "subset file {place}/text.npy: 1 bytes are neither .npy nor rows of 16 bytes",
    ),
    (
        "explain {place}/pool abc",
        "{place}/pool: no finished selection (select/*/manifest.json); expected the work_dir of a run that reached "
        "`select`",
    ),
    ("sweep --config {yaml} --fractions 10,30", "--fractions 10.0: expected 0 < fraction <= 1"),
    (
        "sweep --config {yaml} --no-ray",
        "{place}/work: the pool is not embedded yet with these settings; run `d2prune run --config ... --stop-after "
        "graph` first",
    ),
]


@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=lambda value: value[:60])
def test_a_wrong_command(place, capsys, command, line):
    config(place, {})
    before = tree(place)
    assert main(filled(command, place).split()) == 2
    assert capsys.readouterr().err == f"d2prune: {filled(line, place)}\n"
    assert tree(place) == before
