"""Which work_dirs use a scheduled output: two that share an output root may have runs in common.

    <output root>/.d2prune-runs/<run id>-<hash of the work_dir's location>.json

The same pool and parameters have the same run id, and therefore the same output folder, from
whichever work_dir they run. A run writes its record before it writes to the output; pruning
deletes the record of its own work_dir, and the output only if no other record is left.
"""

import hashlib
import json

from d2prune import store

FOLDER = ".d2prune-runs"


def record_use(root: str, run_id: str, work_dir: str) -> None:
    """Record that a work_dir uses the output of a run, unless that is recorded already."""
    url = _record_url(root, run_id, work_dir)
    if not store.exists(url):
        store.write_bytes(url, store.encode_record({"work_dir": store.resolve(work_dir)}))


def remove_use(root: str, run_id: str, work_dir: str) -> None:
    """Remove the record of a work_dir, if there is one."""
    store.delete([_record_url(root, run_id, work_dir)])


def find_other_users(root: str, run_id: str, work_dir: str) -> list[str]:
    """The other work_dirs that use the output of a run, as messages name them."""
    own = _record_url(root, run_id, work_dir).rsplit("/", 1)[-1]
    records = store.list_files(store.join(root, FOLDER), f"{run_id}-*.json")
    return [_describe_user(file.url) for file in records if file.url.rsplit("/", 1)[-1] != own]


def _record_url(root: str, run_id: str, work_dir: str) -> str:
    suffix = hashlib.blake2b(store.resolve(work_dir).encode(), digest_size=8).hexdigest()
    return store.join(root, FOLDER, f"{run_id}-{suffix}.json")


def _describe_user(url: str) -> str:
    try:
        return f"work_dir {json.loads(store.read_bytes(url))['work_dir']}"
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        # A damaged record still protects the output.
        return f"the work_dir of {store.redact(url)}"
