"""`d2prune demo`: a real S3 server, a bucket with the bundled pool, and the main job on it with two workers.

Everything lies below one folder; the server and Ray listen on loopback and end with the demo,
however it ends.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from d2prune import store
from d2prune.bundled import POOL_DIR
from d2prune.demo import s3_server
from d2prune.errors import UserError
from d2prune.inputs.tar.reader import TarReader, TarSample
from d2prune.report import flag_share

CONFIG = {
    "input": "s3://pool/{00000000..00000005}.tar",
    "work_dir": "s3://scratch/demo",
    "output": "s3://filtered/demo",
    "embed": {"model": "demo"},
    # The paper's setting for DataComp: one neighbour, the CLIP score plus this offset, both gammas
    # 1, keep 30 %.
    "score": {"difficulty": "clip_score", "offset": 0.115},
    "graph": {"features": "image+text", "n_neighbors": 1},
    "select": {"fraction": 0.3, "gamma_forward": 1.0, "gamma_reverse": 1.0},
    "write": {"samples_per_shard": 100},
    "ray": {"workers": 2},
}
_STOP_S = 20.0


def tour(folder: str) -> int:
    """Run the demo below `folder` and print what came of the planted mismatches; returns the run's exit code."""
    root = Path(folder).resolve()
    root.mkdir(parents=True, exist_ok=True)
    config = root / "run.yaml"
    shards = sorted(POOL_DIR.glob("*.tar"))
    if not shards:
        raise UserError(f"{POOL_DIR}: the bundled pool is missing from this installation")
    config.write_text(
        yaml.safe_dump(CONFIG | {"input": f"s3://pool/{{{shards[0].stem}..{shards[-1].stem}}}.tar"})
    )
    with s3_server.serve(root / "s3", log=root / "s3.log") as server, s3_server.environment(server):
        for bucket in ("pool", "scratch", "filtered"):
            server.make_bucket(bucket)
        for shard in shards:
            url = f"s3://pool/{shard.name}"
            if not store.exists(url):
                store.write_bytes(url, shard.read_bytes())
        print(
            f"S3 at {server.endpoint}; {len(shards)} shards in s3://pool\n$ d2prune run --config {config}",
            flush=True,
        )
        code = _run([sys.executable, "-m", "d2prune.cli.main", "run", "--config", str(config)])
    if code == 0:
        _print_mismatches(root / "s3" / "filtered" / "demo")
        print(f"\nThe server has ended; its buckets are folders below {root / 's3'}. The page to look at:")
        for page in sorted((root / "s3" / "scratch" / "demo" / "report").rglob("report.html")):
            print(f"  {page}")
        print(f"Look at every sample: d2prune explore {root / 's3/scratch/demo'} --input {root / 's3/pool'}")
    return code


def _run(command: list[str]) -> int:
    """Run a command; Ctrl-C reaches it too, and it is ended with whatever it started if it does not stop by itself."""
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
    """What share of the planted mismatches was dropped, beside the share of all samples."""
    planted = set()
    for path in sorted(POOL_DIR.glob("*.tar")):
        with path.open("rb") as stream:
            for sample in TarReader(stream, frozenset({"json"})):
                if (
                    isinstance(sample, TarSample)
                    and (record := json.loads(sample.members["json"]))["planted_mismatch"]
                ):
                    planted.add(record["uid"])
    decisions = pq.read_table(
        [str(path) for path in sorted(output.glob("decisions-*.parquet"))], columns=["uid", "kept"]
    )
    share = flag_share(decisions["uid"].to_pylist(), decisions["kept"].to_numpy(), planted)
    print(
        f"\nCaptions that do not belong to their picture were planted in {share.flagged} of {share.samples} samples: "
        f"{share.share_flagged:.1%} of those were dropped, of all samples {share.share_all:.1%}."
    )
