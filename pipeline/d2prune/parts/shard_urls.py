"""Record the URLs of an embed artifact's shards, by shard name.

They are stored in `work_dir/embed/<fingerprint>/sources.json`. The artifact itself identifies
shards by name and content, not by URL. To display an image, or to read embeddings that were left in
the input, a reader needs its URL as well. Each run records the URLs here, without user names,
passwords and query strings: a pool that was moved is found where the last run found it.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from d2prune import store

FILE = "sources.json"


class NamedShard(Protocol):
    """An input shard with a name and a URL."""

    @property
    def name(self) -> str:
        """Unique in the pool."""
        ...

    @property
    def url(self) -> str:
        """URL of its file."""
        ...


def record(work_dir: str, embed_fingerprint: str, shards: Iterable[NamedShard]) -> None:
    """Write the URLs, unless the file already holds them."""
    text = store.encode_record({shard.name: store.recordable(shard.url) for shard in shards}, indent=0)
    url = locate(work_dir, embed_fingerprint)
    try:
        if store.read_bytes(url) == text:
            return
    except FileNotFoundError:
        pass
    store.write_bytes(url, text)


def read(work_dir: str, embed_fingerprint: str) -> Mapping[str, str]:
    """Return shard name -> URL; empty where no run recorded them, or the file is damaged."""
    try:
        return dict(json.loads(store.read_bytes(locate(work_dir, embed_fingerprint))))
    except (FileNotFoundError, ValueError, TypeError):
        # The next run replaces a damaged file.
        return {}


def locate(work_dir: str, embed_fingerprint: str) -> str:
    """Return the URL of the file."""
    return store.join(work_dir, "embed", embed_fingerprint, FILE)
