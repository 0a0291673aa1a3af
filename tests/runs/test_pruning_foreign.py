"""Pruning deletes what this work_dir's runs wrote, and no other file."""

import json

import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.demo import s3_server
from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.output import layout
from d2prune.output.manifest import read_manifest, seal
from d2prune.runs import history, pruning, sharing
from d2prune.runs.driver import run
from d2prune.store import artifacts

ENTRIES = "runs"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server.serve(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def root(request, place):
    """URL of an empty folder, on the local disk and on an S3 server."""
    if request.param == "local":
        yield str(place)
        return
    server = request.getfixturevalue("server")
    bucket = request.node.originalname.replace("_", "-")[:60]
    with s3_server.environment(server):
        server.make_bucket(bucket)
        yield f"s3://{bucket}/root"


@pytest.fixture
def run_in(grow):
    """Returns a function that runs over a number of shards, in a work_dir below a root."""

    def _run(root, shards, work="work"):
        changes = {"work_dir": f"{root}/{work}", "output": f"{root}/out/{{run_id}}"}
        return run(grow(shards).model_copy(update=changes), InProcess())

    return _run


def contents(root):
    """Everything below a root, except the lease and the runs that use an output."""
    names = [name for name in store.list_entries(root) if "/.lease/" not in f"/{name}"]
    return {name: store.read_bytes(f"{root}/{name}") for name in names}


def old_entry(work):
    """The oldest run of a work_dir, and the URL of its entry."""
    entry = history.read_runs(work)[-1][1]
    return entry, history.entry_url(work, entry.run_id, entry.output)


def test_files_that_d2prune_did_not_write_stay_and_are_named(root, run_in, capsys):
    run_in(root, 1)
    run_in(root, 2)
    work = f"{root}/work"
    entry, _ = old_entry(work)
    (unit,) = (unit for unit in list_units(work, "graph", entry)[:1])
    folders = {
        entry.output: ["logs/checkpoints/epoch_32.pt", "notes.txt", "sub/00000000.tar"],
        f"{work}/graph/units/{unit}": ["mine.parquet"],
        f"{work}/graph/{entry.artifacts['graph']}": ["mine.json"],
        f"{work}/report/{entry.report_id}": ["mine.html"],
    }
    foreign = {f"{url}/{name}": name.encode() for url, names in folders.items() for name in names}
    foreign[f"{work}/mine/x"] = foreign[f"{work}/graph/mine/manifest.json"] = b"{}"
    for url, data in foreign.items():
        store.write_bytes(url, data)
    before = contents(root)
    lines = [
        f"{url}: {f'{len(names)} files' if len(names) > 1 else '1 file'} that d2prune did not write "
        f"{'stay, such as ' if len(names) > 1 else 'stays: '}{names[0]}"
        for url, names in folders.items()
    ]
    for options in ([], ["--yes"]):
        assert contents(root) == before
        assert main(["runs", work, "--prune", "--keep", "1", *options]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert sorted(line for line in printed if "did not write" in line) == sorted(lines)
    assert [f"{entry.output}/{name}" for name in store.list_entries(entry.output)] == [
        url for url in foreign if url.startswith(entry.output)
    ]
    for url, data in foreign.items():
        assert store.read_bytes(url) == data
    assert main(["runs", work]) == 0 and len(capsys.readouterr().out.splitlines()) == 3


def list_units(work, stage, entry):
    manifest = artifacts.read_manifest(f"{work}/{stage}", entry.artifacts[stage])
    assert manifest is not None
    return [unit.key for unit in manifest.units]


def change_manifest(output, **values):
    url = f"{output}/{layout.MANIFEST}"
    store.write_bytes(url, seal(json.loads(store.read_bytes(url)) | values))


def write_claim(output, data):
    store.write_bytes(f"{output}/{layout.CLAIM}", data)


NOT_OURS = {
    "no claim": (lambda output: store.delete([f"{output}/{layout.CLAIM}"]), "its claim"),
    "claim of another run": (lambda output: write_claim(output, b'{"identity": "0123"}'), "its claim"),
    "empty claim": (lambda output: write_claim(output, b""), "its claim"),
    "no manifest": (lambda output: store.delete([f"{output}/{layout.MANIFEST}"]), "it has no manifest"),
    "manifest of another run": (
        lambda output: change_manifest(output, identity="0" * 32),
        "is not that of run",
    ),
    "empty manifest": (lambda output: store.write_bytes(f"{output}/{layout.MANIFEST}", b""), "manifest.json"),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_an_output_that_is_not_the_runs_is_left_alone_and_named(kind, place, finish, capsys):
    root = str(place)
    finish(1, 2)
    entry, _ = old_entry(f"{root}/work")
    change, reason = NOT_OURS[kind]
    change(entry.output)
    before = contents(entry.output)
    for options in ([], ["--yes"]):
        assert main(["runs", f"{root}/work", "--prune", "--keep", "1", *options]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "left alone" in line)
        assert line.startswith(f"{entry.output}: left alone: ") and reason in line
        assert contents(entry.output) == before


def test_a_manifest_cannot_name_files_outside_its_folder(place, finish):
    root = str(place)
    finish(1, 2)
    entry, _ = old_entry(f"{root}/work")
    victim = place.with_name("victim")
    victim.write_bytes(b"mine")
    manifest = read_manifest(entry.output)
    assert manifest is not None
    record = {"name": "../../../victim", "rows": None, "size": 4, "checksum": ""}
    change_manifest(entry.output, files=[record, {**record, "name": str(victim)}])
    pruning.prune(f"{root}/work", 1)
    assert victim.read_bytes() == b"mine"


def changed(**values):
    return lambda entry: json.dumps(entry | values)


MALFORMED = {
    "empty": lambda entry: "",
    "not JSON": lambda entry: "{",
    "not text": lambda entry: "\x00\xff",
    "deeply nested": lambda entry: "[" * 100_000,
    "a list": lambda entry: "[1]",
    "foreign": lambda entry: '{"name": "package", "version": "1.0"}',
    "missing key": lambda entry: json.dumps({name: entry[name] for name in entry if name != "report"}),
    "more keys": changed(more=1),
    "run_id is a number": changed(run_id=1),
    "run_id is a path": changed(run_id="../../../../home"),
    "run_id is another": changed(run_id="0" * 16),
    "output is missing": changed(output=None),
    "output is another folder": changed(output="/home"),
    "scheduled is text": changed(scheduled="yes"),
    "size is text": changed(size="1"),
    "report is elsewhere": changed(report="/home/me/thesis.html"),
    "report is a path": changed(report="/x/report/../report.html"),
    "artifacts is a list": changed(artifacts=[]),
    "artifacts is empty": changed(artifacts={}),
    "stage is a path": lambda entry: json.dumps(
        entry | {"artifacts": {**entry["artifacts"], "../..": "a" * 32}}
    ),
    "fingerprint is a path": lambda entry: json.dumps(
        entry | {"artifacts": {**entry["artifacts"], "rank": ".."}}
    ),
}


def test_a_malformed_entry_is_one_line_and_deletes_nothing(place, finish, capsys):
    root = str(place)
    finish(1, 2)
    work = f"{root}/work"
    entry, url = old_entry(work)
    original = store.read_bytes(url)
    for kind, change in MALFORMED.items():
        store.write_bytes(url, change(json.loads(original)).encode("latin-1"))
        before = contents(root)
        for command in (["runs", work], ["runs", work, "--prune", "--keep", "1", "--yes"]):
            assert main(command) == 2, kind
            lines = capsys.readouterr().err.strip().splitlines()
            assert len(lines) == 1 and url in lines[0] and len(lines[0]) < 1000, kind
        assert contents(root) == before, kind
    store.write_bytes(url, original)
    store.write_bytes(f"{work}/{ENTRIES}/package.json", original)
    with pytest.raises(UserError, match=r"package\.json: not the entry .*: expected it in a file named"):
        pruning.prune(work, 1)
    assert store.exists(f"{entry.output}/{layout.MANIFEST}")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"units": 1}', '{"units": [{"key": "../..", "files": []}]}']
)
def test_a_damaged_manifest_of_an_artifact_is_one_line_and_deletes_nothing(place, finish, capsys, text):
    root = str(place)
    finish(1, 2)
    entry, _ = old_entry(f"{root}/work")
    url = artifacts.manifest_url(f"{root}/work/rank", entry.artifacts["rank"])
    store.write_bytes(url, text.encode())
    before = contents(root)
    assert main(["runs", f"{root}/work", "--prune", "--keep", "1", "--yes"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and f"{url}: not a manifest of stage rank" in lines[0]
    assert contents(root) == before


def test_work_dirs_that_share_an_output_root_keep_each_others_runs(root, run_in, capsys):
    one, two = f"{root}/one", f"{root}/two"
    for work in ("one", "two"):
        run_in(root, 1, work)
    run_in(root, 2, "one")
    last = run_in(root, 3, "two")
    shared, _ = old_entry(two)
    output, before = shared.output, contents(shared.output)
    # The newest run of the root is one of `two`; `one` keeps its own newest run as well.
    assert main(["runs", one, "--prune", "--keep", "1", "--yes"]) == 0
    printed = capsys.readouterr().out
    assert f"{output}: left alone: work_dir {store.resolve(two)} uses it, too" in printed
    assert contents(output) == before
    assert [len(history.read_runs(work)) for work in (one, two)] == [1, 2]
    latest = json.loads(store.read_bytes(f"{root}/out/latest.json"))
    assert (latest["output"], latest["work_dir"]) == (last.output, two)
    # No other work_dir uses it any more.
    pruning.prune(two, 1)
    assert store.list_entries(output) == []
    outputs = {name.split("/")[0] for name in store.list_entries(f"{root}/out")}
    assert len(outputs) == 2 + len({history.LATEST, sharing.FOLDER})


def test_the_latest_run_of_another_work_dir_stays_without_its_record(place, run_in):
    root = str(place)
    run_in(root, 1, "one")
    run_in(root, 2, "one")
    shared = run_in(root, 1, "two")
    store.delete(
        [f"{root}/out/{sharing.FOLDER}/{name}" for name in store.list_entries(f"{root}/out/{sharing.FOLDER}")]
    )
    before = contents(shared.output)
    pruning.prune(f"{root}/one", 1)
    assert contents(shared.output) == before


def test_latest_cannot_name_the_work_dir_of_another_root(place, finish, capsys):
    root = str(place)
    finish(1, 2)
    forged = f"{place.parent}/elsewhere/latest.json"
    store.write_bytes(forged, store.read_bytes(f"{root}/out/latest.json"))
    before = contents(root)
    assert main(["runs", f"{place.parent}/elsewhere", "--prune", "--keep", "1", "--yes"]) == 2
    assert f"{forged}: names run" in capsys.readouterr().err
    assert contents(root) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": 1}', '{"run_id": "x", "output": "y"}'])
def test_a_damaged_latest_is_one_line_and_deletes_nothing(place, finish, run_in, capsys, text):
    root = str(place)
    finish(1, 2)
    store.write_bytes(f"{root}/out/latest.json", text.encode())
    before = contents(root)
    for location in (f"{root}/out", f"{root}/work"):
        assert main(["runs", location, "--prune", "--keep", "1", "--yes"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and f"{root}/out/latest.json: " in lines[0]
    assert contents(root) == before
    # The next run replaces it.
    run_in(root, 2)
    assert main(["runs", f"{root}/out"]) == 0
