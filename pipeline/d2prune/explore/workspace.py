"""The runs of one work_dir, opened on demand, and selections named in requests.

Runs of one pool share its texts. A few runs are open at a time; the one opened least recently is
closed first.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from d2prune.errors import UserError
from d2prune.explore.recent import Recent
from d2prune.explore.rejected import RejectedSamples
from d2prune.explore.sample_index import Mask, SampleIndex
from d2prune.explore.texts import Texts
from d2prune.runs.finished import FinishedRun, open_selection
from d2prune.runs.selections import Selection, choose_selection, list_selections

# 1 million samples take about 60 MB, without texts.
_OPEN_RUNS = 4
# Of comparisons across pools, 1 byte a sample each.
_MASKS = 8


class OpenRun:
    """A run with its samples in memory, which are read on first use."""

    def __init__(self, name: str, run: FinishedRun, texts: Texts) -> None:
        """Read nothing yet."""
        self.name, self.run = name, run
        self._texts, self._lock = texts, threading.Lock()

    @property
    def index(self) -> SampleIndex:
        """The samples; the first caller reads them, the others wait."""
        with self._lock:
            return self._index

    @cached_property
    def _index(self) -> SampleIndex:
        return SampleIndex(self.run, self._texts)

    @cached_property
    def rejected(self) -> RejectedSamples:
        """The samples that were rejected or filtered."""
        return RejectedSamples(self.run)


@dataclass(frozen=True)
class Kept:
    """What a run keeps, or would keep at another fraction.

    Attributes:
        opened: the run.
        fraction: the other fraction; None: the run's own selection.
    """

    opened: OpenRun
    fraction: float | None

    @property
    def spec(self) -> str:
        """The text that `Workspace.parse` reads."""
        return self.opened.name + ("" if self.fraction is None else f"@{self.fraction!r}")

    @property
    def mask_N(self) -> Mask:
        """Which samples of its own pool it keeps, bool [N]."""
        index = self.opened.index
        return index.ranking.kept_N if self.fraction is None else index.kept_at(self.fraction)


class Workspace:
    """The runs of a work_dir."""

    def __init__(self, run: FinishedRun) -> None:
        """Open the runs of the work_dir of `run`, which is the one that requests mean by default."""
        self._work_dir, self._kept_open = run.work_dir, run.select.fingerprint
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, OpenRun] = OrderedDict()
        self._texts: dict[str, Texts] = {}
        self._members = Recent[Mask](_MASKS)
        self._selections = list_selections(run.work_dir)
        self.default = self._open(self._find(run.select.fingerprint), run)

    def selections(self) -> list[Selection]:
        """The finished selections, newest first, read again."""
        found = list_selections(self._work_dir)
        with self._lock:
            self._selections = found
        return found

    def open(self, name: str) -> OpenRun:
        """The run with a name, an id or a fingerprint, or the beginning of one; empty: the default.

        Raises:
            UserError: none matches, or more than one.
        """
        return self._open(self._find(name)) if name else self.default

    def parse(self, spec: str, default: OpenRun, option: str) -> Kept:
        """The selection that a text names.

        Args:
            spec: `RUN`, `RUN@FRACTION` or `@FRACTION`.
            default: the run that is meant where the text names none.
            option: the parameter that held it, for errors.

        Raises:
            UserError: no such run, or not a fraction.
        """
        name, at, text = spec.partition("@")
        opened = self._open(self._find(name, option)) if name else default
        if not at:
            return Kept(opened, None)
        try:
            fraction = float(text)
        except ValueError:
            fraction = 0.0
        if not 0 < fraction <= 1:
            raise UserError(f"{option}: found {spec!r}; expected RUN or RUN@FRACTION, as in @0.3")
        return Kept(opened, fraction)

    def member_mask(self, kept: Kept, pool: OpenRun) -> Mask:
        """Which samples of a run's pool another selection keeps, bool [N]: by position, or else by uid."""
        if kept.opened.run.embed.fingerprint == pool.run.embed.fingerprint:
            return kept.mask_N

        def match() -> Mask:
            return pool.index.texts.match_uids(kept.opened.index.texts.uids(kept.mask_N))

        return self._members.get((kept.spec, pool.name), match)

    def _find(self, name: str, option: str = "run") -> Selection:
        with self._lock:
            known = self._selections
        try:
            return choose_selection(known, name, option)
        except UserError:
            # It may have finished since.
            return choose_selection(self.selections(), name, option)

    def _open(self, selection: Selection, run: FinishedRun | None = None) -> OpenRun:
        with self._lock:
            found = self._opened.get(selection.fingerprint)
            if found is not None:
                self._opened.move_to_end(selection.fingerprint)
                return found
        run = run or open_selection(self._work_dir, selection.fingerprint)
        with self._lock:
            texts = self._texts.setdefault(run.embed.fingerprint, Texts(run.parts))
            opened = self._opened.setdefault(selection.fingerprint, OpenRun(selection.name, run, texts))
            while len(self._opened) > _OPEN_RUNS:
                oldest = next(iter(self._opened))
                if oldest == self._kept_open:
                    self._opened.move_to_end(oldest)
                    oldest = next(iter(self._opened))
                del self._opened[oldest]
            pools = {each.run.embed.fingerprint for each in self._opened.values()}
            for fingerprint in self._texts.keys() - pools:
                del self._texts[fingerprint]
            return opened
