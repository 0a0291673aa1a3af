"""Files of tests side by side, in forks of one process that has collected them.

With xdist each process imports and collects for itself, 13 s of CPU apiece, and passes three messages a test.
"""

import gc
import multiprocessing
import multiprocessing.connection
import pickle
import re
import warnings
from collections import deque
from multiprocessing.connection import Connection

import pytest
from _pytest.runner import CallInfo

from tests import programs


def shares_ray(nodeid: str) -> bool:
    """Whether a test runs on the test session's Ray, by its name: one process runs them all."""
    return re.search(r"_on_ray|\[ray[-\]]", nodeid) is not None


class SideBySide:
    """Replaces pytest's loop over tests where there is more than one group of them."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Hand groups to the processes in their order, and report what they report."""
        option = session.config.option
        if session.testsfailed or option.collectonly or option.usepdb:
            return None
        groups: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            name = "ray" if shares_ray(item.nodeid) else str(item.path)
            groups.setdefault(name, []).append(item)
        n_processes = min(self.processes, len(groups))
        if n_processes < 2:
            return None
        # Made here, or each process would make its own.
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        # Collections of garbage pass over modules and tests, and do not write to their pages.
        gc.collect()
        gc.freeze()
        programs.serve_forks()
        forks = [_Fork(session, list(groups.values()), number) for number in range(n_processes)]
        try:
            _serve(session, forks, deque(range(len(groups))))
        finally:
            for fork in forks:
                fork.connection.close()
            for fork in forks:
                fork.process.join()
        return True


def _serve(session, forks, waiting):
    """Answer each process that asks for a group, until all have ended."""
    busy = {fork.connection: fork for fork in forks}
    while busy:
        for connection in multiprocessing.connection.wait(list(busy)):
            fork = busy[connection]
            try:
                kind, data = connection.recv()
            except (EOFError, ConnectionResetError):
                del busy[connection]
                fork.process.join()
                if fork.item is not None or fork.process.exitcode:
                    _report_crash(session, fork)
                continue
            if kind == "next":
                fork.item = None
                stop = session.shouldfail or session.shouldstop
                connection.send(None if stop or not waiting else waiting.popleft())
            elif kind == "start":
                fork.item = data
            else:
                _report(session.config.hook, kind, data, session.config)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _report(hook, kind, data, config):
    if kind == "warning":
        message, category, file, line, when, nodeid, location = data
        hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": warnings.WarningMessage(message, category, file, line),
                "when": when,
                "nodeid": nodeid,
                "location": location,
            }
        )
        return
    for serial in data:
        report = hook.pytest_report_from_serializable(config=config, data=serial)
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)


def _report_crash(session, fork):
    """A process that ended by itself: its test fails, and no further file is started."""
    item = session.items[fork.item or 0]
    what = "the test process" if fork.item is not None else "a test process, between tests,"
    text = f"{item.nodeid}: {what} ended with exit code {fork.process.exitcode}"
    report = pytest.TestReport(
        item.nodeid, item.location, {}, "failed", text, "call", [("exit code", str(fork.process.exitcode))]
    )
    session.config.hook.pytest_runtest_logreport(report=report)
    session.shouldfail = session.shouldfail or text


class _Fork:
    def __init__(self, session, groups, number):
        self.connection, theirs = multiprocessing.Pipe()
        self.item: int | None = None
        self.process = multiprocessing.get_context("fork").Process(
            target=_run, args=(session, groups, number, theirs, self.connection)
        )
        self.process.start()
        theirs.close()


def _run(session, groups, number, connection: Connection, theirs: Connection) -> None:
    """Run groups in a fork until there are none."""
    theirs.close()
    config = session.config
    config.pluginmanager.unregister(name="terminalreporter")
    relay = _Relay(config, connection)
    config.pluginmanager.register(relay)
    # Its own files for what tests print, and its own folder.
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    factory = config._tmp_path_factory
    factory._basetemp = factory.getbasetemp() / f"process-{number}"
    factory._basetemp.mkdir(mode=0o700)
    numbers = {id(item): k for k, item in enumerate(session.items)}
    item = session.items[0]
    try:
        while (group := relay.ask()) is not None:
            for item, following in zip(groups[group], [*groups[group][1:], session], strict=True):
                relay.start(numbers[id(item)])
                # After the last one, what the next item would keep: the fixtures of the session.
                config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                relay.finish()
                if session.shouldfail or session.shouldstop:
                    break
    except (KeyboardInterrupt, EOFError, OSError):
        # Interrupted, or the process that collected has ended.
        pass
    capture.resume_global_capture()
    ended = CallInfo.from_call(lambda: session._setupstate.teardown_exact(None), "teardown")
    if ended.excinfo is not None:
        relay.pytest_runtest_logreport(pytest.TestReport.from_item_and_call(item, ended))
        relay.finish()
    capture.stop_global_capturing()
    connection.close()


class _Relay:
    """Sends the reports of a fork, those of one test together."""

    def __init__(self, config, connection):
        self.config, self.connection, self.reports = config, connection, []

    def ask(self) -> int | None:
        self.connection.send(("next", None))
        return self.connection.recv()

    def start(self, number: int) -> None:
        self.connection.send(("start", number))

    def finish(self) -> None:
        self.connection.send(("reports", self.reports))
        self.reports = []

    def pytest_runtest_logreport(self, report):
        serial = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.reports.append(serial)

    def pytest_warning_recorded(self, warning_message, when, nodeid, location):
        message = warning_message
        category = message.category
        try:
            pickle.dumps(category)
        except (pickle.PicklingError, AttributeError):
            category = Warning
        data = (str(message.message), category, message.filename, message.lineno, when, nodeid, location)
        self.connection.send(("warning", data))
