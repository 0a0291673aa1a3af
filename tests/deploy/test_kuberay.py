"""What the overlays of deploy/kuberay render matches its schemas, and is set in one place each.

The overlays are rendered by kubectl or kustomize; without either, their checks are skipped. KubeRay's
CRDs are read from the folder in D2PRUNE_KUBERAY_CRDS, or from shared/data/kuberay-crds beside the
repository; without them, rendered manifests are checked against Kubernetes only.
"""

import functools
import http.server
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from d2prune.config.model import RunConfig
from tests.docs.commands import commands

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = DEPLOY / "kuberay"
CRDS = Path(os.environ.get("D2PRUNE_KUBERAY_CRDS") or ROOT.parent / "shared" / "data" / "kuberay-crds")
OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())


def switch_on(path: Path) -> None:
    """Add the components that the comments of an overlay offer."""
    path.write_text(path.read_text().replace("# - ../../components/", "- ../../components/"))


def build(folder: Path) -> list[dict[str, Any]]:
    """The manifests of a kustomization."""
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize", str(folder)]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build", str(folder)]
    else:
        pytest.skip("found neither kubectl nor kustomize")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


@functools.cache
def render(overlay: str, everything: bool = False) -> list[dict[str, Any]]:
    """The manifests of an overlay, if wanted with the components that its comments offer."""
    if not everything:
        return build(KUBERAY / "overlays" / overlay)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(KUBERAY, Path(place, "kuberay")), "overlays", overlay)
        switch_on(folder / "kustomization.yaml")
        return build(folder)


@pytest.fixture(params=[(name, whole) for name in OVERLAYS for whole in (False, True)], ids=str)
def rendered(request):
    """The manifests of each overlay, as it is and with all components."""
    return render(*request.param)


