"""Types of numeric options: what `argparse` calls to convert and check one value.

Numbers are written as in a configuration file. Every option has finite bounds, which its error names.
"""

import argparse
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MAX_SEED = 2**63 - 1
MAX_WORKERS = 100_000
MAX_CORES = 10**7
MAX_COUNT = 10**15
MAX_PRICE = 10**6


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`; `1e6` is one."""

    def read(text: str) -> int:
        value = _read_number(text)
        if value is None or value != value // 1 or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"found {_show(text)}; expected a whole number from {low:,} to {_format(high)}"
            )
        return int(value)

    return read


def number(low: float, high: float, above: bool = False) -> Callable[[str], float]:
    """A number from `low` to `high`; with `above`, greater than `low`."""

    def read(text: str) -> float:
        value = _read_number(text)
        if value is None or not low <= value <= high or (above and value == low):
            start = "above" if above else "from"
            join = "and up to" if above else "to"
            raise argparse.ArgumentTypeError(
                f"found {_show(text)}; expected a number {start} {low:,g} {join} {high:,g}"
            )
        return float(value)

    return read


def gamma(text: str) -> str:
    """A gamma as text, checked: a number, `auto`, or a multiple such as `4/median`."""
    # Imported here, so that `d2prune --help` is quick.
    from d2prune.d2.gamma import EXPECTED, FORWARD_MULTIPLE, check_gamma
    from d2prune.errors import UserError

    try:
        check_gamma("gamma", text, FORWARD_MULTIPLE)
    except UserError as error:
        raise argparse.ArgumentTypeError(f"found {_show(text)}; expected {EXPECTED}") from error
    return text


def several(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Numbers separated by commas, without repeats."""

    def read_all(text: str) -> tuple[T, ...]:
        return tuple(dict.fromkeys(read(item.strip()) for item in text.split(",")))

    return read_all


def _read_number(text: str) -> float | int | None:
    """Return a finite number; None for anything else."""
    # Imported here, so that `d2prune --help` is quick.
    from d2prune.config.yaml_text import read_scalar

    try:
        value = read_scalar(text)
    except ValueError:
        return None
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if finite else None


def _show(text: str) -> str:
    short = text if len(text) <= 80 else f"{text[:80]}..."
    return short if short.isprintable() and short else repr(short)


def _format(bound: int) -> str:
    return "2**63 - 1" if bound == MAX_SEED else f"{bound:,}"
