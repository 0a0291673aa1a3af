"""Fault lines: one line per fault, each beginning with the name of the object it concerns."""

from collections.abc import Sequence

_MAX_LISTED = 20
"""Faults of one object that are listed; the rest are counted."""


def label_faults(name: str, faults: Sequence[str]) -> list[str]:
    """Prefix the faults of one object with its name; of many, list the first and count the rest."""
    listed = list(faults[:_MAX_LISTED])
    if len(faults) > _MAX_LISTED:
        listed.append(f"{len(faults) - _MAX_LISTED} more faults")
    return [f"{name}: {fault}" for fault in listed]


def compare_values(values: Sequence[tuple[str, object, object]]) -> list[str]:
    """Report the values that differ, given (name, value found, value expected)."""
    return [
        f"{name}: found {found}; expected {expected}" for name, found, expected in values if found != expected
    ]
