"""A pool that grows between scheduled runs."""

import shutil

import pytest


@pytest.fixture
def grow(configure, pool, tmp_path):
    """Returns a function that adds shards to an input folder and returns the configuration."""
    folder = tmp_path / "pool"
    folder.mkdir()

    def _grow(shards: int):
        for path in sorted(pool.glob("*.tar"))[:shards]:
            shutil.copy2(path, folder)
        return configure(input=str(folder), output=f"{tmp_path}/out/{{run_id}}")

    return _grow
