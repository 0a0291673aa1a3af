"""Names of output folders that mean something to a shell, to open_clip or to webdataset arrive unchanged."""

import os
import shlex
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webdataset.gopen import gopen
from webdataset.shardlists import expand_urls

from d2prune.output import training

NAMES = [
    "plain-1.2_x",
    "two words",
    "a;touch pwned",
    "a|b&c>d<e",
    "$HOME",
    "${HOME}",
    "${NAME}x",
    "$(touch pwned)",
    "`touch pwned`",
    "it's",
    'a"b',
    "back\\slash",
    "\\{x\\}",
    "{a,b}",
    "{0..3}",
    "un{balanced",
    "un}balanced",
    "a::b",
    "a:::b::",
    "tab\tand\nnewline",
    "a\ntouch pwned",
    "#comment",
    "~",
    "!history",
    "*?[ab]",
    "-flag",
    "%41%20",
    "ünï 名前",
    "(a)",
    "a=b",
    "trailing ",
]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """A folder with `aws`, `gcloud` and `python` that print their arguments, NUL after each."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("aws", "gcloud", "python"):
        (folder / name).write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def run(command, stubs, cwd):
    environment = {**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", "PYTHON": str(stubs / "python")}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def read(urls, stubs, cwd):
    """What the stubs received for each URL, through webdataset's own shell."""
    received = []
    before = os.environ["PATH"], os.getcwd()
    os.environ["PATH"] = f"{stubs}:{before[0]}"
    os.chdir(cwd)
    try:
        for url in urls:
            with gopen(url) as stream:
                received.append(stream.read().decode().split("\0")[:-1])
    finally:
        os.environ["PATH"] = before[0]
        os.chdir(before[1])
    return received


def expected(scheme, folder):
    urls = [f"{folder}/0000000{i}.tar" for i in range(2)]
    return [["s3", "cp", url, "-"] if scheme == "s3" else ["storage", "cat", url] for url in urls]


@pytest.mark.parametrize("name", NAMES)
def test_remote_names_reach_the_second_shell(stubs, tmp_path, name):
    folder = f"s3://bucket/{name}"
    (tmp_path / "train.sh").write_text(training.script(folder, 2, 9))
    arguments = run(["sh", str(tmp_path / "train.sh")], stubs, tmp_path)
    data = arguments[arguments.index("--train-data") + 1]
    assert read(expand_urls(data), stubs, tmp_path) == expected("s3", folder)
    assert os.listdir(tmp_path) == ["train.sh"]


def test_google_names_reach_the_second_shell(stubs, tmp_path):
    folder = "gs://bucket/" + "/".join(NAMES)
    assert read(expand_urls(training.train_data(folder, 2)), stubs, tmp_path) == expected("gs", folder)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_printed_command_reaches_the_second_shell(stubs, tmp_path, shell):
    folder = "s3://bucket/" + "/".join(NAMES)
    arguments = run([shell, "-c", training.command(folder, 2, 9)], stubs, tmp_path)
    (data,) = (value[13:] for value in arguments if value.startswith("--train-data="))
    assert read(expand_urls(data), stubs, tmp_path) == expected("s3", folder)


@pytest.mark.parametrize("name", [name for name in NAMES if "::" not in name and "/" not in name])
def test_local_names_reach_open_clip(stubs, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "train.sh").write_text(training.script(str(folder), 2, 9))
    arguments = run(["sh", str(folder / "train.sh")], stubs, tmp_path)
    data = arguments[arguments.index("--train-data") + 1]
    assert expand_urls(data) == [f"{folder}/0000000{i}.tar" for i in range(2)]
    assert expand_urls(training.train_data(str(folder), 2)) == expand_urls(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1).filter(str.strip))
def test_any_name_survives_both_readers(name):
    """The second shell is played by shlex, whose rules for quoted words are those of sh."""
    data = training.train_data(f"s3://bucket/{name}x", 2)
    found = [shlex.split(url.removeprefix("pipe:")) for url in expand_urls(data)]
    assert found == [["aws", *words] for words in expected("s3", f"s3://bucket/{name}x")]


SHARED = [f"shard-{i:016x}.tar" for i in (7, 1, 255)]


@pytest.mark.parametrize("n_tars", [1, 3])
@pytest.mark.parametrize("name", ["plain", "it's {a,b}"])
def test_shared_tars_reach_open_clip(stubs, tmp_path, name, n_tars):
    """They are beside the folder of the script."""
    tars, folder = SHARED[:n_tars], tmp_path / name
    folder.mkdir()
    (folder / "train.sh").write_text(training.script(str(folder), n_tars, 9, tars))
    for command in (["sh", str(folder / "train.sh")], ["sh", "-c", training.script_command(str(folder))]):
        arguments = run(command, stubs, tmp_path)
        data = arguments[arguments.index("--train-data") + 1]
        assert expand_urls(data) == [f"{folder}/../shards/{tar}" for tar in tars]
    remote = training.train_data(f"s3://bucket/{name}/1f", n_tars, tars)
    urls = [f"s3://bucket/{name}/shards/{tar}" for tar in tars]
    assert read(expand_urls(remote), stubs, tmp_path) == [["s3", "cp", url, "-"] for url in urls]


def test_a_list_too_long_for_one_argument_is_refused(tmp_path):
    tars = [f"shard-{i:016x}.tar" for i in range(8000)]
    (tmp_path / "train.sh").write_text(training.script(str(tmp_path), len(tars), 9, tars))
    done = subprocess.run(["sh", str(tmp_path / "train.sh")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "the list of 8000 shards, with 9 samples, is too long for one argument; expected fewer: raise "
        "write.samples_per_shard, or read the list from manifest.json\n"
    )
