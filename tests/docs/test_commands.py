"""Every command in README and docs works, run in the order of its page.

A page is followed as a reader would: its configurations are written to the files that its commands
name, and its commands run on a part of the bundled pool, in buckets of a real S3 server. Only
placeholders (a folder, a range of tars, a model to download) are replaced by what the test has.
Runs do without Ray, which never changes a result; `make demo` and tests/jobs use it.
"""

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from d2prune import store
from d2prune.bundled import POOL_DIR
from d2prune.cli.main import main
from d2prune.cli.parser import build_parser
from d2prune.config.model import RunConfig
from d2prune.demo import s3_server
from d2prune.explore.server import Server
from d2prune.runs import calibrate
from tests.docs.commands import PAGES, ROOT, Step, commands, steps
from tests.jobs.cluster import clean_copy, free_ports
from tests.s3 import moto_server
from tests.tables import make_rows, write_datacomp

NOT_RUN = {
    r"git clone ": "the address is the reader's to fill in",
    r"pip uninstall ": "changes this environment",
    r"(pip|npm) (install|download) |.*apt-get download ": "downloads gigabytes",
    r"make (check|docs|test|quick)$": "steps of CI",
    r"make (evidence|images|dist)\b": "takes minutes, and downloads",
    r"make images$|deploy/docker/build\.sh ": "build images: tests/tools/test_try_images.py",
    r"(helm|kubectl) ": "need a Kubernetes cluster: tests/deploy renders what they apply",
    r"d2prune submit ": "needs a cluster: tests/jobs submits to one",
    r"ray ": "needs a cluster: tests/jobs submits README's command to one",
    r".* ray\.num_gpus=": "needs GPUs",
    r"ssh ": "needs a second machine",
    r"python -m benchmarks\.(?!selection_plot )": "takes minutes to hours; the options are parsed",
}
# Tars and the samples taken from each. UID, which the pages show, is in the second.
SHARDS = {"00000000.tar": range(60), "00000001.tar": range(300, 360)}
UID = "bcc582b3"


def reason_not_to_run(command: str) -> str | None:
    """Why a command is not run; None if it is run."""
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command)), None)


