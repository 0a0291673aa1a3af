"""Finished runs with an index: one of tars with a tiny model, one of tables without any."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.index.build import build_index
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from d2prune.search.searcher import Searcher
from tests.explore.conftest import finished, finished_config, finished_result  # noqa: F401
from tests.tables import make_rows, write_datacomp


@pytest.fixture(scope="session")
def indexed(finished, finished_config, tmp_path_factory):  # noqa: F811
    """The run of the explorer's tests, copied, since an index is written to its work_dir."""
    work = shutil.copytree(finished.work_dir, tmp_path_factory.mktemp("search") / "work")
    copied = replace(finished, work_dir=str(work))
    build_index(copied)
    return copied


@pytest.fixture(scope="session")
def model_name(tiny_model):
    return str(tiny_model), None


@pytest.fixture(scope="session")
def searcher(indexed, model_name):
    return Searcher(indexed, model=model_name)


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A run over tables, whose graph is of image and text embeddings together."""
    folder = tmp_path_factory.mktemp("tables")
    pool = write_datacomp(folder / "pool", [make_rows(90, seed=1), make_rows(70, seed=2)])
    config = RunConfig.parse(
        {
            "input": str(pool),
            "work_dir": str(folder / "work"),
            "output": str(folder / "output"),
            "score": {"difficulty": "clip_score"},
            "graph": {"n_neighbors": 4, "features": "image+text"},
            "dedup": {"near": 0.98},
            "select": {"fraction": 0.3},
        },
        "test",
    )
    run(config, InProcess(), stop_after="write")
    finished_tables = open_run(config.work_dir)
    build_index(finished_tables)
    return finished_tables


@pytest.fixture(scope="session")
def vectors(tables):
    """Image and text embeddings of the tables' run, unit norm."""
    sides = tables.parts.take_vectors(np.arange(len(tables)), tables.embeddings_file)
    return [
        side.astype(np.float32) / np.linalg.norm(side.astype(np.float32), axis=1)[:, None] for side in sides
    ]
