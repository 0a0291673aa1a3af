"""What the report shows of an increment, from real runs over tables that come and go."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from d2prune.errors import DamagedFileError
from d2prune.parts.reader import Parts
from d2prune.report.formatting import DASH
from d2prune.report.increment import read_increment
from d2prune.report.record import ReportParams
from d2prune.report.stage import write_report
from d2prune.runs import history, pruning
from d2prune.verify.folder import verify
from tests.table_nights import Nights, copy_of
from tests.tables import make_rows

PARAMS = ReportParams(gallery=8)


def read_kept(record, manifests=None):
    """uid -> kept, of a run."""
    found = manifests or record.manifests
    pool = Parts.of(record.work_dir, {name: found[name] for name in ("embed", "select")})
    tables = [table for _, table in pool.read_all("decisions.parquet", ["uid", "kept"])]
    rows = pa.concat_tables(tables).to_pylist()
    return {row["uid"]: row["kept"] for row in rows}


def pool_of(record):
    shown = {name: found for name, found in record.manifests.items() if name != "rank"}
    return Parts.of(record.work_dir, shown)


def find(record, params=PARAMS):
    return read_increment(pool_of(record), record, params)


def by_name(increment):
    return {row.name: (row.entered, row.left) for row in increment.movements}


def run_and_verify(nights, shards):
    record, result = nights.run(shards)
    # Before the pool, with which the tables of kept samples are compared, changes again.
    assert verify(result.output, full=True) == []
    return record, result


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three nights; the second adds, removes and replaces a shard, and renames one."""
    nights = Nights(tmp_path_factory.mktemp("nights"))
    shards = {name: make_rows(60, seed) for seed, name in enumerate("abcdef")}
    records = [run_and_verify(nights, shards)]
    del shards["b"]
    shards |= {"c": make_rows(50, 20), "g": make_rows(60, 21), "z": shards.pop("d")}
    records.append(run_and_verify(nights, shards))
    records.append(run_and_verify(nights, shards | {"h": make_rows(30, 22)}))
    return nights.folder, records


def test_counts_equal_a_comparison_of_all_uids(chain):
    _, records = chain
    for (before, _), (now, _) in itertools.pairwise(records):
        found = find(now)
        assert found.run_id == before.run_id
        was, is_kept = read_kept(before), read_kept(now)
        assert (found.new, found.removed) == (
            len(is_kept.keys() - was.keys()),
            len(was.keys() - is_kept.keys()),
        )
        assert found.common == len(was.keys() & is_kept.keys())
        kept = [{uid for uid, one in each.items() if one} for each in (was, is_kept)]
        assert (found.entered, found.left) == (len(kept[1] - kept[0]), len(kept[0] - kept[1]))
        rows = by_name(found)
        assert rows["New sample"] == (len(kept[1] - was.keys()), 0)
        assert rows.get("Removed sample", (0, 0)) == (0, len(kept[0] - is_kept.keys()))
        facts = {fact.name: (fact.before, fact.now) for fact in found.facts}
        assert facts["Samples in the pool"] == (str(len(was)), str(len(is_kept)))
        assert facts["Kept"] == (str(len(kept[0])), str(len(kept[1])))
    second = find(records[1][0])
    # The renamed shard is new and removed, but its samples are neither.
    assert str(second.shards) == "2 shards new, 2 removed, 1 replaced"
    assert second.new == 110 and not second.settings


def test_the_books_balance_on_every_night(chain):
    _, records = chain
    for record, result in records:
        counts = {stage: manifest.counters for stage, manifest in result.manifests.items()}
        assert counts["embed"]["embedded"] == counts["graph"]["nodes"] == len(read_kept(record))
        decided = sum(counts["select"][name] for name in ("kept", "below_budget", "cut_off"))
        assert decided == counts["embed"]["embedded"]
        assert counts["write"]["written"] == counts["select"]["kept"] == sum(read_kept(record).values())


