"""Time to make the report of a finished run.

    python -m benchmarks.report run.yaml

Makes the page again, twice, in this process. Prints CPU and wall seconds and the size of the page. The
first time includes loading compiled kernels; nothing is embedded, ranked or written but the page.
"""

import argparse
import gc
import time

from d2prune import store
from d2prune.cli.main import hide_pandas_from_arrow
from d2prune.config.model import RunConfig
from d2prune.report.stage import STAGE, run_record, write_report
from d2prune.runs.history import fill_run_id
from d2prune.runs.plan import plan_run


def main() -> None:
    """Make the page twice and print how long it takes."""
    # As the program does.
    hide_pandas_from_arrow()
    gc.set_threshold(50_000)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", help="configuration of a finished run")
    config = RunConfig.load(parser.parse_args().config, [])
    plan = plan_run(config)
    config = config.model_copy(update={"output": fill_run_id(config.output, plan.identity)})
    found = {name: plan.find(name) for name in plan.artifacts if name != STAGE.name}
    manifests = {name: manifest for name, manifest in found.items() if manifest is not None}
    record, params = run_record(config, plan.pool, manifests, {}), STAGE.params(config, plan.pool)
    for label in ("first", "again"):
        cpu, wall = time.process_time(), time.perf_counter()
        url = write_report(record, params)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{label}: {cpu:.2f} s of CPU, {wall:.2f} s, {store.info(url).size:,} bytes")


if __name__ == "__main__":
    main()
