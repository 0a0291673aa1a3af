from pipeline.embed import pace as pace_module
from pipeline.execution import metrics


def test_the_line_tells_what_was_done_since(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace_module.time, "monotonic", lambda: now[0])
    metrics.add(metrics.SAMPLES_EMBEDDED, 5000)
    line = pace_module.pace()
    assert line() == ""
    now[0] += 10
    metrics.add(metrics.SAMPLES_EMBEDDED, 12_000)
    metrics.add(metrics.SAMPLES_REJECTED, 3, reason="a")
    metrics.merge({(metrics.SAMPLES_REJECTED, (("reason", "b"),)): 4})
    metrics.add(metrics.EMBED_BUSY_SECONDS, 9)
    metrics.add(metrics.EMBED_WAIT_SECONDS, 1)
    assert line() == "1,200 samples/s, model busy 90%, waiting 10%, 7 rejected"