class Reader:
    """Follows pages; later pages use what earlier runs left in `work_dir`."""

    def __init__(self, folder: Path, project: Path, model: Path) -> None:
        self.folder, self.project, self.model, self.json = folder, project, model, ""
        self.configs: dict[str, str] = {}
        self.done: set[str] = set()
        # `make test` runs this one before the tests.
        self.made = {"python -m tests.warm"}

    def follow(self, page: Path) -> list[Step]:
        """Do everything on a page; returns the commands that were run."""
        self.configs, ran = {"run.yaml": README_CONFIG}, []
        if "run-1" not in self.done:
            # The other pages look at README's run.
            self.done.add("run-1")
            self._run_d2prune(README_RUN, shlex.split(README_RUN.text)[1:])
        for step in steps(page):
            if step.kind == "yaml":
                self._configure(step.text)
            elif step.kind == "json":
                self.json = step.text
            elif reason_not_to_run(step.text) is None:
                self._run(step)
                ran.append(step)
        return ran

    def _configure(self, text: str) -> None:
        """A block that names a file is written to it; a block without an input changes run.yaml."""
        values = yaml.safe_load(text)
        if not isinstance(values, dict) or not values.keys() & RunConfig.model_fields.keys():
            return
        if named := re.match(r"# (\w+\.yaml)\n", text):
            self.configs[named[1]] = text
        elif "input" not in values:
            self.configs["run.yaml"] = yaml.safe_dump(yaml.safe_load(self.configs["run.yaml"]) | values)

    def _fill_placeholders(self, text: str) -> str:
        """Replace placeholders with what exists on this machine."""
        text = re.sub(r"\{00000000\.\.\d+\}", "{00000000..00000001}", text)
        text = text.replace("/data/", f"{self.folder}/data/").replace("[--full]", "--full")
        for word, value in {
            "WORK_DIR": "s3://scratch/run-1",
            "OUTPUT": "s3://filtered/run-1",
            "TARS": "s3://pool/",
            "FOLDER": "s3://filtered/resharded",
            "UID": UID,
            "N": "1",
        }.items():
            text = re.sub(rf"(?<![\w.{{-]){word}(?![\w.-])", value, text)
        return text

    def _run(self, step: Step) -> None:
        words = shlex.split(self._fill_placeholders(step.text))
        if words[0] == "d2prune" and words[1] != "demo":
            self._run_d2prune(step, words[1:])
        elif words in (["make", "demo"], ["d2prune", "demo"]):
            self._demo()
        elif words[0] in ("make", "python"):
            self._in_the_project(step, words)
        elif words[0] in ("mkdir", "tar"):
            subprocess.run(words, check=True)
        elif words[0] == "export":
            name, value = words[1].split("=")
            if name.startswith("FSSPEC_S3_"):
                # tests/store/test_s3_options.py sets these.
                return
            assert name in os.environ and value.startswith("http://"), step
            assert store.exists("s3://pool/00000000.tar"), step
        elif words[:2] == ["aws", "s3api"]:
            self._aws(words[2:])
        else:
            raise AssertionError(f"{step}: unknown program, and NOT_RUN gives no reason to skip it")

    def _run_d2prune(self, step: Step, words: list[str]) -> None:
        if words[0] == "init":
            # It replaces no file; the configuration of the page before is one.
            (self.folder / "run.yaml").unlink(missing_ok=True)
        if "--config" in words:
            # A plan with published rates needs the name of the model only.
            keep_model = words[0] == "plan" and "--calibrate" not in words
            self._write_config(words[words.index("--config") + 1], keep_model)
        if "--model" in words:
            words[words.index("--model") + 1] = str(self.model)
        if words[0] in ("run", "sweep") and "--no-ray" not in words:
            words = [*words, "--no-ray"]
        if words[0] == "search" and not {"--like", "--near"} & set(words):
            # The run records only the hash of a model in local files.
            words = [*words, "--model", str(self.model)]
        if "--workers" in words:
            words[words.index("--workers") + 1] = "1"
        if "--port" in words:
            words[words.index("--port") + 1] = str(free_ports(1)[0])
        assert main(words) == 0, step

    def _write_config(self, name: str, keep_model: bool) -> None:
        values = yaml.safe_load(self._fill_placeholders(self.configs[name]))
        if "model" in values.get("embed", {}) and not keep_model:
            values["embed"] = {"model": str(self.model)}
        (self.folder / name).write_text(yaml.safe_dump(values))

    def _demo(self) -> None:
        """Run the demo once, on a part of the pool."""
        if "demo" in self.done:
            return
        self.done.add("demo")
        recipe = re.search(r"^demo: install.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert recipe and recipe[1] == "$(BIN)/d2prune demo"
        script = (
            "import sys, pathlib; from d2prune.demo import demo; from d2prune.cli.main import main\n"
            f"demo.POOL_DIR = pathlib.Path({str(self.folder / 'data/pool')!r}); sys.exit(main(['demo']))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        page = (ROOT / "docs/quickstart.md").read_text()
        shown = re.findall(r"^(\S.*?)  +", re.search(r"```text\n(.*?)```", page, re.DOTALL)[1], re.MULTILINE)
        printed = re.findall(r"^(\S.*?)  +", done.stdout, re.MULTILINE)
        assert [label for label in shown if label not in printed] == []

    def _in_the_project(self, step: Step, words: list[str]) -> None:
        if step.text in self.made:
            return
        self.made.add(step.text)
        if words[0] == "make":
            # Without the installation, and without the fuzz tests themselves, which run beside this one.
            words += ["-o", "install", f"BIN={Path(sys.executable).parent}", "SECONDS=2"]
        words[0] = sys.executable if words[0] == "python" else words[0]
        before = {path: path.read_bytes() for path in self.project.rglob("docs/**/*") if path.is_file()}
        done = subprocess.run(
            words,
            cwd=self.project,
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(self.project / "pipeline"), str(self.project)]),
                "PYTEST_ADDOPTS": "--collect-only",
            },
        )
        assert done.returncode == 0, f"{step}: {done.stderr}"
        assert {path: path.read_bytes() for path in before} == before, (
            f"{step}: it changed files that are checked in"
        )

    def _aws(self, words: list[str]) -> None:
        """Make the request that the AWS command line would make, with the library it uses."""
        from botocore import xform_name
        from botocore.session import get_session

        options = dict(zip(words[1::2], words[2::2], strict=True))
        arguments = {
            "".join(part.capitalize() for part in name[2:].split("-")): json.loads(self.json)
            if value == "file://parts.json"
            else value
            for name, value in options.items()
        }
        with moto_server() as server, pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            server.make_bucket("filtered")
            client = get_session().create_client("s3", region_name="us-east-1", endpoint_url=server.endpoint)
            answer = getattr(client, xform_name(words[0].replace("-", "_")))(**arguments)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


