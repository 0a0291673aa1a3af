from d2prune.embed.progress_note import start_note
from d2prune.execution import metrics


def test_the_line_tells_what_was_done_since():
    metrics.add(metrics.SAMPLES_REJECTED, 5000, reason="a")
    line = start_note()
    assert line() == ""
    metrics.add(metrics.SAMPLES_REJECTED, 3, reason="a")
    metrics.merge({(metrics.SAMPLES_REJECTED, (("reason", "b"),)): 1004})
    assert line() == "1,007 rejected"
    metrics.add(metrics.EMBED_BUSY_SECONDS, 9)
    metrics.add(metrics.EMBED_WAIT_SECONDS, 1)
    assert line() == "model busy 90%, waiting 10%, 1,007 rejected"
    metrics.add(metrics.SAMPLES_READ, 2000)
    metrics.add(metrics.SAMPLES_DECODED_REMOTELY, 500)
    assert line() == "model busy 90%, waiting 10%, 25% decoded remotely, 1,007 rejected"