def test_a_page_shows_the_increment_and_the_runs_so_far(chain):
    _, records = chain
    page = Path(records[2][1].report).read_text()
    assert f"This run continues run <code>{records[1][0].run_id}</code>, with 1 shard new." in page
    assert "30 samples are new, 0 are gone" in page and "Over 3 runs" in page
    for record, _ in records:
        assert f"<code>{record.run_id[:8]}</code>" in page
    first = Path(records[0][1].report).read_text()
    assert "Since the run before" not in first and "Over " not in first


def test_without_the_artifacts_of_the_earlier_run_one_line_says_so(chain):
    _, records = chain
    record = records[2][0]
    gone = replace(record, earlier=replace(record.earlier, manifests={}))
    assert find(gone).gone == "its artifacts were pruned or are damaged"
    page = Path(write_report(gone, PARAMS)).read_text()
    assert "What changed since then is not known: its artifacts were pruned or are damaged." in page
    # The runs so far are those that the page before handed on.
    assert "Over 3 runs" in page
    assert find(replace(record, earlier=None)) is None


def test_damage_of_the_earlier_run_is_a_line_and_of_this_run_an_error(chain):
    _, records = chain
    record = records[2][0]

    earlier = record.earlier.manifests["select"]
    for manifest, is_own in ((earlier, False), (record.select, True)):
        path = Path(record.work_dir) / "select" / "units" / manifest.units[0].key / "decisions.parquet"
        data = path.read_bytes()
        path.write_bytes(data[:-50])
        if is_own:
            with pytest.raises(DamagedFileError):
                find(record)
        else:
            assert "decisions.parquet: found" in find(record).gone
        path.write_bytes(data)


def test_a_near_copy_displaces_a_sample_and_frees_it_when_it_leaves(tmp_path):
    nights = Nights(tmp_path)
    # Only copies support each other, so that the first of two has the higher score.
    only_copies = {"select": {"gamma_forward": 1e6}}
    shards = {name: make_rows(40, seed) for seed, name in enumerate("ab")}
    best = int(np.argmax(shards["a"].score))
    shards["a"].score[best] = 2.0
    best_uid = shards["a"].uid[best]
    first, _ = nights.run(shards, **only_copies)
    assert read_kept(first)[best_uid]
    second, _ = nights.run(shards | {"0": copy_of(shards["a"], best, 3.0, "f" * 32)}, **only_copies)
    assert not read_kept(second)[best_uid]
    found = find(second)
    assert by_name(found)["New near neighbour"][1] >= 1
    pairs = found.examples["displaced"].reshape(-1, 2)
    uids = pool_of(second).take(pairs.reshape(-1), "samples.parquet", ["uid"])["uid"].to_pylist()
    assert (best_uid, "f" * 32) in set(zip(uids[::2], uids[1::2], strict=True))
    third, _ = nights.run(shards | {"d": make_rows(1, 9)}, **only_copies)
    assert third.earlier.run_id == second.run_id
    assert by_name(find(third))["Suppressor removed"][0] >= 1
    page = Path(write_report(third, PARAMS)).read_text()
    assert "Kept, since a suppressor left the pool" in page


def test_a_shard_with_the_same_uids_and_other_scores_has_replaced_samples(tmp_path):
    nights = Nights(tmp_path)
    shards = {name: make_rows(40, seed) for seed, name in enumerate("ab")}
    nights.run(shards, select={"method": "score"})
    a, more = shards["a"], make_rows(1, 9)
    # One more row, so that the file has another size.
    scores = np.concatenate([1 - a.score, more.score])
    arrays = {name: np.concatenate([getattr(a, name), getattr(more, name)]) for name in ("image", "text")}
    other = replace(a, uid=[*a.uid, *more.uid], caption=[*a.caption, "more"], score=scores, **arrays)
    second, _ = nights.run(shards | {"a": other}, select={"method": "score"})
    rows = by_name(find(second))
    assert sum(rows["Replaced sample"]) > 0 and "Own score" not in rows


