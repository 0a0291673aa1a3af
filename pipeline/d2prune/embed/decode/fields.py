"""Values of a sample's json that `embed.fields` carries along, as Arrow can store them.

Invariant: any JSON value becomes a value or a reject. Decode processes import this module: it must
load neither torch nor pyarrow.
"""

import math
from typing import Any, Literal, NamedTuple

from d2prune.inputs import rejects
from d2prune.inputs.rejects import SampleRejected, clean_line
from d2prune.inputs.sample_id import MAX_TEXT

FieldKind = Literal["number", "text"]

FIELD_REPLACED = "field-replaced"
"""Counter: texts with code points that UTF-8 cannot encode, which were replaced by U+FFFD."""
FIELD_CUT = "field-cut"
"""Counter: texts longer than `MAX_TEXT`, which were cut."""

_SHOWN = 50


class FieldValue(NamedTuple):
    """A value, and the counters to increment."""

    value: float | str
    notes: tuple[str, ...] = ()


def field_value(record: dict[str, Any], name: str, kind: FieldKind) -> FieldValue:
    """Return a value of the JSON member as the declared kind; a missing text is empty.

    Raises:
        SampleRejected: a number is missing, not a number, not finite or beyond float64; a text is
            nested too deeply to be written as one.
    """
    value = record.get(name)
    if kind == "text":
        return _read_text(name, value)
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            pass
    if not math.isfinite(number):
        raise SampleRejected(rejects.FIELD_MISSING, f"{name} is {_show(value)}, expected a finite number")
    return FieldValue(number)


def _read_text(name: str, value: Any) -> FieldValue:
    if value is None:
        return FieldValue("")
    notes: tuple[str, ...] = ()
    try:
        text = str(value)
    except RecursionError as error:
        raise SampleRejected(rejects.FIELD_MISSING, f"{name} is nested too deeply for a text") from error
    if len(text) > MAX_TEXT:
        text, notes = text[:MAX_TEXT], (FIELD_CUT,)
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON may escape half of a surrogate pair, as in "caf\ud83d".
        text = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
        notes = (*notes, FIELD_REPLACED)
    return FieldValue(text, notes)


def _show(value: Any) -> str:
    """Return the beginning of a value for a message; containers only by their type."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return clean_line(str(value)[:_SHOWN])
