"""Reading Dockerfiles and build contexts, and that each Dockerfile was executed as it is."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tools.try_images import DOCKER, ROOT, TRIED, Instruction, context_files, fingerprint, parse

DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_instruction_was_executed(path):
    """After a change: `python -m tools.try_images`."""
    assert json.loads(TRIED.read_text())[path.name] == fingerprint(parse(path.read_text()))


def test_lines_are_joined_and_comments_left_out():
    text = "# why\nFROM base:1\n\nRUN pip install \\\n    # torch first\n    torch \\\n    ray\nUSER ray\n"
    assert parse(text) == [
        Instruction("FROM", "base:1"),
        Instruction("RUN", "pip install torch ray"),
        Instruction("USER", "ray"),
    ]
    assert fingerprint(parse(text)) == fingerprint(parse(text.replace("# why", "# because")))
    assert fingerprint(parse(text)) != fingerprint(parse(text.replace("torch", "numpy")))


@pytest.mark.parametrize("line", ["ADD x y", "run true", "SHELL ['sh']", "EXPOSE 80", "ENTRYPOINT x"])
def test_other_instructions_are_refused(line):
    with pytest.raises(ValueError, match=rf"found {line.split()[0]}; expected one of"):
        parse(f"FROM base:1\n{line}\n")


@pytest.mark.parametrize(
    "ignore, left",
    [
        ("", {"a.txt", "b/c.py", "b/__pycache__/c.pyc"}),
        ("*", set()),
        ("*\n!b", {"b/c.py", "b/__pycache__/c.pyc"}),
        ("*\n!b\n**/__pycache__", {"b/c.py"}),
        ("# all\n*\n!a.txt\n", {"a.txt"}),
        ("b\n!b/c.py", {"a.txt", "b/c.py"}),
    ],
)
def test_the_last_pattern_that_matches_decides(ignore, left):
    assert set(context_files(["a.txt", "b/c.py", "b/__pycache__/c.pyc"], ignore)) == left


@pytest.fixture
def build(tmp_path):
    """Runs build.sh with an engine that records what it is asked for, and fails at a word."""
    (tmp_path / "docker").write_text(
        '#!/bin/sh\necho "$@" >> "$LOG"\ncase "$*" in *"$FAIL_AT"*) exit 9 ;; esac\nexit 0\n'
    )
    (tmp_path / "docker").chmod(0o755)
    log = tmp_path / "log"

    def run(*arguments: str, fail_at: str = "nothing") -> tuple[subprocess.CompletedProcess[str], list[str]]:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log), "FAIL_AT": fail_at}
        script = [str(DOCKER / "build.sh"), *arguments]
        done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, env=environment)
        return done, log.read_text().splitlines() if log.exists() else []

    return run


def test_both_images_are_built_and_tried_before_one_is_pushed(build):
    done, calls = build("r.example:5000/d2prune:1", "--push")
    assert done.returncode == 0 and done.stdout.split()[-1] == "r.example:5000/d2prune:1-gpu"
    kinds = [call.split()[0] for call in calls]
    assert kinds == ["build", "run", "run", "run", "run"] * 2 + ["push"] * 2
    for name in ("cpu", "gpu"):
        (call,) = (call for call in calls if f"{name}.Dockerfile" in call)
        words = call.split()
        assert Path(ROOT, words[words.index("--file") + 1]).is_file() and words[-1] == "."
        assert words[words.index("--tag") + 1] == f"r.example:5000/d2prune:1-{name}"


@pytest.mark.parametrize("fail_at", ["build", "--version", "gpu.Dockerfile"])
def test_nothing_is_pushed_after_a_failure(build, fail_at):
    done, calls = build("d2prune:1", "--push", fail_at=fail_at)
    assert done.returncode == 9 and not any(call.startswith("push") for call in calls)


@pytest.mark.parametrize(
    "words", [[], ["d2prune"], ["--push"], ["d2prune:1", "push"], ["a b:1"], ["d2prune:"]]
)
def test_usage_errors_are_one_line(build, words):
    done, calls = build(*words)
    assert done.returncode == 2 and not calls
    assert done.stderr.count("\n") == 1 and "usage: deploy/docker/build.sh" in done.stderr
    assert os.access(DOCKER / "build.sh", os.X_OK)