def test_without_neighbours_only_the_threshold_moves_old_samples(tmp_path):
    nights = Nights(tmp_path)
    shards = {name: make_rows(40, seed) for seed, name in enumerate("ab")}
    nights.run(shards, select={"method": "score"})
    second, _ = nights.run(shards | {"c": make_rows(40, 5)}, select={"method": "score"})
    rows = by_name(find(second))
    assert rows.keys() == {"New sample", "Threshold moved"} and sum(rows["Threshold moved"]) > 0


def test_other_settings_are_named_instead_of_causes(tmp_path):
    nights = Nights(tmp_path)
    shards = {name: make_rows(40, seed) for seed, name in enumerate("ab")}
    nights.run(shards)
    settings = {"select": {"fraction": 0.6}, "score": {"difficulty": "2 * clip_score"}}
    second, result = nights.run(shards | {"c": make_rows(40, 5)}, **settings)
    found = find(second)
    lines = ("rank.difficulty: clip_score -> 2 * clip_score", "select.fraction: 0.3 -> 0.6")
    assert found.settings == lines
    # The mean of another score is none to compare with.
    (mean,) = [fact for fact in found.facts if fact.name == "Mean 2 * clip_score of the kept"]
    assert mean.before == DASH != mean.now
    assert by_name(found).keys() <= {"New sample", "Removed sample", "Other settings"}
    assert not len(found.examples["displaced"]) and not len(found.examples["freed"])
    assert "<strong>Other settings.</strong>" in Path(result.report).read_text()


def test_groups_have_thresholds_of_their_own(tmp_path):
    nights = Nights(tmp_path)
    shards = {name: make_rows(40, seed) for seed, name in enumerate("ab")}
    settings = {"select": {"method": "score", "groups": "shard"}}
    nights.run(shards, **settings)
    second, _ = nights.run(shards | {"c": make_rows(200, 5)}, **settings)
    found = find(second)
    # Each group keeps its share, so nothing in the old ones moves.
    assert by_name(found).keys() == {"New sample"}
    assert "Threshold of the selection score" not in {fact.name for fact in found.facts}


def test_repeated_uids_are_samples_of_their_own(tmp_path):
    nights = Nights(tmp_path)
    shards = {name: make_rows(30, seed) for seed, name in enumerate("ab")}
    nights.run(shards)
    twice = replace(shards["a"], uid=[shards["a"].uid[0]] * 30)
    second, _ = nights.run(shards | {"c": twice})
    found = find(second)
    assert (found.new, found.removed, found.common) == (30, 0, 60)
    # Of the replaced shard's thirty samples with one uid, one was there before.
    third, _ = nights.run(shards | {"c": make_rows(1, 8), "d": twice})
    assert (find(third).new, find(third).removed) == (1, 0)


def test_a_pruned_run_leaves_its_point_on_the_curve(tmp_path):
    nights = Nights(tmp_path)
    shards = {name: make_rows(30, seed) for seed, name in enumerate("ab")}
    first, _ = nights.run(shards)
    second, _ = nights.run(shards | {"c": make_rows(30, 5)})
    pruning.prune(second.work_dir, 1)
    assert not list((tmp_path / "work" / "report").glob(f"*{first.run_id}*"))
    third, result = nights.run(shards | {"d": make_rows(30, 6)})
    page = Path(result.report).read_text()
    assert "Over 3 runs" in page and first.run_id[:8] in page
    # Without what the page before handed on, the runs are those whose artifacts are there.
    shutil.rmtree(Path(third.earlier.report).parent)
    assert "Over 2 runs" in Path(write_report(third, PARAMS)).read_text()
    # Once the run before is pruned, a page that is made again has its own points.
    pruning.prune(third.work_dir, 1)
    (entry,) = (entry for _, entry in history.read_runs(third.work_dir))
    again = replace(third, earlier=history.find_earlier(third.work_dir, entry))
    assert not again.earlier.manifests
    assert "Over 2 runs" in Path(write_report(again, PARAMS)).read_text()
