"""Records that d2prune reads back: locations without credentials, all other names unchanged.

Manifests, receipts, leases and the lists of shards and of runs hold keys, names and paths that later
commands open. A folder `password=abcd`, or a shard that is named like a secret of the environment,
would be lost if the record masked it, as output for people does (`redaction`).
"""

import json
from typing import Any

from d2prune.redaction import as_mapping, redact
from d2prune.store.patterns import split_query


def recordable(url: str) -> str:
    """`url` without credentials and without the query of a web URL.

    Unlike `redact`, which is for messages, it keeps a `?` in the name of an object or a folder.
    """
    if "://" not in url:
        return url
    head, mark, tail = split_query(url)[0].partition("?")
    return redact(head) + mark + tail


def is_recordable(url: str) -> bool:
    """Whether a later command can open what a record holds of a location."""
    return recordable(url) == url


def encode_record(value: Any, **options: Any) -> bytes:
    """JSON of a record that is read back; `recordable` is applied to locations with credentials.

    Args:
        value: nested mappings, sequences and scalars, or a dataclass of them.
        **options: of `json.dumps`.
    """
    text = json.dumps(value, default=as_mapping, **options)
    # A manifest with a million units is searched as one text; visiting its values takes ten times as long.
    if redact(text) != text:
        text = json.dumps(_make_recordable(json.loads(text)), **options)
    return text.encode()


def _make_recordable(value: Any) -> Any:
    if isinstance(value, str):
        return recordable(value)
    if isinstance(value, dict):
        return {recordable(name): _make_recordable(inner) for name, inner in value.items()}
    return list(map(_make_recordable, value)) if isinstance(value, list) else value
