"""Nights of a schedule with stable tars: the write stage alone, over a pool that changes."""

import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.inputs.pool import InputPool
from d2prune.output.manifest import OutputManifest, read_manifest
from d2prune.runs import history
from d2prune.runs.entries import make_run_id
from d2prune.stage.planned import Planned
from d2prune.stage.rebuilding import rebuild_damaged
from d2prune.stage.record import StageRun
from d2prune.store import artifacts
from d2prune.write import latest
from d2prune.write.plan import StableParams
from d2prune.write.stage import STAGE
from tests.output.pools import build


@dataclass
class Nights:
    """Runs one night after the other; `root` gets the work_dir, and the outputs in `out`."""

    root: Path
    pool: Path
    samples_per_shard: int = 4
    work: str = "work"
    manifests: list[OutputManifest] = field(default_factory=list)

    @property
    def shared(self):
        return self.root / "out" / "shards"

    def plan(self, made, kept):
        """Put the pool and its decisions there, and return the run that a driver would start."""
        built = build(self.pool, made, kept, work_dir=str(self.root / self.work))
        config = RunConfig.parse(
            {
                "input": built.url,
                "work_dir": built.work_dir,
                "output": f"{self.root}/out/{{run_id}}",
                "select": {"fraction": 0.5},
                "write": {"samples_per_shard": self.samples_per_shard, "stable": True},
            },
            "nights",
        )
        select = artifacts.fingerprint(
            [[item.uid, item.members[1][1].hex()] for s in made for item in s], kept
        )
        params = StableParams(self.samples_per_shard)
        planned = latest.add_previous(
            config, Planned("write", f"{built.work_dir}/write", params, {"select": select})
        )
        output = f"{self.root}/out/{make_run_id(planned.fingerprint)}"
        config = config.model_copy(update={"output": output})
        run = StageRun(
            config, InputPool(tuple(built.shards), "pool"), {"write": planned}, lambda: None, InProcess
        )
        run.manifests |= {"embed": built.embed, "select": built.select}
        return run

    def run(self, made, kept) -> Path:
        """Run a night and return its output folder."""
        run = self.plan(made, kept)

        def attempt():
            if STAGE.find(STAGE, run) is None:
                STAGE.make(run)
            run.manifests["write"] = run.planned["write"].find()

        rebuild_damaged(attempt, lambda: None)
        STAGE.when_complete(run)
        identity, output = run.planned["write"].fingerprint, run.config.output
        history.announce(run.config.work_dir, output, identity)
        history.publish(
            run.config.work_dir, output, identity, run.manifests, f"report/{'0' * 32}/report.html"
        )
        self.manifests.append(read_manifest(run.config.output))
        return Path(run.config.output)

    def tars(self):
        """Name -> bytes of the tars of the last night."""
        return {file.name: (self.shared / file.name).read_bytes() for file in self.manifests[-1].tars}

    def contents(self):
        """The samples in these tars, each as its members without the key."""
        found = Counter()
        for name in self.tars():
            samples = {}
            with tarfile.open(self.shared / name) as tar:
                for header in tar:
                    key, extension = header.name.split(".", 1)
                    samples.setdefault(key, []).append((extension, tar.extractfile(header).read()))
            found.update(map(tuple, samples.values()))
        return found


def expected(made, kept):
    """The kept samples as `Nights.contents` returns them."""
    pairs = [pair for shard, flags in zip(made, kept, strict=True) for pair in zip(shard, flags, strict=True)]
    return Counter(item.members for item, flag in pairs if flag)
