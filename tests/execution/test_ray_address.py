"""An address where no Ray cluster answers: one line in bounded time, after a word on what is awaited."""

import contextlib
import logging
import socket
import threading
import time

import pytest

from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.execution import OnRay, is_own_machine, ray_address


@contextlib.contextmanager
def server(answer):
    """A server that sends `answer` to each client and keeps the connection; None: closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    if answer is None:
                        connection.close()
                    else:
                        connection.sendall(answer)
                        held.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        for connection in held:
            connection.close()


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch):
    # Another test of this process may have started Ray.
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(ray_address, "WAIT_S", 0.3)
    monkeypatch.setattr(ray_address, "_PAUSE_S", 0.1)


def _refused_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("refused", "Connection refused"),
        (b"", "no answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "another kind of server answers"),
        (None, "the connection was closed|Connection reset by peer"),
    ],
)
def test_a_dead_address_is_one_line(caplog, scheme, answer, reason):
    with contextlib.ExitStack() as stack, caplog.at_level(logging.INFO, "d2prune"):
        port = _refused_port() if answer == "refused" else stack.enter_context(server(answer))
        start = time.monotonic()
        with pytest.raises(
            UserError, match=rf"within 0.3 s \(({reason})\); expected the address of a running"
        ):
            OnRay(f"{scheme}127.0.0.1:{port}")
        assert time.monotonic() - start < 5
        assert f"connecting to the Ray cluster at 127.0.0.1:{port} (ray.address " in caplog.text


@pytest.mark.parametrize(
    "address", ["nonsense", "host", ":1", "ray://", "host:port", "host:99999999", "http://head:8265"]
)
def test_what_is_no_address_is_one_line(address):
    with pytest.raises(UserError, match=r"ray.address .*: no cluster answers there: "):
        OnRay(address)


def test_the_variable_of_the_environment_is_named(monkeypatch, settings, tmp_path, capsys):
    import yaml

    port = _refused_port()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert main(["run", "--config", str(tmp_path / "run.yaml")]) == 2
    *lines, last = capsys.readouterr().err.splitlines()
    shown = f"RAY_ADDRESS='127.0.0.1:{port}' in the environment"
    assert any(
        line.endswith(f"connecting to the Ray cluster at 127.0.0.1:{port} ({shown})") for line in lines
    )
    assert last.startswith(f"d2prune: {shown}: no Ray cluster answers at 127.0.0.1:{port} within 0.3 s")


def test_a_dead_address_is_reported_before_any_work_and_not_by_a_finished_run(settings, tmp_path, capsys):
    """Also if every stage would run in this process."""
    import yaml

    def run(*options):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        code = main(["run", "--config", str(tmp_path / "run.yaml"), "--stop-after=embed", *options])
        return code, capsys.readouterr().err

    assert run("--set=ray.address=http://head:8265")[0] == 2 and not (tmp_path / "work").exists()
    dead = f"--set=ray.address=127.0.0.1:{_refused_port()}"
    code, printed = run(dead)
    assert code == 2 and "no Ray cluster answers" in printed and "embed: done" not in printed
    assert run("--no-ray")[0] == 0
    code, printed = run(dead)
    assert code == 0 and "already complete" in printed and "connecting" not in printed


@pytest.mark.parametrize("given", [None, "auto", "local"])
def test_what_only_ray_can_find_is_not_awaited(monkeypatch, given):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_address, "wait_for_head", None)
    ray_address.check_cluster(given)


def test_an_http2_server_counts_as_an_answer(caplog):
    with server(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as port:
        ray_address.wait_for_head("127.0.0.1", port, "x")


@pytest.mark.parametrize(
    ("address", "head"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("ray://head", ("head", 10001)),
        ("ray://head:1", ("head", 1)),
        ("[::1]:6379", ("::1", 6379)),
        ("anyscale://x", None),
    ],
)
def test_the_head_of_an_address(address, head):
    assert ray_address.find_head(address) == head


@pytest.mark.parametrize(
    ("address", "variable", "is_own"),
    [
        (None, None, True),
        ("local", "x:1", True),
        (None, "", True),
        ("auto", None, False),
        (None, "x:1", False),
    ],
)
def test_a_run_works_on_its_own_machine_unless_a_cluster_is_named(monkeypatch, address, variable, is_own):
    monkeypatch.delenv(ray_address.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(ray_address.VARIABLE, variable)
    assert is_own_machine(address) is is_own
