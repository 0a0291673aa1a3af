"""Checks that the input and the folders that are written to do not overlap.

An output that a later run reads as input is counted twice, and a folder inside another is deleted
with it. The table in docs/storage.md has every pair. Locations are compared as `store.resolve`
spells them.
"""

from collections.abc import Mapping, Sequence

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.items import Item
from d2prune.inputs.lookup import DATA_SUFFIXES
from d2prune.store import FileInfo, patterns

Outside = Mapping[str, str]
"""The folders that are written to: what messages call them, and their URLs."""

# Stands for the run id in `.../{run_id}`, which is not known yet.
_ANY_RUN = "0" * 16


def check_items(items: Sequence[Item], outside: Outside) -> None:
    """Check the folders, and that no item names files in one of them. Lists nothing.

    Raises:
        UserError: one of the folders cannot be used, or they or the input overlap.
    """
    places = _resolve_all(outside)
    _check_apart(outside, places)
    for item in items:
        for root, levels in _find_roots(item):
            where = store.resolve(root)
            for label, place in places.items():
                _check_root(item.text, where, levels, (label, outside[label], place))


def check_files(files: Sequence[FileInfo], outside: Outside) -> None:
    """Check the same of listed files, which symbolic links below a folder may lead to.

    Raises:
        UserError: a file is in one of the folders.
    """
    if not outside:
        return
    places = _resolve_all(outside)
    folders = {patterns.split_query(file.url)[0].rpartition("/")[0]: file.url for file in files}
    for folder, url in folders.items():
        where = store.resolve(folder or "/")
        for label, place in places.items():
            if store.contains(place, where):
                raise _make_error(f"input {store.redact(url)}", f"{label} {store.redact(outside[label])}")


def _resolve_all(outside: Outside) -> dict[str, str]:
    for label, url in outside.items():
        store.check_writable(label, url.removesuffix("/").removesuffix("/{run_id}") or url)
    return {label: store.resolve(url.replace("{run_id}", _ANY_RUN)) for label, url in outside.items()}


def _check_apart(outside: Outside, places: Mapping[str, str]) -> None:
    for inner, place in places.items():
        for outer, other in places.items():
            if inner != outer and store.contains(other, place):
                if place == other:
                    raise UserError(
                        f"{outer} {store.redact(outside[outer])} and {inner} {store.redact(outside[inner])} "
                        "are the same folder; expected two different folders"
                    )
                raise _make_error(
                    f"{inner} {store.redact(outside[inner])}", f"{outer} {store.redact(outside[outer])}"
                )


def _make_error(inner: str, outer: str) -> UserError:
    return UserError(f"{inner} is in {outer}; expected input, work_dir and output apart from each other")


def _find_roots(item: Item) -> set[tuple[str, tuple[str, ...] | None]]:
    """The folders that an item reads: with the levels of its pattern, with () for named files, else None."""
    roots: set[tuple[str, tuple[str, ...] | None]] = set()
    for text in item.names:
        if patterns.has_wildcard(text):
            root, levels = patterns.split_root(text)
            roots.add((root, tuple(levels)))
        elif patterns.split_query(text)[0].lower().endswith(DATA_SUFFIXES):
            folder, separator, _ = patterns.unquote(patterns.split_query(text)[0]).rpartition("/")
            roots.add((folder or separator or ".", ()))
        else:
            roots.add((patterns.unquote(text), None))
    return roots


def _check_root(text: str, root: str, levels: tuple[str, ...] | None, folder: tuple[str, str, str]) -> None:
    label, url, place = folder
    if store.contains(place, root):
        raise _make_error(f"input {store.redact(text)}", f"{label} {store.redact(url)}")
    if not store.contains(root, place) or levels == ():
        return
    below = place[len(root.rstrip("/")) + 1 :].split("/")
    if levels is None:
        is_read = not any(map(patterns.is_hidden, below))
    else:
        is_read = _may_match_below(levels, below)
    if is_read:
        raise UserError(
            f"{label} {store.redact(url)} is in input {store.redact(text)}, so a later run would read it "
            "as input; expected input, work_dir and output apart from each other"
        )


def _may_match_below(levels: Sequence[str], below: Sequence[str]) -> bool:
    """Whether a pattern may match files in the folder `below`, or deeper."""
    before = levels.index("**") if "**" in levels else len(levels)
    if before == len(levels) and len(levels) <= len(below):
        return False
    return all(map(_matches, levels[:before], below)) and not any(map(patterns.is_hidden, below[before:]))


def _matches(level: str, name: str) -> bool:
    return patterns.compile_levels([level]).fullmatch(name) is not None
