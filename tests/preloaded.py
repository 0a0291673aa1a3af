"""What the forks of `tests.programs` need, imported once."""

import d2prune.cli.main
import d2prune.graph.build
import d2prune.reshard.reshard
import d2prune.runs.driver
from d2prune.embed.model.sources import import_open_clip

__all__ = ["d2prune"]

import_open_clip()
