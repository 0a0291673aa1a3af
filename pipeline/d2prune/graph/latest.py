"""Which quantiser a graph is given: that of the latest compatible graph, a named one, or none.

`graph/latest-<hash>.json` names the graph that the latest run with some parameters used; the hash
is that of the parameters of the graph and the embeddings. Read when a run is planned, so this
module loads no numerical code.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.inputs.pool import InputPool
from d2prune.stage.planned import Planned
from d2prune.store import artifacts

log = logging.getLogger(__name__)

AUTO, NEW = "auto", "new"
QUANTISER, UNUSED = "quantiser", "unused_quantiser"
_NAMED = re.compile(r"(?:(.+)/graph/)?([0-9a-f]{32})/?")


def trained_key(fingerprint: str) -> str:
    """Key of the unit of a quantiser."""
    return f"trained-{fingerprint}"


def has_trained(folder: str, fingerprint: str) -> bool:
    """Whether the unit of a quantiser exists in `work_dir/graph`."""
    return store.exists(artifacts.unit_url(folder, trained_key(fingerprint), artifacts.RECEIPT))


def add_quantiser(config: RunConfig, pool: InputPool, planned: Planned, embed: Planned) -> Planned:
    """Return a planned graph with the quantiser that the configuration gives it; writes nothing.

    `auto`: none if the graph that trains its own is complete, else that of the latest graph with the
    same parameters whose run had at least half of its shards in this pool.

    Raises:
        UserError: `graph.quantiser` names no graph that has one.
    """
    asked = config.graph.quantiser
    if asked == NEW or not config.graph.n_neighbors:
        return planned
    if asked != AUTO:
        return _with(planned, find_named(config.work_dir, asked)[1])
    latest = _read_latest(planned, embed)
    if latest is None or planned.find() is not None:
        return planned
    shards = set(_name_shards(pool))
    if 2 * sum(shard in shards for shard in latest["shards"]) < len(latest["shards"]):
        return planned
    for fingerprint in (latest["given"], latest[QUANTISER]):
        if fingerprint is not None and _with(planned, fingerprint).find() is not None:
            return _with(planned, fingerprint)
    if not has_trained(planned.folder, latest[QUANTISER]):
        return planned
    return _with(planned, latest[QUANTISER])


def find_named(work_dir: str, name: str) -> tuple[str, str]:
    """Find the quantiser of a graph that is named by its fingerprint or its folder.

    Args:
        work_dir: URL.
        name: `FINGERPRINT`, or `WORK_DIR/graph/FINGERPRINT`.

    Returns:
        URL of the folder `graph` of the work_dir that has it, and the quantiser's fingerprint.

    Raises:
        UserError: there is no such graph, or it has no quantiser.
    """
    match = _NAMED.fullmatch(name)
    if match is None:
        raise UserError(
            f"graph.quantiser: found {name}; expected auto, new, the id of a run, the fingerprint of a "
            "graph, or its folder WORK_DIR/graph/FINGERPRINT"
        )
    folder = store.join(match[1] or work_dir, "graph")
    if has_trained(folder, match[2]):
        return folder, match[2]
    manifest = artifacts.read_manifest(folder, match[2])
    if manifest is None:
        raise UserError(
            f"graph.quantiser: found no graph {store.redact(folder)}/{match[2]}; expected a complete one"
        )
    if manifest.facts.get(QUANTISER) is None:
        raise UserError(
            f"graph.quantiser: graph {match[2]} has no quantiser, since it was searched exactly; expected "
            "another graph, auto or new"
        )
    return folder, manifest.facts[QUANTISER]


def find_previous_graph(planned: Planned, embed: Planned) -> str | None:
    """Fingerprint of the latest graph with the same parameters, if it is another one."""
    latest = _read_latest(planned, embed)
    return None if latest is None or latest["graph"] == planned.fingerprint else latest["graph"]


def record_latest(pool: InputPool, planned: Planned, embed: Planned, facts: Mapping[str, Any]) -> None:
    """Record a complete graph as the latest, unless it has no quantiser or is recorded already."""
    if facts.get(QUANTISER) is None:
        return
    value = {
        "graph": planned.fingerprint,
        QUANTISER: facts[QUANTISER],
        "given": planned.inputs.get(QUANTISER),
        "shards": _name_shards(pool),
    }
    if _read_latest(planned, embed) != value:
        artifacts.write_json(_url(planned, embed), value)


def _with(planned: Planned, fingerprint: str) -> Planned:
    return dataclasses.replace(planned, inputs={**planned.inputs, QUANTISER: fingerprint})


def _url(planned: Planned, embed: Planned) -> str:
    name = artifacts.fingerprint("latest", planned.params, embed.params)
    return store.join(planned.folder, f"latest-{name}.json")


def _read_latest(planned: Planned, embed: Planned) -> dict[str, Any] | None:
    url = _url(planned, embed)
    try:
        value = artifacts.read_json(url)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        log.warning("%s: damaged, ignored (%s)", store.redact(url), error)
        return None
    return value


def _name_shards(pool: InputPool) -> list[str]:
    return [artifacts.fingerprint(shard.name, shard.size, shard.version)[:8] for shard in pool.shards]
