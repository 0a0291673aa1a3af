"""A tar that is replaced between embedding and writing, or between two runs."""

import os
import shutil

import pytest

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.runs.driver import run
from d2prune.verify.folder import Depth, verify
from tests.pools import write_pool

LAYOUT = Depth(tars=None, samples=None, loader=False)


def test_another_caption_of_the_same_size(configure, tmp_path):
    """Under the old time it stops the write; with a new time, its shard alone is embedded again."""
    folder = write_pool(tmp_path / "pool", shards=2, samples=8)
    config = configure(input=str(folder), select__fraction=1.0)
    run(config, InProcess(), stop_after="select")
    path = folder / "00000001.tar"
    status = path.stat()
    data = path.read_bytes()
    colour = next(name for name in (b"a green ", b"a blue ", b"a red ") if name in data)
    path.write_bytes(data.replace(colour, colour.swapcase(), 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match=r"00000001\.tar: sample .*the tar is damaged"):
        run(config, InProcess())
    assert not (tmp_path / "output" / "manifest.json").exists()
    path.touch()
    embedded = set((tmp_path / "work" / "embed" / "units").iterdir())
    shutil.rmtree(tmp_path / "output")
    run(config, InProcess(), stop_after="write")
    (again,) = set((tmp_path / "work" / "embed" / "units").iterdir()) - embedded
    assert again.name.startswith("00000001-")
    assert verify(config.output, depth=LAYOUT) == []
