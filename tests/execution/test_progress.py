"""The progress display, with a clock that the test sets."""

import io
import logging
import sys
import time

import pytest

from d2prune.execution import progress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    # The clock moves by itself in no test but one.
    monkeypatch.setattr(progress, "_TICK_S", 1000.0)
    monkeypatch.setattr(progress, "format_memory", lambda: "memory 1.0 of 4 GB")
    return clock


def slow_items(clock, count, seconds):
    for item in range(count):
        clock.now += seconds
        yield item


def test_without_a_terminal_a_line_is_logged_every_four_seconds(clock, caplog):
    caplog.set_level(logging.INFO, "d2prune")
    items = list(progress.track(slow_items(clock, 10, 2.0), "embed", 20, 10, lambda item: 1000))
    assert items == list(range(10))
    assert caplog.messages == [
        "embed: 12 of 20 units, 500 samples/s, memory 1.0 of 4 GB",
        "embed: 14 of 20 units, 500 samples/s, about 12 s left, memory 1.0 of 4 GB",
        "embed: 16 of 20 units, 500 samples/s, about 8 s left, memory 1.0 of 4 GB",
        "embed: 18 of 20 units, 500 samples/s, memory 1.0 of 4 GB",
        "embed: 20 of 20 units, 500 samples/s, about 0 s left, memory 1.0 of 4 GB",
    ]


def test_after_a_minute_a_line_is_logged_every_ten_seconds(clock, caplog):
    caplog.set_level(logging.INFO, "d2prune")
    list(progress.track(slow_items(clock, 100, 1.0), "embed", 100, 0))
    # 15 lines every 4 s, then every 10 s from the last of them.
    assert len(caplog.messages) == 14 + 4


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (22, "22 s"), (120.4, "2 min 00 s"), (6000, "1 h 40 min")]
)
def test_times_are_shown_in_seconds_minutes_or_hours(seconds, text):
    assert progress.format_seconds(seconds) == text


def test_lines_come_also_while_nothing_finishes(clock, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "d2prune")
    monkeypatch.setattr(progress, "_TICK_S", 0.001)
    with progress.Live("report", 0, "") as outer:
        clock.now += 5
        wait_for(lambda: len(caplog.messages) == 1)
        # The stage around it is silent while its units are shown.
        with progress.Live("report: pages", 3, "pages"):
            clock.now += 5
            wait_for(lambda: len(caplog.messages) == 2)
            assert outer._last_log < clock.now
    assert caplog.messages == [
        "report: 5 s so far, memory 1.0 of 4 GB",
        "report: pages: 0 of 3 pages, memory 1.0 of 4 GB",
    ]


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


def test_rounds_show_their_note_and_a_total_that_was_unknown_at_the_start(clock, caplog):
    caplog.set_level(logging.INFO, "d2prune")
    with progress.Live("rank", 0, "nodes") as live:
        live.update(0, note="round 0", total=1000)
        clock.now += 20
        live.update(600, note="round 3, 12 messages", total=1000)
    assert caplog.messages == [
        "rank: 600 of 1,000 nodes, 30 nodes/s, round 3, 12 messages, memory 1.0 of 4 GB"
    ]


def test_quick_or_complete_work_is_not_shown(clock, caplog):
    caplog.set_level(logging.INFO, "d2prune")
    assert list(progress.track(slow_items(clock, 3, 0.1), "select", 3, 0)) == [0, 1, 2]
    assert list(progress.track(iter([]), "select", 3, 3)) == []
    assert caplog.messages == []


def test_a_bar_on_a_terminal_is_removed_at_the_end(clock, monkeypatch, caplog):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    caplog.set_level(logging.INFO, "d2prune")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ValueError, match="stop"):
        for item in progress.track(slow_items(clock, 10, 4.0), "embed", 10, 0, lambda item: 1000):
            if item == 5:
                raise ValueError("stop")
    shown = sys.stderr.getvalue()
    assert "embed" in shown and "250 samples/s, memory 1.0 of 4 GB" in shown
    # The cursor is shown again and the bar removed, also when the work fails.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert caplog.messages == []


def test_memory_of_this_machine_is_read():
    assert progress.format_memory().startswith("memory ")
