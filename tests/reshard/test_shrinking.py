"""Input tars that hold zeros, or shrink while they are read."""

import logging
import os

import pytest

from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.output import subset
from d2prune.reshard import reshard as reshard_module
from d2prune.reshard import shard_index
from d2prune.reshard.reshard import reshard
from tests.output.pools import plain_pool, put_pool


@pytest.fixture
def pool(tmp_path):
    """Arguments of `reshard`, and the tar."""
    made = plain_pool(1, 30)
    put_pool(tmp_path / "pool", made)
    (tmp_path / "s.npy").write_bytes(subset.to_bytes(subset.encode([item.uid for item in made[0]])))
    arguments = [str(tmp_path / "pool"), str(tmp_path / "s.npy"), str(tmp_path / "out")]
    return arguments, tmp_path / "pool" / "00000000.tar"


@pytest.mark.parametrize("left", [0, 700, 12_000])
@pytest.mark.parametrize("moment", ["before indexing", "while indexing", "before copying"])
def test_a_tar_that_shrinks_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys, pool, left, moment):
    """A mapped file would end the process with SIGBUS."""
    (tars, chosen, output), path = pool

    def shrink(function):
        def wrapped(*given, **options):
            os.truncate(path, left)
            return function(*given, **options)

        return wrapped

    if moment == "before copying":
        monkeypatch.setattr(reshard_module, "select_rows", shrink(reshard_module.select_rows))
    elif moment == "before indexing":
        monkeypatch.setattr(shard_index, "TarReader", shrink(shard_index.TarReader))
        monkeypatch.setattr("d2prune.inputs.tar.index._STREAM_BYTES", 4_096)
    else:
        call = shard_index.IndexWorker.__call__
        monkeypatch.setattr(shard_index.IndexWorker, "__call__", shrink(call))
    command = ["reshard", "--input", tars, "--subset", chosen, "--output", output, "--workers", "1"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error and "00000000.tar: " in error.splitlines()[-1]
    assert not [file for file in (tmp_path / "out").iterdir() if file.name != ".d2prune-run.json"]


def test_a_hole_of_zeros_is_counted_and_all_other_samples_are_written(tmp_path, pool, caplog):
    arguments, path = pool
    data = path.read_bytes()
    path.write_bytes(data[:5_120] + bytes(10_240) + data[15_360:])
    with caplog.at_level(logging.WARNING):
        manifest = reshard(*arguments)
    assert "fault.tar-zeros 1" in caplog.text
    assert 20 < manifest.counts["written"] == 30 - manifest.counts["missing"] < 30


def test_a_tar_of_zeros_is_counted(tmp_path, pool, caplog):
    arguments, path = pool
    path.write_bytes(bytes(path.stat().st_size))
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="30 of 30 entries are not among"):
        reshard(*arguments)
    assert "fault.tar-zeros 1" in caplog.text
