"""A location that cannot be used is one line and exit code 2 in every command, before anything starts."""

import os
import re

import pytest
import yaml

from d2prune.cli.main import main
from d2prune.inputs.braces import MAX_BRACES
from tests.inputs.test_items import make_device, make_fifo, make_self_loop, make_socket
from tests.pools import write_pool

LONG = "n" * 300


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the locations below name."""
    folder = tmp_path_factory.mktemp("places")
    write_pool(folder / "pool", 1, 2)
    (folder / "file").write_text("x")
    (folder / "dangling").symlink_to("nowhere")
    makers = {"fifo": make_fifo, "socket": make_socket, "device": make_device, "loop": make_self_loop}
    for name, make in makers.items():
        make(folder / name)
    (folder / "subset.npy").write_bytes(b"")
    return folder


# Not usable as folder or file.
ANY = {
    "s9://bucket/x": "s9://bucket/x: not a URL that can be opened: Protocol not known: s9; expected",
    "carrier-pigeon://x": "Protocol not known: carrier-pigeon",
    "zip://x.zip": "zip://x.zip: zip:// is a file inside another file, which is not supported",
    "simplecache://x": "simplecache:// is a file inside another file",
    "s3:/bucket/x": "s3:/bucket/x: found s3:/; expected s3://, with two slashes",
    "HTTPS:/host/x": "with two slashes",
    "{}/a::b": "{}/a::b: found `::`; expected one location, without lists and chains",
    "zip://x::{}/y": "zip://x::{}/y: found `::`",
    "s3://bucket/a::s3://bucket/b": "found `::`",
    "{}/a\0b": r"{}/a\0b: found a NUL character in the name; expected none",
    f"{{}}/{LONG}": f"{{}}/{LONG}: the name is too long",
    "{}/" + "deep/" * 1000: "the name is too long",
    "{}/loop": "a symbolic link leads back to itself",
    "{}/loop/x": "a symbolic link leads back to itself",
}
FOLDERS = ANY | {
    "{}/file": "{}/file: is a file; expected a folder",
    "{}/file/x": "{}/file/x: {}/file is a file; expected a folder",
    "file://{}/file": "{}/file: is a file; expected a folder",
    "{}/fifo": "{}/fifo: is a FIFO; expected a folder",
    "{}/fifo/x": "{}/fifo is a FIFO; expected a folder",
    "{}/socket": "is a socket; expected a folder",
    "{}/device": "is a device; expected a folder",
    "/dev/null": "is a device; expected a folder",
    "{}/dangling": "{}/dangling: found a symbolic link that leads nowhere; expected a folder",
    "{}/dangling/x": "{}/dangling: found a symbolic link that leads nowhere; expected a folder",
}
FILES = ANY | {
    "{}/pool": "{}/pool: found a folder; expected a file",
    "{}/fifo": "{}/fifo: found a FIFO; expected a file",
    "{}/socket": "{}/socket: found a socket; expected a file",
    "{}/device": "{}/device: found a device; expected a file",
    "{}/file/x": "Not a directory",
}
FOLDER_OPTIONS = {
    "work_dir": ["run", "--no-ray", "--config={config}"],
    "output": ["run", "--no-ray", "--config={config}"],
    "plan output": ["plan", "--config={config}"],
    "sweep work_dir": ["sweep", "--config={config}"],
    "verify": ["verify", "{value}"],
    "runs": ["runs", "{value}"],
    "prune": ["runs", "{value}", "--prune", "--yes"],
    "explain": ["explain", "{value}", "abc"],
    "explore": ["explore", "{value}"],
    "reshard output": ["reshard", "--subset={place}/subset.npy", "--input={place}/pool", "--output={value}"],
    "reshard work": "reshard --subset={place}/subset.npy --input={place}/pool --output={place}/o "
    "--work-dir={value}".split(),
}
FILE_OPTIONS = {
    "run": ["run", "--config={value}"],
    "plan": ["plan", "--config={value}"],
    "sweep": ["sweep", "--config={value}"],
    "flagged": ["sweep", "--config={config}", "--flagged={value}"],
    "subset": ["reshard", "--subset={value}", "--input={place}/pool", "--output={place}/o"],
}


def call(place, capsys, option, arguments, value):
    if value.startswith(("{}/", "file://{}/", "zip://x::{}/")):
        value = value.replace("{}", str(place), 1)
    settings = {
        "input": f"{place}/pool",
        "work_dir": f"{place}/work",
        "output": f"{place}/out",
        "embed": {"model": "demo"},
        "select": {"fraction": 0.5},
    }
    key = option.rpartition(" ")[2]
    settings |= {key: value} if key in settings else {}
    config = place / "run.yaml"
    config.write_text(yaml.safe_dump(settings))
    names = {"{config}": str(config), "{place}": str(place), "{value}": value}
    filled = []
    for argument in arguments:
        for name, text in names.items():
            argument = argument.replace(name, text)
        filled.append(argument)
    before = sorted(os.listdir(place))
    code = main(filled)
    printed = capsys.readouterr()
    assert code == 2 and "Traceback" not in printed.err
    lines = [line for line in printed.err.splitlines() if line.startswith("d2prune: ")]
    assert len(lines) == 1 and printed.err.count("\n") == 1
    assert sorted(os.listdir(place)) == before
    if key in settings and "{config}" in " ".join(arguments) and ("\0" in value or len(value) > 4096):
        # A configuration refuses these where it is read.
        assert re.search(
            r"found the control character '\\x00'|found [\d,]+ characters; expected at most 4,096", lines[0]
        )
        return None
    return lines[0]


@pytest.mark.parametrize("option", FOLDER_OPTIONS)
def test_folders(place, capsys, option):
    for value, line in FOLDERS.items():
        found = call(place, capsys, option, FOLDER_OPTIONS[option], value)
        assert found is None or line.replace("{}", str(place)) in found, value


@pytest.mark.parametrize("option", FILE_OPTIONS)
def test_files(place, capsys, option):
    for value, line in FILES.items():
        if not (value.startswith(("s3", "HTTPS")) and option == "config"):
            found = call(place, capsys, option, FILE_OPTIONS[option], value)
            assert found is None or line.replace("{}", str(place)) in found, value


INPUTS = {
    **{value: line for value, line in ANY.items() if "::" not in value and LONG not in value},
    "{}/a::b": "{}/a: does not exist",
    "zip://x::{}/y": "found a chain of fsspec (zip://x)",
    f"{{}}/{LONG}": "the name is too long",
    f"{{}}/{LONG}.tar": "the name is too long",
    "{}/file": "{}/file: found a file; expected a .tar file, a folder or a glob",
    "{}/file/x": "{}/file/x",
    "{}/fifo": "{}/fifo: found a FIFO; expected a .tar file",
    "{}/socket": "{}/socket: found a socket; expected",
    "{}/device": "{}/device: found a device; expected",
    "{}/dangling": "{}/dangling: found a symbolic link that cannot be followed; expected",
    "{}/none": "{}/none: does not exist",
    "{}/none/*.tar": "{}/none/*.tar: no tar matches",
    "s3://*/x.tar": "found a wildcard in the bucket or host; expected its name",
    "{" * 1500 + "}" * 1500: f"found 1500 braces; expected at most {MAX_BRACES}",
    "{a,b}" * 1500: f"found 1500 braces; expected at most {MAX_BRACES}",
    "{a,b}" * 100: "expands to more than 10000000 names",
    "{a," * 1500 + "b" + "}" * 1500: f"found 1500 braces; expected at most {MAX_BRACES}",
    "{}/{{0..1000000000}}.tar": "expands to more than 10000000 names",
    "{}/{{0..9999}}{{0..9999}}.tar": "expands to more than 10000000 names",
    "{" * 1500: f"found 1500 braces; expected at most {MAX_BRACES}",
    "{a": r"found '{' without '}'; write \{ for a brace in a name",
    "a}": r"found '}' without '{'; write \} for a brace in a name",
}


@pytest.mark.parametrize("command", ["run", "plan"])
def test_inputs(place, capsys, command):
    for value, line in INPUTS.items():
        given = value.replace("{{", "{").replace("}}", "}") if value.startswith("{}") else value
        found = call(place, capsys, "input", [command, "--config={config}"], given)
        if found is None:
            continue
        assert line.replace("{}", str(place)) in found, value[:80]
        assert len(found) < 1000 or LONG in value or "deep/" in value


def test_inputs_of_reshard_and_explore(place, capsys):
    for value, line in INPUTS.items():
        if value.startswith("{}/none"):
            arguments = ["reshard", "--subset={place}/subset.npy", "--input={value}", "--output={place}/o"]
            assert line.replace("{}", str(place)) in call(place, capsys, "reshard", arguments, value)


def test_a_read_only_output_is_refused_before_anything_starts(place, capsys, monkeypatch):
    access = os.access
    (place / "mine").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: "mine" not in str(path) and access(path, mode))
    for value in ("{}/mine", "{}/mine/sub/folder"):
        line = call(place, capsys, "output", ["run", "--no-ray", "--config={config}"], value)
        assert f"output {place}/mine" in line and f"no permission to write to {place}/mine" in line
    (place / "mine").rmdir()


def test_a_folder_that_may_not_be_read_is_one_line(place, capsys, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    (place / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    line = call(place, capsys, "input", ["run", "--config={config}"], "{}/closed")
    assert "Permission denied" in line and f"{place}/closed" in line
    (place / "closed").rmdir()


def test_a_pipe_that_is_open_is_read_as_configuration(place, capsys):
    reader, writer = os.pipe()
    with open(writer, "w") as file:
        file.write("input: x\n")
    assert main(["run", f"--config=/dev/fd/{reader}"]) == 2
    os.close(reader)
    assert "work_dir is missing" in capsys.readouterr().err
