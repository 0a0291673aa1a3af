"""Write the output tars of a reshard."""

import threading
from concurrent.futures import CancelledError

from d2prune.output.layout import ShardFiles
from d2prune.output.shard_writer import commit_shard, write_shard
from d2prune.reshard.plan import ReshardUnit
from d2prune.store.artifacts import Receipt


class ReshardWorker:
    """Writes one output tar per call; several threads may call it."""

    def __init__(self, work_dir: str, output: str, keep_executable: bool = False) -> None:
        """Set the folders to write to.

        Args:
            work_dir: receipts go to `work_dir/write`.
            output: URL of the output folder, already claimed.
            keep_executable: whether members that a loader would execute keep their names.
        """
        self._work_dir, self._output, self._keep_executable = work_dir, output, keep_executable
        self._stopped = threading.Event()

    def __call__(self, unit: ReshardUnit) -> Receipt:
        """Write the unit's objects, then its receipt.

        Raises:
            UserError: an input tar no longer exists, or changed.
            InfrastructureError: storage failed.
            CancelledError: `stop` was called.
        """
        written = write_shard(
            self._output,
            ShardFiles.numbered(unit.index),
            unit.pieces(),
            self._check_stopped,
            self._keep_executable,
        )
        return commit_shard(self._work_dir, unit.key, written)

    def stop(self) -> None:
        """Make running calls end at their next block; the tars they were writing do not appear."""
        self._stopped.set()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise CancelledError