def find(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only manifest of a kind."""
    (found,) = (one for one in manifests if one["kind"] == kind)
    return found


def run_of(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The specification of the run, once or on a schedule."""
    by_kind = {one["kind"]: one for one in manifests}
    if "RayJob" in by_kind:
        return by_kind["RayJob"]["spec"]
    return by_kind["RayCronJob"]["spec"]["jobTemplate"]


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


def settings() -> dict[str, str]:
    lines = (KUBERAY / "settings" / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


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


@functools.cache
def schema_of(kind: str) -> Any:
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.is_file():
        return None
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    (version,) = (version for version in versions if version["name"] == "v1")
    strict = close(version["schema"]["openAPIV3Schema"])
    strict["properties"]["metadata"].pop("additionalProperties", None)
    return jsonschema.Draft202012Validator(strict)


def check(manifest: dict[str, Any]) -> None:
    """Compare a manifest with its schema."""
    kind = manifest["kind"]
    if kind in ("RayJob", "RayCronJob"):
        if schema := schema_of(kind):
            schema.validate(manifest)
    elif kind != "PodMonitor":
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_schemas_accept_every_manifest(rendered):
    for manifest in rendered:
        check(manifest)


@pytest.mark.parametrize("kind", ["RayJob", "RayCronJob"])
def test_unknown_and_wrong_fields_are_found(kind):
    if not schema_of(kind):
        pytest.skip(f"found no {CRDS}")
    manifest = find(render("cpu" if kind == "RayJob" else "raycronjob"), kind)
    for change in ({"entrypont": "x"}, {"activeDeadlineSeconds": "7"}):
        spec = dict(manifest["spec"])
        if kind == "RayJob":
            spec |= change
        else:
            spec["jobTemplate"] = spec["jobTemplate"] | change
        with pytest.raises(jsonschema.ValidationError):
            check(manifest | {"spec": spec})


def test_kubernetes_accepts_the_pods(rendered):
    secret = yaml.safe_load((KUBERAY / "base" / "secret.example.yaml").read_text())
    check(secret)
    specs = list(pods(run_of(rendered)))
    assert len(specs) == 2 + len(run_of(rendered)["rayClusterSpec"]["workerGroupSpecs"])
    for spec in specs:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        check(pod)
        assert spec["securityContext"]["runAsNonRoot"] and spec["serviceAccountName"] == "d2prune"
        for container in spec["containers"]:
            assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
            assert all("KEY" not in one["name"] for one in container.get("env", [])), "keys are in a Secret"
            if container["name"] != "ray-job-submitter":
                (reference,) = container["envFrom"]
                assert reference["secretRef"] == {"name": secret["metadata"]["name"], "optional": True}
                assert {"containerPort": 8080, "name": "metrics"} in container["ports"]


def test_every_account_pulls_with_the_secret(rendered):
    accounts = [one for one in rendered if one["kind"] == "ServiceAccount"]
    used = {spec["serviceAccountName"] for one in rendered for spec in pods(one)}
    assert used == {one["metadata"]["name"] for one in accounts}
    assert all(one["imagePullSecrets"] == [{"name": "d2prune-registry"}] for one in accounts)


def test_everything_is_in_one_namespace(rendered):
    assert {one["metadata"].get("namespace") for one in rendered} == {"d2prune"}
    for one in rendered:
        assert all(subject["namespace"] == "d2prune" for subject in one.get("subjects", []))


def test_references_exist(rendered):
    names = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    for spec in (spec for one in rendered for spec in pods(one)):
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for container in spec["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= volumes.keys()
            if "weights" in volumes:
                environment = {one["name"]: one["value"] for one in container["env"]}
                (mount,) = (one for one in container["volumeMounts"] if one["name"] == "weights")
                assert environment["HF_HOME"] == mount["mountPath"]
                assert environment["NUMBA_CACHE_DIR"] == f"{mount['mountPath']}/kernels"
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names


@pytest.mark.parametrize("name", OVERLAYS)
def test_weights_component_reaches_every_ray_pod(name):
    assert "PersistentVolumeClaim" not in {one["kind"] for one in render(name)}
    for spec in pods(run_of(render(name, True))["rayClusterSpec"]):
        (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "weights")
        assert volume == {"name": "weights", "persistentVolumeClaim": {"claimName": "d2prune-weights"}}


def test_each_setting_has_one_place_and_reaches_the_manifests(tmp_path):
    """Change every setting; nothing of its old value is left."""
    copy = tmp_path / "kuberay"
    shutil.copytree(KUBERAY, copy)
    changed = {}
    for number, (key, value) in enumerate(settings().items(), 1):
        digits = re.search(r"\d+", value)
        changed[key] = (
            f"Place/Zone{number}"
            if key == "time_zone"
            else (
                value.replace(digits[0], f"{50 if key == 'schedule' else 7000 + number}", 1)
                if digits
                else value
            )
        )
        if key.endswith("image"):
            changed[key] = f"other.example/image{number}:1"
    lines = [f"{key}={value}\n" for key, value in changed.items()]
    (copy / "settings" / "settings.env").write_text("".join(lines))
    one_place = copy / "settings" / "kustomization.yaml"
    one_place.write_text(one_place.read_text().replace("\nnamespace: d2prune\n", "\nnamespace: elsewhere\n"))
    manifests: list[dict[str, Any]] = []
    for name in OVERLAYS:
        overlay = copy / "overlays" / name
        switch_on(overlay / "kustomization.yaml")
        manifests += [one for one in build(overlay) if one["metadata"]["name"] != "d2prune-settings"]
    assert {one["metadata"]["namespace"] for one in manifests} == {"elsewhere"}
    assert "RayJob" not in {one["kind"] for one in build(copy / "overlays" / "raycronjob")}
    values = [str(value) for value in _leaves(manifests)]
    for key, value in changed.items():
        assert value in values, key
    assert not {"d2prune-cpu", "d2prune-gpu", settings()["deadline_seconds"]} & set(values)
    assert not [value for value in values if "registry.example.com" in value]
    for path in KUBERAY.rglob("*.yaml"):
        assert "registry.example.com" not in path.read_text(), path


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def test_deadline_fits_the_longest_run_of_the_plan():
    text = (ROOT / "docs" / "operations.md").read_text()
    hours = [float(found) for found in re.findall(r"\| ([\d.]+) h \|", text)]
    assert len(hours) >= 3 and int(settings()["deadline_seconds"]) >= 1.5 * 3600 * max(hours)
    assert run_of(render("cpu"))["activeDeadlineSeconds"] == int(settings()["deadline_seconds"])


@pytest.mark.parametrize("everything", [False, True])
def test_scheduled_runs_equal_single_runs(everything):
    job = run_of(render("spot", everything))
    assert job == run_of(render("raycronjob", everything))
    assert job | {"suspend": True} == run_of(render("cronjob", everything))
    groups = {group["groupName"]: group for group in job["rayClusterSpec"]["workerGroupSpecs"]}
    assert "spot" in str(groups["gpu"]["template"]["spec"]["nodeSelector"])
    assert "on-demand" in str(job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelector"])
    assert job["ttlSecondsAfterFinished"] and job["shutdownAfterJobFinishes"]
    assert "RayJob" not in {one["kind"] for one in render("raycronjob")}


def test_cpu_and_gpu_overlays_differ_in_the_gpu_workers():
    names = ("cpu", "gpu", "spot")
    cpu, gpu, spot = (run_of(render(name))["rayClusterSpec"]["workerGroupSpecs"] for name in names)
    assert [group["groupName"] for group in cpu] == ["cpu"]
    assert gpu[:1] == cpu and spot[:1] == cpu and gpu[1]["groupName"] == "gpu"
    (container,) = gpu[1]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nodeSelector" not in gpu[1]["template"]["spec"]


def test_monitor_selects_the_labels_and_port_of_kuberay():
    monitor = find(render("spot", True), "PodMonitor")["spec"]
    assert monitor["selector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    assert [one["port"] for one in monitor["podMetricsEndpoints"]] == ["metrics"]
    assert "PodMonitor" not in {one["kind"] for one in render("spot")}


def test_cron_job_starts_a_copy_of_the_suspended_run(tmp_path):
    manifests = render("cronjob")
    (container,) = next(pods(find(manifests, "CronJob")))["containers"]
    _, script, name = container["command"]
    (mount,) = container["volumeMounts"]
    (scripts,) = (one for one in manifests if one["metadata"]["name"] == "d2prune-start")
    assert f"{mount['mountPath']}/{next(iter(scripts['data']))}" == script
    (tmp_path / "start_run.py").write_text(scripts["data"]["start_run.py"])
    for file, text in (("token", "secret\n"), ("namespace", "d2prune")):
        (tmp_path / file).write_text(text)
    suspended, requests = find(manifests, "RayJob"), []

    class ApiServer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(suspended)

        def do_POST(self):
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, document):
            requests.append((self.command, self.path, self.headers["Authorization"], document))
            name = document["metadata"].get("name", "d2prune-x7k2p")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document | {"metadata": {"name": name}}).encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), ApiServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = runpy.run_path(str(tmp_path / "start_run.py"))["start"]
        assert start(name, f"http://127.0.0.1:{server.server_port}", tmp_path) == "d2prune-x7k2p"
        server.shutdown()
    (get, post) = requests
    folder = "/apis/ray.io/v1/namespaces/d2prune/rayjobs"
    assert get[:3] == ("GET", f"{folder}/d2prune", "Bearer secret")
    assert post[:3] == ("POST", folder, "Bearer secret")
    check(post[3])
    assert post[3]["metadata"]["generateName"] == "d2prune-"
    assert post[3]["spec"] == suspended["spec"] | {"suspend": False}
    rules = find(manifests, "Role")["rules"]
    assert rules == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]


def test_job_reads_the_mounted_configuration():
    manifests = render("gpu")
    (config,) = (one for one in manifests if one["metadata"]["name"] == "d2prune-config")
    (name,) = config["data"]
    parsed = RunConfig.parse(yaml.safe_load(config["data"][name]), name)
    assert parsed.output.endswith("/{run_id}") and parsed.ray.num_gpus == 1
    for spec in pods(run_of(manifests)["rayClusterSpec"]["headGroupSpec"]):
        (mount,) = (one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "config")
        assert f"{mount['mountPath']}/{name}" in run_of(manifests)["entrypoint"]
        (volume,) = (one for one in spec["volumes"] if one["name"] == "config")
        assert volume["configMap"]["name"] == config["metadata"]["name"]


def test_versions_and_images_are_those_of_the_build():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (pinned,) = (line.removeprefix("ray==") for line in lines if line.startswith("ray=="))
    assert run_of(render("cpu"))["rayClusterSpec"]["rayVersion"] == pinned
    # What build.sh makes of one name.
    names = [settings()["image"], settings()["gpu_image"]]
    assert [name.rpartition("-")[2] for name in names] == ["cpu", "gpu"]
    assert len({name.rpartition("-")[0] for name in names}) == 1 and ":" in names[0]


@pytest.mark.parametrize(
    "text", [step.text for step in commands() if step.text.startswith("kubectl ")], ids=lambda text: text[:40]
)
def test_options_and_files_of_documented_commands_exist(text):
    if not shutil.which("kubectl"):
        pytest.skip("found no kubectl")
    words = shlex.split(re.sub(r'"\$\((.*)\)"', r"\1", text))
    verbs = itertools.takewhile(lambda word: not word.startswith("-"), words[1:3])
    command = ["kubectl", *(("create", "secret", words[3]) if words[2] == "secret" else verbs), "--help"]
    known = subprocess.run(command, capture_output=True, text=True).stdout
    known += "--namespace --selector --output"  # of every command, or of the inner one
    for word in words:
        assert not re.match(r"--\w", word) or word in known, word
        assert not word.startswith("deploy/") or (ROOT / word).exists(), word