README = steps(ROOT / "README.md")
README_CONFIG = next(step.text for step in README if step.text.startswith("# run.yaml"))
README_RUN = next(step for step in README if step.text.startswith("d2prune run "))


@pytest.fixture(scope="module")
def reader(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("reader")
    pool = folder / "data" / "pool"
    pool.mkdir(parents=True)
    for name, numbers in SHARDS.items():
        with tarfile.open(POOL_DIR / name) as whole, tarfile.open(pool / name, "w") as part:
            for member in whole:
                if int(member.name.split(".")[0]) in numbers:
                    part.addfile(member, whole.extractfile(member))
    (folder / "data" / "images").mkdir()
    with tarfile.open(pool / "00000000.tar") as tar:
        tar.extractall(folder / "data" / "images", filter="data")
    shutil.copy(next((folder / "data" / "images").glob("*.jpg")), folder / "query.jpg")
    np.save(folder / "targets.npy", np.random.default_rng(0).normal(size=(5, 24)))
    before = Path.cwd()
    with s3_server.serve(folder / "s3") as server, s3_server.environment(server):
        for bucket in ("pool", "scratch", "filtered", "datacomp"):
            server.make_bucket(bucket)
        for name in SHARDS:
            for place in ("pool", "datacomp/small/shards"):
                store.write_bytes(f"s3://{place}/{name}", (pool / name).read_bytes())
        metadata = write_datacomp(folder / "metadata", [make_rows(150, 1), make_rows(150, 2)])
        for path in metadata.iterdir():
            store.write_bytes(f"s3://datacomp/small/metadata/{path.name}", path.read_bytes())
        os.chdir(folder)
        try:
            yield Reader(folder, clean_copy(folder / "project"), tiny_model)
        finally:
            os.chdir(before)


@pytest.fixture(autouse=True)
def _explorers_end(monkeypatch):
    """`d2prune explore` serves its page and the run over HTTP, then ends as if by Ctrl-C."""
    forever = Server.serve_forever

    def serve(server: Server) -> None:
        thread = threading.Thread(target=forever, args=(server,))
        thread.start()
        try:
            assert b"<!doctype html>" in urllib.request.urlopen(server.url).read()
            assert json.load(urllib.request.urlopen(f"{server.url}api/run"))["samples"] > 100
            assert urllib.request.urlopen(f"{server.url}image/small/0").status == 200
        finally:
            server.shutdown()
            thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)


@pytest.fixture(autouse=True)
def _calibrations_stay_here(monkeypatch):
    """`d2prune plan --calibrate` starts a process, as tests/estimate shows. It imports everything."""
    monkeypatch.setattr(calibrate, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))


WITH_COMMANDS = [
    page
    for page in PAGES
    if any(step.kind == "command" and not reason_not_to_run(step.text) for step in steps(page))
]


def as_parameter(page: Path) -> object:
    """The page; the demo, which runs on Ray, marks it."""
    demo = any("demo" in step.text for step in steps(page) if step.kind == "command")
    return pytest.param(page, id=page.relative_to(ROOT).as_posix(), marks=[pytest.mark.ray] if demo else [])


@pytest.mark.parametrize("page", [as_parameter(page) for page in WITH_COMMANDS])
def test_commands_of_a_page_work(reader, page):
    assert reader.follow(page)


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_reason_not_to_run_is_used(pattern):
    assert any(re.match(pattern, step.text) for step in commands())


def test_every_page_submits_the_same_job():
    """tests/jobs submits the one in README."""
    assert len({step.text for step in commands() if step.text.startswith("ray job submit ")}) == 1


@pytest.mark.parametrize(
    "step",
    [step for step in commands() if reason_not_to_run(step.text)],
    ids=lambda step: f"{step.page}:{step.line}",
)
def test_commands_that_are_not_run_can_be_parsed(step, monkeypatch):
    """Their options and keys exist."""
    words = shlex.split(step.text)
    if words[0] == "d2prune":
        parsed = build_parser().parse_args(words[1:])
        changes = {name: value for name, value in (change.split("=") for change in parsed.set)}
        for name in changes:
            section, key = name.split(".")
            assert key in RunConfig.model_fields[section].annotation.model_fields
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}: .*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ["python", "-m"]:
        module = importlib.import_module(words[2])
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{words[2]}.__main__")
        parse, read = argparse.ArgumentParser.parse_args, []

        def parse_only(parser, arguments=None, namespace=None):
            read.append(parse(parser, words[3:], namespace))
            raise KeyboardInterrupt

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        with suppress(KeyboardInterrupt):
            module.main()
        assert len(read) == 1
