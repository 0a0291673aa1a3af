"""Optional dependencies: what the base installation holds, and the one line that names a missing extra."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import d2prune
from d2prune import extras, store
from d2prune.cli.main import main
from d2prune.compiled import threads
from d2prune.embed import language
from d2prune.errors import UserError
from d2prune.extras import EXTRA_OF_MODULE, MODULE_OF_SCHEME
from d2prune.knn import products
from tests.pools import write_pool

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
BASE_IMPORTS = {
    "PIL": "pillow",
    "llvmlite": "llvmlite",
    "simplejpeg": "simplejpeg",
    "markupsafe": "jinja2",
    "yaml": "pyyaml",
    **{name: name for name in "numpy numba pyarrow fsspec pydantic rich tenacity bracex jinja2".split()},
    "threadpoolctl": "threadpoolctl",
    "shtab": "shtab",
}
# Loaded only by code that needs a model or a GPU.
TOP_LEVEL_USERS = {
    "torchvision_shim.py": {"torch"},
    "selector.py": {"sklearn"},
}


def names(requirements):
    return {re.match(r"[\w.-]+", text)[0].lower() for text in requirements}


def third_party(tree, top_only=False):
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_import_is_in_the_base_installation_or_has_an_extra():
    own = set(sys.stdlib_module_names) | {"d2prune"}
    for path in (ROOT / "pipeline").rglob("*.py"):
        tree = ast.parse(path.read_text())
        found = set(third_party(tree)) - own
        assert found <= BASE_IMPORTS.keys() | EXTRA_OF_MODULE.keys(), path
        top = set(third_party(tree, top_only=True)) & EXTRA_OF_MODULE.keys()
        assert top <= TOP_LEVEL_USERS.get(path.relative_to(ROOT / "pipeline/d2prune").as_posix(), set()), path
    assert set(BASE_IMPORTS.values()) == names(PROJECT["dependencies"])


def test_extras_exist_and_all_brings_what_modules_need():
    assert set(EXTRA_OF_MODULE.values()) <= EXTRAS.keys()
    (everything,) = EXTRAS["all"]
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == EXTRAS.keys() - {
        "all",
        "dev",
        "docs",
        "gpu",
    }


@pytest.fixture
def missing(monkeypatch):
    """Make modules impossible to find."""

    def hide(*modules):
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    return hide


@pytest.mark.parametrize("scheme", MODULE_OF_SCHEME)
def test_scheme_without_its_package(missing, scheme):
    module = MODULE_OF_SCHEME[scheme]
    missing(module)
    with pytest.raises(UserError) as raised:
        store.check_literal("output", f"{scheme}://place/folder")
    extra = EXTRA_OF_MODULE[module]
    assert str(raised.value) == (
        f"output {scheme}://place/folder: needs {module}, which is not installed; "
        f"pip install 'd2prune[{extra}]'"
    )


def write_config(folder, **changes):
    values = {
        "input": str(write_pool(folder / "pool", shards=1, samples=3)),
        "work_dir": str(folder / "work"),
        "output": str(folder / "out"),
        "embed": {"model": "demo"},
        "select": {"fraction": 0.5},
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "run.yaml")


@pytest.mark.parametrize(
    "module, arguments, changes",
    [
        ("open_clip", ["models"], {}),
        ("torch", ["models"], {}),
        ("ray", ["run"], {}),
        ("open_clip", ["run", "--no-ray"], {"embed": {"model": "ViT-B-32", "pretrained": "openai"}}),
        ("fasttext", ["run", "--no-ray"], {"filter": {"language": "en"}}),
        ("torch", ["run", "--no-ray"], {"score": {"difficulty": "s_clip_loss"}}),
        ("faiss", ["index", "work"], {}),
        ("faiss", ["search", "work", "a flag"], {}),
        ("gcsfs", ["run", "--no-ray"], {"output": "gs://bucket/out"}),
        ("ray", ["reshard", "--subset", "s.npy", "--input", "i", "--output", "o", "--workers", "2"], {}),
    ],
)
def test_command_without_a_package_is_one_line(missing, tmp_path, capsys, module, arguments, changes):
    if arguments[0] == "run":
        arguments = [*arguments, "--config", write_config(tmp_path, **changes)]
    missing(module)
    language._load_predictor.cache_clear()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"needs {module}, which is not installed; pip install 'd2prune\[\w+\]'", line), line
    assert not (tmp_path / "work").exists() and not (tmp_path / "out").exists()


def test_demo_names_its_own_extra(missing, tmp_path, capsys):
    missing("ray")
    assert main(["demo", "--folder", str(tmp_path / "demo")]) == 2
    assert "pip install 'd2prune[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_library_function_without_a_package(missing):
    missing("torch")
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(ImportError, match=r"s_clip_loss: needs torch.*d2prune\[clip\]"):
        d2prune.scores.s_clip_loss(rows, rows)


@pytest.mark.parametrize("module", EXTRA_OF_MODULE)
def test_an_import_that_nothing_checked_is_named_too(module):
    error = ModuleNotFoundError("No module", name=f"{module}.inner")
    assert f"d2prune[{EXTRA_OF_MODULE[module]}]" in str(extras.find_missing(error))
    assert extras.find_missing(ModuleNotFoundError("No module", name="another")) is None


@pytest.mark.parametrize("n_dims, target_recall", [(8, None), (300, None), (300, 0.9)])
def test_graph_without_torch_has_the_same_bytes(monkeypatch, n_dims, target_recall):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3_000, n_dims)).astype(np.float32)
    options = {"nlist": 8, "nprobe": 3} if target_recall else {}
    with_torch = d2prune.knn_graph(rows, 4, **options)
    monkeypatch.setattr(products, "torch", None)
    monkeypatch.setattr(threads, "_has_torch", lambda: False)
    products.best_precision.cache_clear()
    without = d2prune.knn_graph(rows, 4, **options)
    products.best_precision.cache_clear()
    for name in ("indptr", "indices", "sq_distances"):
        assert getattr(with_torch, name).tobytes() == getattr(without, name).tobytes()
