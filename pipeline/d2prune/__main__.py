"""`python -m d2prune` is the same as the `d2prune` command."""

import sys

from d2prune.cli.main import run_program

if __name__ == "__main__":
    sys.exit(run_program())
