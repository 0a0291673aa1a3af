"""Where the samples of an embed artifact lie: `work_dir/embed/<fingerprint>/sources.json`, shard name -> URL.

An artifact knows its shards by name, since the same bytes elsewhere are the same shard. Whoever
wants to see a picture needs the URL as well: a run leaves it here, without user names, passwords or
query strings.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from d2prune import store


class Shard(Protocol):
    """An input shard, as far as this file needs it."""

    @property
    def name(self) -> str:
        """Unique in the pool."""
        ...

    @property
    def url(self) -> str:
        """Where it lies."""
        ...


def record(work_dir: str, embed_fingerprint: str, shards: Iterable[Shard]) -> None:
    """Leave the URLs; the same URLs leave the same bytes."""
    text = json.dumps({shard.name: store.redact(shard.url) for shard in shards}, indent=0).encode()
    url = _url(work_dir, embed_fingerprint)
    try:
        if store.read_bytes(url) == text:
            return
    except FileNotFoundError:
        pass
    store.write_bytes(url, text)


def read(work_dir: str, embed_fingerprint: str) -> Mapping[str, str]:
    """Shard name -> URL; empty where no run left them."""
    try:
        return dict(json.loads(store.read_bytes(_url(work_dir, embed_fingerprint))))
    except FileNotFoundError:
        return {}


def _url(work_dir: str, embed_fingerprint: str) -> str:
    return store.join(work_dir, "embed", embed_fingerprint, "sources.json")
