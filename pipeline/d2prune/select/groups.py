"""Groups of a pool: the values of a text column of embed's samples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.errors import UserError
from d2prune.parts.files import SAMPLES
from d2prune.parts.reader import Parts

_OPTION = "select.groups"


@dataclass(frozen=True)
class SampleGroups:
    """The groups of a pool, 4 bytes a sample.

    Attributes:
        code_of: label -> code.
        codes: int32 [N] of each part, the code of each sample.
    """

    code_of: dict[str, int]
    codes: list[npt.NDArray[np.int32]]


def read_groups(parts: Parts, column: str) -> SampleGroups:
    """Read the groups of the pool; raises what `read_labels` does."""
    groups = SampleGroups({}, [])
    for part in range(parts.spans.n_parts):
        labels, index_N = np.unique(read_labels(parts, part, column), return_inverse=True)
        codes = [groups.code_of.setdefault(label, len(groups.code_of)) for label in labels.tolist()]
        groups.codes.append(np.array(codes, np.int32)[index_N])
    return groups


def read_labels(parts: Parts, part: int, column: str) -> npt.NDArray[np.str_]:
    """Read the group labels of a part's samples, str [N].

    Raises:
        UserError: the column does not exist or is not text.
    """
    try:
        values = parts.read(part, SAMPLES, [column])[column]
    except (KeyError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{_OPTION}: there is no column {column!r}; expected shard or a text field of embed.fields"
        ) from error
    if not pa.types.is_string(values.type):
        raise UserError(f"{_OPTION}: column {column!r} is {values.type}, expected text")
    return np.asarray(values.to_pylist(), np.str_)
