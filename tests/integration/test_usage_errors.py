"""Usage errors: one line, exit code 2, and nothing is written."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from d2prune.cli.main import main
from d2prune.execution import InProcess
from d2prune.runs.driver import run
from tests.pools import tree


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"input": "/no/such/folder"}, "/no/such/folder"),
        ({"input": "{folder}/*.tarr"}, ".tarr"),
        ({"input": "{folder}/{{00000000..00000009}}.tar"}, "00000004.tar"),
        ({"input": "s3://no-such-bucket-here/x.tar"}, "s3://no-such-bucket-here/x.tar"),
        ({"embed": {"model": "VIT-B-32", "pretrained": "openai"}}, "ViT-B-32"),
        ({"embed": {"model": "ViT-B-32", "pretrained": "opnai"}}, "openai"),
        ({"embed": {"model": "ViT-B-32"}}, "pretrained"),
        ({"select": {"fraction": 1.2}}, "select.fraction = 1.2"),
        ({"select": {"fracton": 0.2}}, "did you mean select.fraction?"),
        ({"score": {"difficulty": "beauty"}}, "unknown score 'beauty'"),
        ({"select": {"size": 10_000}}, "select.size is 10000 samples, but only 160 are ranked"),
        ({"select": {"min_score": 1e6}}, "select.min_score 1000000.0 keeps no sample: the highest score is"),
        ({"select": {"fraction": 0.3, "groups": "colour"}}, "select.groups: unknown column 'colour'"),
        ({"graph": {"nprobe": 5, "target_recall": 0.9}}, "expected target_recall or nprobe, not both"),
    ],
)
def test_one_line_and_exit_code_2(settings, pool, tmp_path, capsys, monkeypatch, change, line):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("D2PRUNE_STORAGE_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    if isinstance(change.get("input"), str):
        change = {"input": change["input"].format(folder=pool)}
    config_file = tmp_path / "run.yaml"
    config_file.write_text(yaml.safe_dump(settings | change))
    code = main(["run", "--config", str(config_file), "--no-ray"])
    shown = [text for text in capsys.readouterr().err.splitlines() if text.startswith("d2prune: ")]
    assert len(shown) == 1 and line in shown[0]
    if not str(change.get("input", "")).startswith("s3:"):
        assert code == 2
    assert not (tmp_path / "output").exists()


def test_output_of_another_run_is_refused_before_any_work(configure, settings, tmp_path, capsys):
    run(configure(), InProcess())
    before = tree(tmp_path)
    config_file = Path(tmp_path, "..", f"{tmp_path.name}.yaml")
    config_file.write_text(
        yaml.safe_dump(settings | {"select": {"fraction": 0.2}, "graph": {"n_neighbors": 3}})
    )
    assert main(["run", "--config", str(config_file), "--no-ray"]) == 2
    assert "holds another run's data" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_installed_command_runs_in_any_folder(tmp_path):
    result = subprocess.run(
        [Path(sys.executable).parent / "d2prune", "run", "--config", "none.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert (
        result.stderr
        == "d2prune: none.yaml: cannot be read: [Errno 2] No such file or directory: 'none.yaml'\n"
    )
