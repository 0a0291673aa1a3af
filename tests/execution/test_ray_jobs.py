"""Following a job: its log once, its exit code, Ctrl-C in order. The job server is a script of answers."""

import types

import aiohttp
import pytest

from d2prune.cli.main import main
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import ray_jobs
from d2prune.execution.ray_jobs import RayJob


class Server:
    """Sends each log in turn, from its beginning; an exception in a log breaks the connection there."""

    def __init__(self, *logs, status="SUCCEEDED", code=0):
        self.logs, self.status, self.code, self.stopped = list(logs), status, code, []

    async def tail_job_logs(self, name):
        for chunk in self.logs.pop(0):
            if not isinstance(chunk, str):
                raise chunk
            yield chunk

    def get_job_info(self, name):
        status = types.SimpleNamespace(value=self.status, is_terminal=lambda: not self.logs)
        return types.SimpleNamespace(status=status, driver_exit_code=self.code, message="it says why")

    def stop_job(self, name):
        self.stopped.append(name)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(ray_jobs.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize(
    "status, code, expected",
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 1, 1),
        ("FAILED", 130, 130),
        ("FAILED", None, 1),
        ("FAILED", -9, 1),
        ("STOPPED", None, 130),
        ("STOPPED", -15, 130),
    ],
)
def test_exit_code_is_that_of_the_driver(capsys, status, code, expected):
    assert RayJob(Server(["a\n"], status=status, code=code), "job").follow() == expected
    shown = capsys.readouterr()
    assert shown.out == "a\n"
    assert ("it says why" in shown.err) == (status != "SUCCEEDED" and (code is None or code < 0))


@pytest.mark.parametrize(
    "broken", [RuntimeError("closed"), ConnectionError("gone"), aiohttp.ServerDisconnectedError()]
)
def test_log_continues_where_it_broke_off(capsys, broken):
    server = Server(["one\ntw", "o\n", broken], [broken], ["one\n", "two\nthr", "ee\nlast"])
    assert RayJob(server, "job").follow() == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\nlast\n"


def test_ctrl_c_stops_the_job_and_prints_its_end(capsys):
    server = Server(["one\n", KeyboardInterrupt()], ["one\n", "interrupted\n"], status="STOPPED", code=-15)
    assert RayJob(server, "job").follow() == 130
    assert server.stopped == ["job"]
    shown = capsys.readouterr()
    assert shown.out == "one\ninterrupted\n" and "stopping the job job" in shown.err


def test_second_ctrl_c_leaves_the_job(capsys):
    server = Server([KeyboardInterrupt()], [KeyboardInterrupt()])
    assert RayJob(server, "job").follow() == 130
    assert "ray job stop job" in capsys.readouterr().err


def test_server_that_stays_away_is_one_line():
    with pytest.raises(
        InfrastructureError, match=r"job job: its server does not answer \(gone\); the job may"
    ):
        RayJob(Server(*[[ConnectionError("gone")]] * 99), "job").follow()


def test_wrong_address_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--address: no answer from http://127\.0\.0\.1:1 ; expected"):
        RayJob.submit("http://127.0.0.1:1", "true", tmp_path, tmp_path)


@pytest.mark.parametrize("key", ["--work-dir", "--output", "POOL"])
def test_relative_paths_are_refused(capsys, key):
    places = {"POOL": "s3://b/pool", "--work-dir": "/w", "--output": "gs://b/o"} | {key: "here/x"}
    words = [places["POOL"], "--work-dir", places["--work-dir"], "--output", places["--output"]]
    address = ["--address", "http://127.0.0.1:1"]
    assert main(["submit", *words, "--model", "demo", "--fraction", "0.3", *address]) == 2
    assert "= here/x: found a relative path; expected a URL" in capsys.readouterr().err
