"""Read a tar with open_clip's own data loader, to see which samples a training run would get.

WebDataset's decoders unpickle some members and Pillow runs PostScript (`output/executable.py`). The
loader is therefore built with a `decode` that decodes only the image, the caption and the json, and
no PostScript; `members.py` checks the other members.
"""

import contextlib
import logging
import re
import types
from collections.abc import Iterator
from typing import Any

from d2prune.verify.members import LOADED, refuse_programs

_BATCH_SIZE = 64


def check_with_open_clip(path: str, samples: int) -> list[str]:
    """Count the samples that open_clip's data loader yields, and collect its warnings about samples it drops.

    Args:
        path: a tar on this machine.
        samples: number of samples it should yield.

    Returns:
        The faults.
    """
    try:
        from d2prune import torchvision_shim

        torchvision_shim.install_if_needed()
        from open_clip_train import data as open_clip_data
    except ImportError as error:
        return [
            f"open_clip's data loader cannot be imported ({error}); pip install 'open_clip_torch[training]'"
        ]
    args = types.SimpleNamespace(
        # open_clip expands braces, and a backslash quotes the next character there.
        val_data=re.sub(r"[\\{}]", r"\\\g<0>", path),
        val_num_samples=samples,
        batch_size=min(_BATCH_SIZE, max(samples, 1)),
        workers=0,
        world_size=1,
        seed=0,
    )
    with _collect_warnings() as warnings:
        with _restrict_decoding(open_clip_data) as restricted:
            data = open_clip_data.get_wds_dataset(
                args, _measure_image, is_train=False, tokenizer=_measure_text
            )
        if not restricted.used:
            return ["open_clip's data loader was not run: it does not decode with webdataset.decode"]
        count = sum(len(texts) for _, texts in data.dataloader)
    faults = [f"open_clip's data loader: {text}" for text in warnings]
    if count != samples:
        faults.append(f"open_clip's data loader yields {count} of {samples} samples")
    return faults


class _RestrictedWebdataset:
    """The module `webdataset` with a `decode` that executes nothing.

    Attributes:
        used: whether `decode` has been called.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self.used = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def decode(self, *handlers: Any, **options: Any) -> Any:
        """Make a stage that decodes the members `LOADED` and passes the others on as bytes."""
        self.used = True
        return self._module.decode(refuse_programs, *handlers, **options, only=list(LOADED))


@contextlib.contextmanager
def _restrict_decoding(open_clip_data: Any) -> Iterator[_RestrictedWebdataset]:
    """Make open_clip build its data loader with `_RestrictedWebdataset` during the block."""
    module = open_clip_data.wds
    restricted = _RestrictedWebdataset(module)
    open_clip_data.wds = restricted
    try:
        yield restricted
    finally:
        open_clip_data.wds = module


def _measure_image(image: Any) -> int:
    """Stand in for preprocessing: the loader has decoded the image, and its width is enough to batch."""
    return int(image.width)


def _measure_text(text: str) -> list[int]:
    """Stand in for the tokenizer."""
    return [len(text)]


@contextlib.contextmanager
def _collect_warnings() -> Iterator[list[str]]:
    """Collect the root logger's warnings during the block: open_clip logs the samples it drops there."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(" ".join(record.getMessage().split()))

    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [Collector(logging.WARNING)]
    root.setLevel(logging.WARNING)
    try:
        yield texts
    finally:
        root.handlers, root.level = handlers, level
