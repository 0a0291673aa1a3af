"""The points of the runs so far, and the curves through them."""

from d2prune.report.trend import Point, extend


def point(run_id, **measures):
    values = {"mean_score": None, "copies": None, "recall": None}
    return Point(run_id, "", 10, 5, **values | measures)


def test_a_run_is_among_its_points_once():
    points = ()
    for run_id in ("a", "b", "a", "a", "c"):
        points = extend(points, point(run_id))
    assert [each.run_id for each in points] == ["b", "a", "c"]
