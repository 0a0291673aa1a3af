"""Scores computed from other scores: `0.5*clip_score + 0.5*aesthetic`, parsed once, never evaluated as Python.

Text in, an `Expression` out; evaluation is plain float64 arithmetic on columns. Only operations
whose result IEEE 754 fixes are allowed (+ - * /, min, max, abs, sqrt), so that every machine
computes the same bits; log and exp differ between libraries and are left out.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import UserError

Float64 = NDArray[np.float64]

_MAX_LENGTH = 1000
_QUOTED = re.compile(r"`([^`]*)`|\"([^\"]*)\"|'([^']*)'")
_BINARY: dict[type[ast.operator], Callable[[Float64, Float64], Float64]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: dict[type[ast.unaryop], Callable[[Float64], Float64]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_OF_ONE: dict[str, Callable[[Float64], Float64]] = {"abs": np.abs, "sqrt": np.sqrt}
_OF_MANY: dict[str, Callable[[Float64, Float64], Float64]] = {"min": np.minimum, "max": np.maximum}
GRAMMAR = (
    "numbers, columns (those with odd names in backquotes), + - * /, min, max, abs, sqrt and parentheses"
)


@dataclass(frozen=True)
class Expression:
    """A parsed score.

    Attributes:
        text: as it was written.
        columns: names of the columns it reads, in order of first use.
    """

    text: str
    columns: tuple[str, ...]
    _tree: ast.expr
    _quoted: Mapping[str, str]

    def evaluate(self, columns: Mapping[str, NDArray[np.generic]], n_rows: int) -> Float64:
        """The score of each row, float64 [n_rows]; not finite where it has no value, as after a division by 0."""
        # float64 throughout: a float32 column times a Python number would stay float32.
        values = {name: np.asarray(columns[name], np.float64) for name in self.columns}
        with np.errstate(all="ignore"):
            result = self._value(self._tree, values)
        return np.broadcast_to(result, (n_rows,)).astype(np.float64)

    def _value(self, node: ast.expr, values: Mapping[str, Float64]) -> Float64:
        match node:
            case ast.Constant(value=number):
                return np.asarray(number, np.float64)
            case ast.Name(id=name):
                return values[self._quoted.get(name, name)]
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, values), self._value(right, values))
            case ast.UnaryOp(op=op, operand=operand):
                return _UNARY[type(op)](self._value(operand, values))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                given = [self._value(argument, values) for argument in arguments]
                if name in _OF_ONE:
                    return _OF_ONE[name](given[0])
                total = given[0]
                for value in given[1:]:
                    total = _OF_MANY[name](total, value)
                return total
        raise AssertionError(f"{ast.dump(node)} passed the check")  # parse() lets nothing else through


def parse(text: str, option: str) -> Expression:
    """Parse a score.

    Args:
        text: e.g. `clip_score`, `0.5*clip_score + 0.5*aesthetic`, "max(`sim l14`, 0.2)".
        option: what errors call it.

    Raises:
        UserError: something else than the grammar allows; one line that says what and where.
    """
    quoted: dict[str, str] = {}

    def name_for(match: re.Match[str]) -> str:
        # Every quoted name becomes an identifier, so that Python's parser sees names only, never strings.
        placeholder = f"quoted{len(quoted)}_" + "_" * text.count("_")
        quoted[placeholder] = next(group for group in match.groups() if group is not None)
        return f" {placeholder} "

    if not text.strip() or len(text) > _MAX_LENGTH:
        raise UserError(f"{option}: expected a score of 1 to {_MAX_LENGTH} characters, got {len(text)}")
    replaced = _QUOTED.sub(name_for, text)
    try:
        tree = ast.parse(replaced.strip(), mode="eval").body
        columns = tuple(dict.fromkeys(_checked(tree, quoted, text, option)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        detail = error.msg if isinstance(error, SyntaxError) else "nested too deeply or not text"
        raise UserError(
            f"{option}: {text!r} cannot be read as a score ({detail}); expected {GRAMMAR}"
        ) from error
    if not columns:
        raise UserError(f"{option}: {text!r} reads no column, so all samples would be equal")
    return Expression(text, columns, tree, quoted)


def _checked(node: ast.expr, quoted: Mapping[str, str], text: str, option: str) -> list[str]:
    """The columns that a tree of allowed nodes reads."""
    match node:
        case ast.Constant(value=int() | float() as number) if (
            not isinstance(number, bool) and abs(number) < 1e300
        ):
            return []
        case ast.Name(id=name):
            return [quoted.get(name, name)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [*_checked(left, quoted, text, option), *_checked(right, quoted, text, option)]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _checked(operand, quoted, text, option)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _OF_ONE and len(arguments) == 1
        ) or (name in _OF_MANY and len(arguments) >= 2):
            return [column for argument in arguments for column in _checked(argument, quoted, text, option)]
    shown = ast.unparse(node)
    for placeholder, name in quoted.items():
        shown = shown.replace(placeholder, f"`{name}`")
    where = "" if shown == text else f" in {text!r}"
    raise UserError(f"{option}: {shown!r}{where} is not allowed; expected {GRAMMAR}")
