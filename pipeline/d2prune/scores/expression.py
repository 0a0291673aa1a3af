"""Scores computed from other scores, such as `0.5*clip_score + 0.5*aesthetic`.

Text is parsed once to an `Expression` and never evaluated as Python; evaluation is float64 arithmetic
on columns. Only operations whose result IEEE 754 defines are allowed (+ - * /, min, max, abs, sqrt),
so that every machine computes the same bits; log and exp differ between libraries.
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
_ONE_ARGUMENT: dict[str, Callable[[Float64], Float64]] = {"abs": np.abs, "sqrt": np.sqrt}
_MANY_ARGUMENTS: dict[str, Callable[[Float64, Float64], Float64]] = {"min": np.minimum, "max": np.maximum}
GRAMMAR = (
    "numbers, column names (in backquotes unless they are identifiers), + - * /, min, max, abs, sqrt "
    "and parentheses"
)


@dataclass(frozen=True)
class Expression:
    """A parsed score.

    Attributes:
        text: the expression as written.
        columns: names of the columns it reads, in order of first use.
    """

    text: str
    columns: tuple[str, ...]
    _tree: ast.expr
    _quoted: Mapping[str, str]

    def evaluate(self, columns: Mapping[str, NDArray[np.generic]], n_rows: int) -> Float64:
        """Compute the score of each row.

        Args:
            columns: numeric arrays [n_rows] by name, at least those in `self.columns`.
            n_rows: number of rows.

        Returns:
            float64 [n_rows]; not finite where the score is undefined, as after a division by 0.
        """
        # Converted first: a float32 column times a Python number would stay float32.
        values = {name: np.asarray(columns[name], np.float64) for name in self.columns}
        with np.errstate(all="ignore"):
            result = self._evaluate(self._tree, values)
        return np.broadcast_to(result, (n_rows,)).astype(np.float64)

    def _evaluate(self, node: ast.expr, values: Mapping[str, Float64]) -> Float64:
        match node:
            case ast.Constant(value=number):
                return np.asarray(number, np.float64)
            case ast.Name(id=name):
                return values[self._quoted.get(name, name)]
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._evaluate(left, values), self._evaluate(right, values))
            case ast.UnaryOp(op=op, operand=operand):
                return _UNARY[type(op)](self._evaluate(operand, values))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                given = [self._evaluate(argument, values) for argument in arguments]
                if name in _ONE_ARGUMENT:
                    return _ONE_ARGUMENT[name](given[0])
                total = given[0]
                for value in given[1:]:
                    total = _MANY_ARGUMENTS[name](total, value)
                return total
        raise AssertionError(f"{ast.dump(node)} is not in the grammar")  # parse() rejects all other nodes


def parse(text: str, option: str) -> Expression:
    """Parse a score.

    Args:
        text: e.g. `clip_score`, `0.5*clip_score + 0.5*aesthetic`, "max(`sim l14`, 0.2)".
        option: name of the option, for error messages.

    Raises:
        UserError: the text is not in the grammar; one line that names what is not and where.
    """
    quoted: dict[str, str] = {}

    def name_for(match: re.Match[str]) -> str:
        # Quoted names become identifiers, so that Python's parser sees names only, never strings.
        placeholder = f"quoted{len(quoted)}_" + "_" * text.count("_")
        quoted[placeholder] = next(group for group in match.groups() if group is not None)
        return f" {placeholder} "

    if not text.strip() or len(text) > _MAX_LENGTH:
        raise UserError(f"{option}: expected a score of 1 to {_MAX_LENGTH} characters, got {len(text)}")
    replaced = _QUOTED.sub(name_for, text)
    try:
        tree = ast.parse(replaced.strip(), mode="eval").body
        columns = tuple(dict.fromkeys(_list_columns(tree, quoted, text, option)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        detail = error.msg if isinstance(error, SyntaxError) else "nested too deeply or not printable"
        raise UserError(f"{option}: {text!r} is not a score ({detail}); expected {GRAMMAR}") from error
    if not columns:
        raise UserError(f"{option}: {text!r} reads no column, so all samples would have the same score")
    return Expression(text, columns, tree, quoted)


def _list_columns(node: ast.expr, quoted: Mapping[str, str], text: str, option: str) -> list[str]:
    """Check that a tree is in the grammar; returns the columns it reads, with repeats."""
    match node:
        case ast.Constant(value=int() | float() as number) if (
            not isinstance(number, bool) and abs(number) < 1e300
        ):
            return []
        case ast.Name(id=name):
            return [quoted.get(name, name)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [*_list_columns(left, quoted, text, option), *_list_columns(right, quoted, text, option)]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _list_columns(operand, quoted, text, option)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _ONE_ARGUMENT and len(arguments) == 1
        ) or (name in _MANY_ARGUMENTS and len(arguments) >= 2):
            return [
                column for argument in arguments for column in _list_columns(argument, quoted, text, option)
            ]
    source = ast.unparse(node)
    for placeholder, name in quoted.items():
        source = source.replace(placeholder, f"`{name}`")
    context = "" if source == text else f" in {text!r}"
    raise UserError(f"{option}: {source!r}{context} is not allowed; expected {GRAMMAR}")
