"""The note for the progress display."""

from d2prune.embed.progress_note import start_note
from d2prune.execution import metrics


def test_note_covers_the_work_since_its_start():
    metrics.add(metrics.SAMPLES_REJECTED, 5000, reason="a")
    note = start_note("loads the model")
    assert note() == "loads the model"
    metrics.add(metrics.SAMPLES_REJECTED, 3, reason="a")
    metrics.merge({(metrics.SAMPLES_REJECTED, (("reason", "b"),)): 1004})
    assert note() == "1,007 rejected"
    metrics.add(metrics.EMBED_BUSY_SECONDS, 9)
    metrics.add(metrics.EMBED_WAIT_SECONDS, 1)
    assert note() == "model busy 90%, waiting 10%, 1,007 rejected"
    metrics.add(metrics.SAMPLES_READ, 2000)
    metrics.add(metrics.SAMPLES_DECODED_REMOTELY, 500)
    assert note() == "model busy 90%, waiting 10%, 25% decoded remotely, 1,007 rejected"


def test_note_is_empty_once_samples_without_rejects_are_read():
    note = start_note("loads the model")
    metrics.add(metrics.SAMPLES_READ, 1)
    assert note() == "" and start_note()() == ""
