"""Commands on output folders: `verify` and `reshard`."""

import argparse
from typing import Any

from d2prune.cli import numbers
from d2prune.cli.locations import location


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    verify = commands.add_parser(
        "verify",
        help="check an output folder",
        description="Re-read an output folder and print every fault. Exits with 1 if there is one.",
    )
    verify.add_argument(
        "output", type=location, metavar="OUTPUT", help="folder written by `d2prune run` or `d2prune reshard`"
    )
    verify.add_argument(
        "--full",
        action="store_true",
        help="check every sample of every tar; default: a random sample of both",
    )
    verify.set_defaults(command=_verify)

    reshard = commands.add_parser(
        "reshard",
        help="copy the samples listed in a subset file into new tars",
        description="Copy the samples listed in a subset file (.npy, written by d2prune or DataComp) into "
        "new tars. With --work-dir, the same command resumes an interrupted copy.",
    )
    reshard.add_argument("--subset", type=location, required=True, metavar="FILE", help="subset file, .npy")
    reshard.add_argument(
        "--input",
        type=location,
        required=True,
        nargs="+",
        metavar="URL",
        help="input tars: folders, globs or names with braces",
    )
    reshard.add_argument("--output", type=location, required=True, metavar="URL", help="an empty folder")
    reshard.add_argument(
        "--samples-per-shard",
        type=numbers.whole(1, numbers.MAX_COUNT),
        default=10_000,
        metavar="N",
        help="samples in each output tar except the last; default: %(default)s",
    )
    reshard.add_argument(
        "--shuffle",
        type=numbers.whole(0, numbers.MAX_SEED),
        metavar="SEED",
        help="assign samples to tars at random, with this seed",
    )
    reshard.add_argument(
        "--keep-executable-members",
        action="store_true",
        help="keep the names of members that a data loader would execute (.pyd, .pickle, .pth, .eps, ...); "
        "default: their extension gets the suffix -unsafe",
    )
    reshard.add_argument(
        "--work-dir",
        type=location,
        metavar="URL",
        help="folder that keeps tar indexes and progress; default: a temporary folder",
    )
    reshard.add_argument(
        "--workers",
        type=numbers.whole(1, numbers.MAX_WORKERS),
        default=1,
        metavar="N",
        help="number of workers, on Ray if more than 1; default: %(default)s",
    )
    reshard.set_defaults(command=_reshard)


def _verify(arguments: argparse.Namespace) -> int:
    from d2prune.console import print_line
    from d2prune.verify.folder import verify

    faults = verify(arguments.output, full=arguments.full)
    for fault in faults:
        print_line(fault)
    print_line(f"{arguments.output}: {f'{len(faults)} faults' if faults else 'no faults found'}")
    return 1 if faults else 0


def _reshard(arguments: argparse.Namespace) -> int:
    from d2prune.console import print_line
    from d2prune.execution import InProcess, OnRay, Resources
    from d2prune.output import training
    from d2prune.reshard.reshard import ReshardParams, reshard

    executor = OnRay(None, arguments.workers) if arguments.workers > 1 else InProcess()
    try:
        manifest = reshard(
            arguments.input,
            arguments.subset,
            arguments.output,
            ReshardParams(arguments.samples_per_shard, arguments.shuffle),
            arguments.work_dir,
            executor,
            Resources(workers=arguments.workers),
            arguments.keep_executable_members,
        )
    finally:
        executor.close()
    written, tars = manifest.counts["written"], manifest.counts["shards"]
    missing = manifest.counts["missing"]
    print_line(f"{arguments.output}: {written} samples in {tars} tars, {missing} not found")
    if tars:
        print_line(training.command(arguments.output, tars, written))
        print_line(training.datacomp_command(arguments.output))
    return 0
