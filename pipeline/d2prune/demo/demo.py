"""`d2prune demo`: filter the bundled pool from S3 to S3, with an S3 server on this machine.

Everything is written below one folder. The server, and Ray if the run starts it, listen on loopback and
are stopped at the end, also after an error or Ctrl-C.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from d2prune import store
from d2prune.bundled import POOL_DIR
from d2prune.console import print_line
from d2prune.demo import s3_server
from d2prune.errors import UserError
from d2prune.extras import MissingExtraError, is_installed
from d2prune.inputs.tar.reader import TarReader, TarSample
from d2prune.report.flagged import flag_share

_BUCKETS = ("pool", "scratch", "filtered")
_CONFIG = {
    "work_dir": "s3://scratch/demo",
    "output": "s3://filtered/demo",
    "embed": {"model": "demo"},
    "select": {"fraction": 0.3},
    "write": {"samples_per_shard": 100},
    "ray": {"workers": 2},
}
_STOP_S = 20.0


def run_demo(folder: str) -> int:
    """Run the demo below `folder`, print what it found, and return the exit code of the run.

    Raises:
        UserError: the bundled pool or rclone is not installed.
    """
    for module in ("open_clip", "ray", "s3fs"):
        if not is_installed(module):
            raise MissingExtraError("demo", module, "demo")
    s3_server.find_rclone()
    root = Path(folder).resolve()
    root.mkdir(parents=True, exist_ok=True)
    shards = sorted(POOL_DIR.glob("*.tar"))
    if not shards:
        raise UserError(f"{POOL_DIR}: the bundled pool is missing from this installation")
    config = root / "run.yaml"
    tars = f"s3://pool/{{{shards[0].stem}..{shards[-1].stem}}}.tar"
    config.write_text(yaml.safe_dump({"input": tars, **_CONFIG}, sort_keys=False))
    with s3_server.serve(root / "s3", log=root / "s3.log") as server, s3_server.environment(server):
        _upload_pool(server, shards)
        print_line(f"Started an S3 server at {server.endpoint}; uploaded {len(shards)} shards to s3://pool/")
        print_line(f"$ {shlex.join(['d2prune', 'run', '--config', str(config)])}", flush=True)
        code = _run([sys.executable, "-m", "d2prune", "run", "--config", str(config)])
    if code == 0:
        _print_mismatches(root / "s3" / "filtered" / "demo")
        _print_next_steps(root / "s3")
    return code


def _upload_pool(server: s3_server.S3Server, shards: list[Path]) -> None:
    for bucket in _BUCKETS:
        server.make_bucket(bucket)
    for shard in shards:
        url = f"s3://pool/{shard.name}"
        if not store.exists(url):
            store.write_bytes(url, shard.read_bytes())


def _run(command: list[str]) -> int:
    """Run a command and return its exit code; on Ctrl-C, stop it and everything it started."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise


def _print_mismatches(output: Path) -> None:
    """Print which fraction of the planted mismatches was dropped, and which of all samples."""
    decisions = pq.read_table(
        [str(path) for path in sorted(output.glob("decisions-*.parquet"))], columns=["uid", "kept"]
    )
    share = flag_share(decisions["uid"].to_pylist(), decisions["kept"].to_numpy(), _read_mismatches())
    print_line()
    print_line(
        f"{share.flagged} of {share.samples} samples have a planted caption mismatch: "
        f"{share.share_flagged:.1%} of them were dropped, against {share.share_all:.1%} of all samples."
    )


def _find_dropped(output: Path) -> str:
    """Return the uid of a sample that was not kept."""
    table = pq.read_table(sorted(map(str, output.glob("decisions-*.parquet"))), columns=["uid", "kept"])
    return str(table.filter(pc.invert(table["kept"]))["uid"][0].as_py())


def _read_mismatches() -> set[str]:
    """Uids of the samples in the bundled pool whose caption was swapped with another's."""
    uids = set()
    for path in sorted(POOL_DIR.glob("*.tar")):
        with path.open("rb") as stream:
            for sample in TarReader(stream, frozenset({"json"})):
                if isinstance(sample, TarSample):
                    record = json.loads(sample.members["json"])
                    if record["planted_mismatch"]:
                        uids.add(record["uid"])
    return uids


def _print_next_steps(buckets: Path) -> None:
    """Print the report and commands on the buckets as folders: the URLs in the summary need the server."""
    scratch, output = buckets / "scratch" / "demo", buckets / "filtered" / "demo"
    print_line()
    print_line(f"The S3 server has stopped, and s3:// with it. Its buckets are folders in {buckets}.")
    for page in sorted((scratch / "report").rglob("report.html")):
        print_line(f"Report:            {page}")
    commands = {
        "Browse the run:": ["explore", str(scratch), "--input", str(buckets / "pool")],
        "Explain a sample:": ["explain", str(scratch), _find_dropped(output)],
    }
    for label, arguments in commands.items():
        print_line(f"{label:<17}  {shlex.join(['d2prune', *arguments])}")
