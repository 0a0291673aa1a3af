"""The estimated cost of an increment, against the measurements that it was fitted to."""

from dataclasses import replace

import pytest

from d2prune.estimate.costs import Fleet, Rates, graph_seconds, make_plan
from d2prune.estimate.night import Night, count_sought, increment_seconds, plan_night
from d2prune.estimate.work import Workload

WORK = Workload(samples=200_000, sample_bytes=30_000, shards=20, dimension=512, sides=1)
RATES, FLEET = Rates(embed_s=1 / 500), Fleet(cpus=16)


def night(work, new=0, removed=0, **more):
    return Night("f" * 32, work.samples, 1, new, 1, removed, 1, new, **more)


@pytest.mark.parametrize(("added", "measured"), [(0.0, 0.20), (0.01, 0.19), (0.1, 0.37)])
def test_the_share_of_a_full_build_is_near_the_measured_one(added, measured):
    # docs/results/incremental.md
    work = replace(WORK, samples=round(200_000 * (1 + added)))
    share = increment_seconds(work, RATES, night(work, round(200_000 * added))) / graph_seconds(work, RATES)
    assert share == pytest.approx(measured, rel=0.1)


def test_an_increment_costs_less_as_the_pool_grows_and_more_with_what_changes():
    def share(samples, **changes):
        work = replace(WORK, samples=samples)
        return increment_seconds(work, RATES, night(work, **changes)) / graph_seconds(work, RATES)

    assert share(10**8) < share(10**7) < share(10**6) < share(200_000)
    assert share(10**6) < share(10**6, new=10_000) < share(10**6, new=100_000)
    assert share(10**6) < share(10**6, removed=1_000) < share(10**6, removed=100_000)
    # A tenth of 994 rows was measured: 543 of 747 kept rows lost a neighbour when 247 went.
    work = replace(WORK, samples=997, n_neighbors=5)
    assert count_sought(work, night(work, 250, 247)) == pytest.approx(250 + 543, rel=0.05)


def test_only_what_is_new_is_embedded():
    work = replace(WORK, samples=1_000_000, shards=100)
    full = {plan.stage: plan for plan in make_plan(work, RATES, FLEET)}
    plans = {plan.stage: plan for plan in plan_night(work, RATES, FLEET, night(work, 10_000))}
    assert list(plans) == list(full)
    assert plans["embed"].cpu_hours == pytest.approx(full["embed"].cpu_hours / 100)
    assert plans["graph"].cpu_hours < full["graph"].cpu_hours / 4
    assert plans["graph"].read < full["graph"].read
    assert plans["rank"] == full["rank"]
    whole = {p.stage: p for p in plan_night(work, RATES, FLEET, night(work, 10_000, why_full="small"))}
    assert whole["graph"] == full["graph"] and whole["embed"] == plans["embed"]
