"""The wheel holds the package and nothing else, and works where only it is installed."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.jobs.cluster import clean_copy

LIMIT_BYTES = 13_500_000
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a clean copy of the working tree."""
    folder = clean_copy(tmp_path_factory.mktemp("wheel") / "project")
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return folder / "dist" / built.stdout.splitlines()[-1]


def test_wheel_holds_the_package_and_its_data_only(wheel):
    assert wheel.stat().st_size < LIMIT_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"d2prune"}
    assert {"d2prune/py.typed", "d2prune/__main__.py", "d2prune/bundled/model/weights.safetensors"} <= set(
        names
    )
    assert not [name for name in names if re.search(r"benchmark|\btests?\b|test_|train_model", name)]
    assert sum(name.endswith(".tar") for name in names) == 6


def test_the_description_has_absolute_links_to_the_one_place_of_the_url(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    source = project["urls"]["Source"]
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    text = archive.read(name).decode()
    assert f"git clone {source} && cd d2prune" in text and f"Project-URL: Source, {source}" in text
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 20 and all(re.match(r"https?://|#", target) for target in targets)
    files = re.findall(rf"{re.escape(source)}/(?:blob|raw)/main/([^)#]+)", text)
    assert len(files) > 15 and all((ROOT / file).exists() for file in files)
    others = [
        ROOT / "README.md",
        ROOT / "mkdocs.yml",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.*"),
    ]
    assert not [path for path in others if path.suffix != ".webp" and source in path.read_text()]


def test_wheel_works_on_its_own(wheel, tmp_path):
    """In a folder with no sources beside it; the installed dependencies are those of the tests."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run("-m", "d2prune", "--version").startswith("d2prune ")
    where = run("-c", "import d2prune; d2prune.d2_prune; d2prune.run; print(d2prune.__file__)")
    assert Path(where).is_relative_to(tmp_path)
