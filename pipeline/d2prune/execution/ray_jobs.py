"""Submit a job to a Ray cluster's job server, follow its log, and carry its exit code.

Invariant: Ctrl-C stops the job before this process ends; a lost connection does not, and the job is
followed again from the line where the log broke off.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from d2prune.console import print_error, print_line
from d2prune.errors import InfrastructureError, UserError
from d2prune.extras import require

INTERRUPTED = 130
_STOP_S = 90.0
_POLL_S = 1.0
_ATTEMPTS = 20
# Left out of the uploaded package: what Python and numba compiled here.
_EXCLUDES = ["**/__pycache__/"]


class RayJob:
    """A job on a cluster.

    Attributes:
        name: its submission id.
    """

    def __init__(self, client: Any, name: str) -> None:
        """Follow a job that was submitted.

        Args:
            client: a `JobSubmissionClient`.
            name: the submission id.
        """
        self._client, self.name = client, name
        self._printed = 0

    @classmethod
    def submit(cls, address: str, entrypoint: str, folder: Path, package: Path) -> "RayJob":
        """Upload a folder and a package, and start a job.

        Args:
            address: URL of the job server, such as `http://head:8265`.
            entrypoint: shell command that the job runs in the folder.
            folder: small files of the job.
            package: folder of a Python package that the job and its workers import.

        Raises:
            UserError: no job server answers at the address, or it refuses the job.
        """
        require("ray", "submit")
        from ray.job_submission import JobSubmissionClient

        environment = {"working_dir": str(folder), "py_modules": [str(package)], "excludes": _EXCLUDES}
        try:
            client = JobSubmissionClient(address)
            # Lines about the upload and the closed connection would mix with the log of the job. The
            # client sets the levels of Ray's loggers when it is made.
            for logger in ("ray", "ray.dashboard", "ray._private"):
                logging.getLogger(logger).setLevel(logging.WARNING)
            return cls(client, client.submit_job(entrypoint=entrypoint, runtime_env=environment))
        except ConnectionError as error:
            raise UserError(
                f"--address: no answer from {address} ; expected the job server of a Ray cluster, on port "
                "8265 of its head"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise UserError(f"--address {address} : {_shorten(error)}") from error

    def follow(self) -> int:
        """Print the log until the job ends; return its exit code. Ctrl-C stops the job.

        Raises:
            InfrastructureError: the job server does not answer any more; the job may still run.
        """
        try:
            return self._wait(None)
        except KeyboardInterrupt:
            print_error(f"stopping the job {self.name}; Ctrl-C again leaves it to itself")
        try:
            self._client.stop_job(self.name)
            self._wait(_STOP_S)
        except (KeyboardInterrupt, OSError, RuntimeError):
            print_error(f"the job may still run; ray job stop {self.name}")
        return INTERRUPTED

    def _wait(self, limit_s: float | None) -> int:
        # Imports Ray's HTTP client, whose errors are no OSError.
        import aiohttp

        start, attempts = time.monotonic(), 0
        while limit_s is None or time.monotonic() - start < limit_s:
            try:
                asyncio.run(self._print_log())
                info = self._client.get_job_info(self.name)
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise InfrastructureError(
                        f"job {self.name}: its server does not answer ({_shorten(error)}); "
                        "the job may still run"
                    ) from error
                time.sleep(_POLL_S)
                continue
            if info.status.is_terminal():
                return self._read_exit_code(info)
            attempts = 0
            time.sleep(_POLL_S)
        print_error(f"the job {self.name} did not end within {limit_s:.0f} s; it may still run")
        return INTERRUPTED

    async def _print_log(self) -> None:
        """Print what was not printed; the server sends the log from its beginning."""
        skip = self._printed
        tail = self._client.tail_job_logs(self.name)
        pending = ""
        async with contextlib.aclosing(tail) as chunks:
            async for chunk in chunks:
                fresh = chunk[skip:]
                skip = max(0, skip - len(chunk))
                *lines, pending = (pending + fresh).split("\n")
                for line in lines:
                    print_line(line, flush=True)
                    self._printed += len(line) + 1
        if pending:
            print_line(pending, flush=True)
            self._printed += len(pending)

    def _read_exit_code(self, info: Any) -> int:
        status = str(getattr(info.status, "value", info.status))
        if status == "SUCCEEDED":
            return 0
        code = info.driver_exit_code
        if code is None or code < 0:  # it did not start, or a signal ended it
            print_error(f"job {self.name}: {status.lower()}: {_shorten(info.message)}")
        return INTERRUPTED if status == "STOPPED" else code if code is not None and code > 0 else 1


def _shorten(text: object) -> str:
    return " ".join(str(text).split())[:300]
