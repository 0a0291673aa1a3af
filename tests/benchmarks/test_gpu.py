"""The script for the day a GPU is available runs, at small size, without one."""

import re

import numpy as np
import pytest

from benchmarks import gpu
from d2prune.knn import backend


def test_every_part_but_embedding_runs_on_a_cpu(capsys):
    before = backend.choose_search
    gpu.main("--check-rows 1500 --rows 3000 --exact 800 --dims 16".split())
    out = capsys.readouterr().out
    hashes = re.findall(r"\| ([0-9a-f]{16}) \|", out)
    assert len(hashes) == 4 and hashes[0] == hashes[1] and hashes[2] == hashes[3]
    assert float(re.search(r"recall@5 ([\d.]+)", out)[1]) >= 0.93
    assert "| faiss IVF on the" in out and "| faiss, all rows |" in out and "one list in 1, scaled" in out
    assert backend.choose_search is before


def test_parts_that_do_not_fit_are_left_out(capsys):
    gpu.main("--check-rows 0 --rows 100000000 --exact 0 --minutes 1".split())
    assert "graph of 100,000,000 rows: left out, about 1500 s needed" in capsys.readouterr().out


def test_other_bits_end_the_script(monkeypatch):
    def wrongly(queries, members, count):
        # As if the GPU returned distances that are too large by more than their bound.
        found = gpu.faiss.knn(queries.astype("f4"), members.astype("f4"), count)
        return found[0] + np.float32(10), found[1][:, ::-1].copy()

    # Restored, since the check replaces it for the whole process.
    monkeypatch.setattr(backend, "choose_search", backend.choose_search)
    monkeypatch.setattr(gpu, "nearest_on_cpu", wrongly)
    with pytest.raises(SystemExit, match="differs from the CPU's"):
        gpu.check_bits(3000, 16)
