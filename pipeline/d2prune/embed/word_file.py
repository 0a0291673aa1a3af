"""The file of `filter.words`."""

import hashlib

from d2prune import store
from d2prune.errors import UserError

OPTION = "filter.words"
_EXPECTED = "a text file in UTF-8 with one word a line"


def hash_words(url: str | None) -> str | None:
    """Return the SHA-256 of a word list, as hex; None without one.

    Raises:
        UserError: the file does not exist.
    """
    return None if url is None else hashlib.sha256(_read(url)).hexdigest()


def read_words(url: str | None, expected_hash: str | None) -> frozenset[str]:
    """Read a word list: words in lower case, without empty lines. No file is an empty list.

    Raises:
        UserError: the file is not UTF-8, has no word or several in a line, or changed since the run was
            planned.
    """
    if url is None:
        return frozenset()
    data = _read(url)
    if hashlib.sha256(data).hexdigest() != expected_hash:
        raise UserError(f"{OPTION}: {store.redact(url)} changed during the run; run again")
    try:
        lines = [line.split() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{OPTION}: {store.redact(url)}: {error}; expected {_EXPECTED}") from None
    for number, found in enumerate(lines, 1):
        if len(found) > 1:
            raise UserError(
                f"{OPTION}: {store.redact(url)}: line {number}: found {len(found)} words; "
                f"expected {_EXPECTED}"
            )
    words = frozenset(word.lower() for line in lines for word in line)
    if not words:
        raise UserError(f"{OPTION}: {store.redact(url)}: found no word; expected {_EXPECTED}")
    return words


def _read(url: str) -> bytes:
    try:
        return store.read_bytes(url)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{OPTION}: {store.redact(url)}: not found; expected {_EXPECTED}") from None
