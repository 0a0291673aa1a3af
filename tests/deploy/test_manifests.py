"""Files in deploy/ match their schemas, and every flag, path and metric in them exists.

KubeRay's CRDs are read from the folder in D2PRUNE_KUBERAY_CRDS; if unset, those checks are skipped.
"""

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from d2prune.cli.parser import build_parser
from d2prune.config.model import RunConfig
from d2prune.execution import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = sorted((DEPLOY / "kuberay").glob("*.yaml"))
IMAGE_FOLDER = "/home/ray/d2prune/"
METRICS = set(metrics.DESCRIPTIONS)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def kinds(*wanted: str) -> list[Any]:
    found = [
        (path, document) for path in KUBERAY for document in documents(path) if document["kind"] in wanted
    ]
    return [pytest.param(document, id=f"{path.name}-{document['kind']}") for path, document in found]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod spec below a manifest."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


def ray_job(name: str) -> dict[str, Any]:
    (document,) = documents(DEPLOY / "kuberay" / name)
    return document["spec"] if document["kind"] == "RayJob" else document["spec"]["jobTemplate"]


@pytest.mark.parametrize("document", kinds("RayJob", "RayCronJob"))
def test_kuberay_accepts_it(document):
    folder = os.environ.get("D2PRUNE_KUBERAY_CRDS")
    if not folder:
        pytest.skip("D2PRUNE_KUBERAY_CRDS names no folder")
    crd = yaml.safe_load(Path(folder, f"ray.io_{document['kind'].lower()}s.yaml").read_text())
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    strict = close(version["schema"]["openAPIV3Schema"])
    metadata = strict["properties"]["metadata"]
    metadata.pop("additionalProperties", None)
    jsonschema.validate(document, strict)


def close(schema: Any) -> Any:
    """The schema, changed to refuse unknown keys."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: close(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return closed


@pytest.mark.parametrize("document", kinds("ServiceAccount", "ConfigMap", "Role", "RoleBinding", "CronJob"))
def test_kubernetes_accepts_it(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("document", kinds("RayJob", "RayCronJob"))
def test_kubernetes_accepts_the_pods(document):
    specs = list(pods(document))
    assert len(specs) == 3
    for spec in specs:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert spec["securityContext"]["runAsNonRoot"] and spec["serviceAccountName"] == "d2prune"
        for container in spec["containers"]:
            assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
            assert not container.get("env"), "a manifest must not contain keys"


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


def test_scheduled_runs_equal_single_runs():
    assert ray_job("rayjob.yaml") == ray_job("raycronjob.yaml")
    job = ray_job("rayjob.yaml")
    groups = {group["groupName"]: group for group in job["rayClusterSpec"]["workerGroupSpecs"]}
    assert "spot" in str(groups["gpu-spot"]["template"]["spec"]["nodeSelector"])
    assert "on-demand" in str(job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelector"])
    assert job["ttlSecondsAfterFinished"] and job["activeDeadlineSeconds"] and job["shutdownAfterJobFinishes"]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command in deploy/ that runs a job script, also in comments."""
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            for line in path.read_text().splitlines():
                if found := re.search(r"python (\S*jobs/\S+\.py)([^'|]*)", line):
                    yield found[1], shlex.split(found[2])


def test_every_script_and_flag_exists():
    found = list(commands())
    assert len(found) >= 3
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
    for path in sorted((DEPLOY / "docker").iterdir()):
        text = path.read_text()
        (base,) = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
        assert re.fullmatch(rf"rayproject/ray:{re.escape(pins['ray'])}-py3\d+-(cpu|cu\d+)", base)
        assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "ray"
        assert all("-c constraints.txt" in line for line in re.findall(r"pip install(?:[^\n]|\\\n)*", text))
    assert ray_job("rayjob.yaml")["rayClusterSpec"]["rayVersion"] == pins["ray"]
    for name in ("rayjob.yaml", "raycronjob.yaml", "cronjob.yaml"):
        images = re.findall(r"image: (\S+)", (DEPLOY / "kuberay" / name).read_text())
        assert images and all(":" in image and not image.endswith(":latest") for image in images)


def test_job_reads_the_mounted_configuration():
    (config,) = [
        document
        for document in documents(DEPLOY / "kuberay" / "config.yaml")
        if document["kind"] == "ConfigMap"
    ]
    (name,) = config["data"]
    parsed = RunConfig.parse(yaml.safe_load(config["data"][name]), name)
    assert parsed.output.endswith("/{run_id}") and parsed.ray.num_gpus == 1
    for spec in pods(ray_job("rayjob.yaml")["rayClusterSpec"]["headGroupSpec"]):
        (mount,) = spec["containers"][0]["volumeMounts"]
        assert f"{mount['mountPath']}/{name}" in ray_job("rayjob.yaml")["entrypoint"]
        assert spec["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "d2prune.json").read_text())


def test_dashboard_shows_exactly_the_metrics():
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    variables = [variable["query"] for variable in dashboard()["templating"]["list"]]
    named = set(re.findall(r"\bray_(d2prune_\w+)", " ".join([*expressions, *variables])))
    assert named == METRICS
    assert not re.search(r"(?<!ray_)\bd2prune_", " ".join(expressions))


def test_operations_page_lists_exactly_the_metrics():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"`ray_(d2prune_\w+)", text)) == METRICS


def test_dashboard_is_well_formed():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        position = panel["gridPos"]
        assert 0 <= position["x"] and position["x"] + position["w"] <= 24
        for target in panel["targets"]:
            for opening, closing in ("()", "{}", "[]"):
                assert target["expr"].count(opening) == target["expr"].count(closing)
