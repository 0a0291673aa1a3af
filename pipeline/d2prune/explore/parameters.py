"""Parameters of a request: text in, checked values out."""

import math
import re
from collections.abc import Mapping
from typing import Any

from d2prune.errors import UserError
from d2prune.explore.query import AMONG, MODES, SORTS, Outline, Query, split_words

MAX_TEXT = 500
MAX_ROWS = 200
MAX_COORDINATE = 65_535
# JavaScript numbers are exact up to here.
_MAX_SAFE_INTEGER = 2**53
_MAX_CLUSTERS = 1 << 15
_MAX_CORNERS = 200
_COORDINATE = re.compile(r"[0-9]{1,5}")
_IMAGE = re.compile(r"[0-9a-f]{32}")
Parameters = Mapping[str, str]


def parse_query(parameters: Parameters) -> Query:
    """The search that a request describes.

    Raises:
        UserError: a parameter has an unexpected value.
    """
    cluster = parse_count(parameters, "cluster", 0, _MAX_CLUSTERS) if parameters.get("cluster") else None
    sort, among = parameters.get("sort") or "selection", parameters.get("among", "")
    mode, text = parameters.get("mode", ""), parameters.get("q", "")[:MAX_TEXT]
    for name, value, known in (("sort", sort, SORTS), ("among", among, AMONG), ("mode", mode, MODES)):
        if value not in known:
            raise UserError(f"{name}: found {value[:50]!r}; expected one of {', '.join(filter(None, known))}")
    like = parse_count(parameters, "like", 0, _MAX_SAFE_INTEGER) if parameters.get("like") else None
    image = parameters.get("image", "")
    if image and not _IMAGE.fullmatch(image):
        raise UserError(f"image: found {image[:50]!r}; expected what the server answered when it was sent")
    targets = {"like": like is not None, "image": bool(image), "q": bool(mode and text.strip())}
    named = [name for name, given in targets.items() if given]
    if len(named) > 1:
        what = "a description in q" if named[1] == "q" else named[1]
        raise UserError(f"{named[0]}: found {what}, too; expected one of the two")
    return Query(
        words=() if mode else split_words(text),
        reason=parameters.get("reason", ""),
        cluster=cluster,
        low=parse_number(parameters, "low"),
        high=parse_number(parameters, "high"),
        a=parameters.get("a", ""),
        b=parameters.get("b", ""),
        among=among,  # type: ignore[arg-type]
        text=text.strip() if mode else "",
        like=like,
        image=image,
        outline=parse_outline(parameters),
        sort=sort,  # type: ignore[arg-type]
        descending=parameters.get("order", "down") != "up",
    )


def parse_outline(parameters: Parameters) -> Outline | None:
    """The parameter `outline`, `X,Y,X,Y,...`; None if it is missing or empty.

    Raises:
        UserError: not 3 to 200 corners with coordinates from 0 to 65535.
    """
    text = parameters.get("outline", "")
    if not text:
        return None
    texts = text.split(",", 2 * _MAX_CORNERS)
    numbers = [int(number) for number in texts if _COORDINATE.fullmatch(number)]
    is_even = len(numbers) == len(texts) and len(numbers) % 2 == 0
    if not is_even or not 3 <= len(numbers) // 2 <= _MAX_CORNERS or max(numbers) > MAX_COORDINATE:
        raise UserError(
            f"outline: found {text[:50]!r}; expected X,Y,X,Y,... of 3 to {_MAX_CORNERS} corners, each "
            f"number from 0 to {MAX_COORDINATE}"
        )
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def parse_page(parameters: Parameters, default: int = 48) -> tuple[int, int]:
    """The first row of a page and the number of rows.

    Raises:
        UserError: not whole numbers.
    """
    start = parse_count(parameters, "start", 0, 1 << 60)
    return start, parse_count(parameters, "limit", default, MAX_ROWS)


def parse_number(parameters: Parameters, name: str) -> float | None:
    """A finite number; None if the parameter is missing or empty.

    Raises:
        UserError: not a finite number.
    """
    text = parameters.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{name}: found {text[:50]!r}; expected a number")
    return value


def parse_count(parameters: Parameters, name: str, default: int, most: int) -> int:
    """A whole number, at most `most`.

    Raises:
        UserError: not a whole number.
    """
    text = parameters.get(name, str(default))
    if not text.isdecimal():
        raise UserError(f"{name}: found {text[:50]!r}; expected a whole number")
    digits = text.lstrip("0") or "0"
    # Python refuses to convert thousands of digits.
    return min(int(digits), most) if len(digits) <= len(str(most)) else most


def to_json(value: Any) -> Any:
    """Convert what JSON or JavaScript lacks: nan to null, large integers and other types to text."""
    if isinstance(value, dict):
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_SAFE_INTEGER:
        return str(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)
