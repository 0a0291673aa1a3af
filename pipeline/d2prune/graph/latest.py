"""Which quantiser a graph is given: that of the latest compatible graph, a named one, or none.

`graph/latest-<hash>.json` names the graph that the latest run with some parameters used; the hash
is that of the parameters of the graph and the embeddings. Read when a run is planned, so this
module loads no numerical code.
"""

import dataclasses
import json
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
from d2prune.store.manifest_file import load_head

log = logging.getLogger(__name__)

AUTO, NEW = "auto", "new"
QUANTISER, UNUSED = "quantiser", "unused_quantiser"
# Option -> parameter of the graph, and fact of the quantiser.
_TRAINED_WITH = {
    "graph.features": "features",
    "graph.model": "embeddings",
    "graph.nlist": "nlist",
    "graph.nprobe": "nprobe",
    "graph.seed": "seed",
}
_NAMED = re.compile(r"(?:(.+)/graph/)?([0-9a-f]{32})/?")


def trained_key(fingerprint: str) -> str:
    """Key of the unit of a quantiser."""
    return f"trained-{fingerprint}"


def has_trained(folder: str, fingerprint: str) -> bool:
    """Whether the unit of a quantiser exists in `work_dir/graph`."""
    return artifacts.read_receipt(folder, trained_key(fingerprint)) is not None


def add_quantiser(config: RunConfig, pool: InputPool, planned: Planned, embed: Planned) -> Planned:
    """Return a planned graph with the quantiser that the configuration gives it; writes nothing.

    `auto`: none if the graph that trains its own is complete, else that of the latest graph with the
    same parameters whose run had at least half of its shards in this pool. What the latest run planned
    is planned again, whether or not its graph is still complete.

    Raises:
        UserError: `graph.quantiser` names no graph that has one, or one of other features, lists or seed.
    """
    asked = config.graph.quantiser
    if asked == NEW or not config.graph.n_neighbors:
        return planned
    if asked != AUTO:
        folder, fingerprint = find_named(config.work_dir, asked)
        _check_params(folder, fingerprint, planned.params)
        return _with(planned, fingerprint)
    latest = _read_latest(planned, embed)
    if latest is None or latest["graph"] == planned.fingerprint or planned.find() is not None:
        return planned
    shards = set(_name_shards(pool))
    if 2 * sum(shard in shards for shard in latest["shards"]) < len(latest["shards"]):
        return planned
    if not has_trained(planned.folder, latest[QUANTISER]):
        log.warning("graph: quantiser %s is damaged or lost; another is trained", latest[QUANTISER])
        return planned
    if latest["given"] is not None:
        before = _with(planned, latest["given"])
        is_latest = latest["graph"] == before.fingerprint and has_trained(planned.folder, latest["given"])
        if is_latest or before.find() is not None:
            return before
    return _with(planned, latest[QUANTISER])


def _check_params(folder: str, fingerprint: str, params: Any) -> None:
    """Check that the parameters of a graph are those that a quantiser was trained with, where they say."""
    receipt = artifacts.read_receipt(folder, trained_key(fingerprint))
    trained = {} if receipt is None else receipt.facts
    for option, name in _TRAINED_WITH.items():
        asked, found = getattr(params, name), trained.get(name)
        if asked is not None and asked != found:
            raise UserError(f"{option}: found {asked}; expected {found}, as quantiser {fingerprint} has")


def find_named(work_dir: str, name: str) -> tuple[str, str]:
    """Find a quantiser that is named by its fingerprint, that of a graph that has it, or a folder.

    Args:
        work_dir: URL.
        name: `FINGERPRINT`, or `WORK_DIR/graph/FINGERPRINT`, of a graph or a quantiser.

    Returns:
        URL of the folder `graph` of the work_dir that has it, and the quantiser's fingerprint.

    Raises:
        UserError: there is no such graph, or it has no quantiser, or no longer.
    """
    match = _NAMED.fullmatch(name)
    if match is None:
        raise UserError(
            f"graph.quantiser: found {name}; expected auto, new, the id of a run, the fingerprint of a "
            "graph or of a quantiser, or WORK_DIR/graph/FINGERPRINT"
        )
    folder = store.join(match[1] or work_dir, "graph")
    if has_trained(folder, match[2]):
        return folder, match[2]
    manifest = artifacts.read_manifest(folder, match[2])
    if manifest is None:
        raise UserError(
            f"graph.quantiser: found no graph {store.redact(folder)}/{match[2]}; expected a complete one, or "
            "the fingerprint of a quantiser"
        )
    fingerprint = manifest.facts.get(QUANTISER)
    if fingerprint is None:
        raise UserError(
            f"graph.quantiser: graph {match[2]} has no quantiser, since it was searched exactly; expected "
            "another graph, auto or new"
        )
    if not has_trained(folder, fingerprint):
        raise UserError(
            f"graph.quantiser: found no quantiser {fingerprint} in {store.redact(folder)}, which graph "
            f"{match[2]} has; expected another graph, auto or new, as in --set graph.quantiser=auto"
        )
    return folder, fingerprint


def find_source(config: RunConfig) -> str | None:
    """URL of the folder `graph` of the other work_dir that the configuration names; None if it names none."""
    match = _NAMED.fullmatch(config.graph.quantiser)
    return None if match is None or match[1] is None else find_named(config.work_dir, match[0])[0]


def find_previous_graph(planned: Planned, embed: Planned) -> str | None:
    """Fingerprint of the latest graph with the same parameters, if it is another one."""
    latest = _read_latest(planned, embed)
    return None if latest is None or latest["graph"] == planned.fingerprint else latest["graph"]


def log_fresh_start(planned: Planned, embed: Planned) -> None:
    """Log that a graph was built in full since those of the work_dir with its parameters kept no lists."""
    if _read_latest(planned, embed) is not None:
        return
    params = json.loads(artifacts.canonical_json(planned.params))
    for file in store.list_files(planned.folder, f"*/{artifacts.MANIFEST}"):
        try:
            head = load_head(file.url)
            facts = head["facts"]
            kept_none = head["params"] == params and facts["nlist"] is not None and QUANTISER not in facts
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            continue
        if kept_none:
            log.info(
                "graph: built in full, since the earlier graphs here kept no lists; later runs continue it"
            )
            return


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
