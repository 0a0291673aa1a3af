"""Every flag, path and version in deploy/ exists, and Ray's launcher accepts its file."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import yaml

from d2prune.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGE_FOLDER = "/home/ray/d2prune/"


def test_ray_accepts_the_cluster():
    import ray.autoscaler

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    config = yaml.safe_load((DEPLOY / "aws" / "cluster.yaml").read_text())
    jsonschema.validate(config, schema)
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert [name for name, kind in types.items() if "InstanceMarketOptions" in kind["node_config"]] == [
        "gpu-spot"
    ]
    assert config["max_workers"] == sum(kind.get("max_workers", 0) for kind in types.values())
    assert all("IamInstanceProfile" in kind["node_config"] for kind in types.values())


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command in manifests that runs a job script, also in comments."""
    for path in sorted(DEPLOY.rglob("*.yaml")):
        if path.is_file():
            for line in path.read_text().splitlines():
                if found := re.search(r"python (\S*jobs/\S+\.py)([^'|]*)", line):
                    yield found[1], shlex.split(found[2])


def test_every_script_and_flag_exists():
    found = list(commands())
    assert len(found) >= 2
    for script, flags in found:
        assert (ROOT / script.removeprefix(IMAGE_FOLDER)).is_file(), script
        build_parser().parse_args(["run", *flags])


def test_files_named_in_comments_and_builds_exist():
    named = []
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            named += re.findall(r"\bdeploy/[\w./-]+\.\w+", path.read_text())
        if path.suffix == ".Dockerfile":
            copies = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("COPY")]
            named += [name for words in copies for name in words if not name.startswith("--")][:-1]
    assert len(named) > 10
    for name in named:
        assert name == "./" or (ROOT / name).exists(), name
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"pipeline", "jobs", "constraints.txt", "pyproject.toml"} <= allowed


def test_images_and_manifests_agree_about_ray_and_are_pinned():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    for path in sorted((DEPLOY / "docker").glob("*.Dockerfile")):
        text = path.read_text()
        (base,) = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
        assert re.fullmatch(rf"rayproject/ray:{re.escape(pins['ray'])}-py3\d+-(cpu|cu\d+)", base)
        assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "ray"
        assert all("-c constraints.txt" in line for line in re.findall(r"pip install(?:[^\n]|\\\n)*", text))
