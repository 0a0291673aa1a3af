"""Which files an `input` names: quotes, lists, links, hidden files, and one file under two names."""

import os
import socket

import pytest

from d2prune import store
from d2prune.demo import s3_server
from d2prune.errors import UserError
from d2prune.inputs.find import find_input
from d2prune.inputs.shards import expand_input
from d2prune.store import patterns
from tests.s3 import moto_server

ODD = (
    "a[b]",
    "a*b",
    "a?b",
    "a{b,c}",
    "a{1..2}",
    "a}b",
    "a{b",
    "a,b",
    "a\\b",
    "a\\*",
    "a::b",
    "[!x]",
    "a b",
    "a#%20",
)


@pytest.fixture(scope="module", params=["local", "s3"])
def root(request, tmp_path_factory):
    """URL of a folder of one tar per odd folder, and some that the odd names would match as patterns."""
    if request.param == "local":
        url = str(tmp_path_factory.mktemp("odd"))
        write_odd(url)
        yield url
        return
    with moto_server() as server, s3_server.environment(server):
        server.make_bucket("bucket")
        write_odd("s3://bucket/odd")
        yield "s3://bucket/odd"


def write_odd(root):
    for name in (*ODD, "axb", "ab", "a1", "abc"):
        store.write_bytes(f"{root}/{name}/x.tar", name.encode())


def contents(given):
    return [store.read_bytes(shard.url).decode() for shard in expand_input(given)]


@pytest.mark.parametrize("name", ODD)
def test_a_quoted_name_is_that_folder_or_file_and_no_other(root, name):
    folder = patterns.quote(f"{root}/{name}")
    assert contents(folder) == [name]
    assert contents(f"{folder}/x.tar") == [name]
    assert contents(f"{folder}/*.tar") == [name]
    assert contents(f"{{{folder},{root}/a1}}/x.tar") == [name, "a1"]


@pytest.mark.parametrize("name", [name for name in ODD if name != r"a\*"])
def test_a_name_that_exists_as_written_is_read_literally(root, name, caplog):
    assert contents(f"{root}/{name}") == contents(f"{root}/{name}/*.tar") == [name]
    if patterns.has_special(name):
        shown = store.redact(f"{root}/{name}")
        assert f"{shown} exists and is read literally, not as a pattern" in caplog.text


def test_patterns_match_where_no_such_name_exists(root):
    assert contents(f"{root}/a?/x.tar") == ["a1", "ab"]
    assert contents(f"{root}/{{a1,ab}}/x.tar") == ["a1", "ab"]
    assert contents(f"{root}/{{a1,a[b]}}/*.tar") == ["a1", "a[b]"]
    with pytest.raises(UserError, match=r"no tar matches; in input, \[ and \] are ordinary characters"):
        expand_input(f"{root}/a[0-9]*/x.tar")


@pytest.mark.parametrize(
    "text",
    [
        "{root}/a1/x.tar::{root}/ab/x.tar",
        "{root}/{{a1,ab}}/x.tar",
        "{root}/a1::{root}/a[b]/../ab",
        "{root}/a1/*.tar::{root}/ab/?.tar",
    ],
)
def test_two_colons_separate_items_with_their_own_braces_and_wildcards(root, text):
    if ".." in text and root.startswith("s3"):
        pytest.skip("an object store has no parent folders")
    assert contents(text.format(root=root)) == ["a1", "ab"]
    assert contents([text.format(root=root), f"{root}/abc"]) == ["a1", "ab", "abc"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{root}/a1/x.tar::", r"found an empty item beside `::`"),
        ("::{root}/a1/x.tar", r"found an empty item beside `::`"),
        (
            "zip://x::{root}/a1/x.tar",
            r"found a chain of fsspec (zip://x); `::` separates the items of a list",
        ),
        ("simplecache::{root}/a1/x.tar", r"found a chain of fsspec (simplecache)"),
        ("{root}/a1/x.tar::{root}/nothing.tar", r"nothing.tar: does not exist"),
        ("zip://x.zip", "zip:// is a file inside another file, which is not supported"),
    ],
)
def test_lists_that_are_none_are_one_line(root, text, line):
    with pytest.raises(UserError) as caught:
        expand_input(text.format(root=root))
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for name in ("0.tar", "1.tar"):
        (folder / name).write_text(name)
    return folder


def link_file(pool):
    (pool / "2.tar").symlink_to(pool.parent / "elsewhere.tar")
    (pool.parent / "elsewhere.tar").write_text("2.tar")


def link_folder(pool):
    (pool.parent / "elsewhere").mkdir()
    (pool.parent / "elsewhere" / "2.tar").write_text("2.tar")
    (pool / "more").symlink_to(pool.parent / "elsewhere")


def link_loop(pool):
    (pool / "2.tar").write_text("2.tar")
    (pool / "again").symlink_to(pool)


@pytest.mark.parametrize("change", [link_file, link_folder, link_loop])
def test_symbolic_links_are_followed(pool, change, caplog):
    change(pool)
    assert contents(str(pool)) == contents(f"{pool}/**") == ["0.tar", "1.tar", "2.tar"]
    assert contents(f"{pool}/*.tar")[:2] == ["0.tar", "1.tar"]
    assert ("again: a symbolic link to a folder that contains it; left out" in caplog.text) == (
        change is link_loop
    )
    if change is link_file:
        assert contents(f"{pool}/*.tar") == contents(f"{pool}/{{0..2}}.tar") == ["0.tar", "1.tar", "2.tar"]
    if change is link_folder:
        assert contents(f"{pool}/*/*.tar") == contents(f"{pool}/more/2.tar") == ["2.tar"]


def make_dangling(path):
    path.symlink_to("nowhere")


def make_self_loop(path):
    path.symlink_to(path)


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    before = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(before)


def make_device(path):
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (make_dangling, "a symbolic link that cannot be followed"),
        (make_self_loop, "a symbolic link that cannot be followed"),
        (make_fifo, "a FIFO"),
        (make_socket, "a socket"),
        (make_device, "a device"),
    ],
)
@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.npz"])
def test_what_is_not_a_file_is_one_line_if_its_name_is_that_of_data(pool, make, found, name):
    make(pool / name)
    make(pool / "notes.txt")
    suffix = name.partition(".")[2]
    for given in (str(pool), f"{pool}/*.{suffix}", f"{pool}/{name}", f"{pool}/{{{name},0.tar}}"):
        with pytest.raises(UserError) as caught:
            find_input(given)
        shown = str(caught.value)
        assert f"{pool}/{name}: " in shown and "\n" not in shown
        assert f"found {found}" in shown or "leads back to itself" in shown
    (pool / name).unlink()
    assert contents(str(pool)) == ["0.tar", "1.tar"]


def test_a_folder_with_the_name_of_a_file_is_one_line_unless_it_ends_in_a_slash(pool):
    (pool / "x.tar").mkdir()
    (pool / "x.tar" / "2.tar").write_text("2.tar")
    with pytest.raises(UserError, match=r"x\.tar: found a folder; expected a file"):
        expand_input(f"{pool}/x.tar")
    assert contents(f"{pool}/x.tar/") == ["2.tar"]
    assert contents(str(pool)) == ["0.tar", "1.tar", "2.tar"]


@pytest.mark.parametrize(
    "name",
    "._0.tar .0.tar .DS_Store _SUCCESS _metadata _metadata.tar _temporary/0/2.tar .cache/2.tar "
    "__MACOSX/._0.tar .tmp-d2prune-1 .tmp-d2prune-1.tar".split(),
)
def test_hidden_files_are_read_only_if_they_are_named(pool, name):
    (pool / name).parent.mkdir(parents=True, exist_ok=True)
    (pool / name).write_text("hidden")
    for given in (str(pool), f"{pool}/*.tar", f"{pool}/**", f"{pool}/**/*.tar"):
        assert contents(given) == ["0.tar", "1.tar"]
    if name.endswith(".tar"):
        assert contents(f"{pool}/{name}") == ["hidden"]
        assert "hidden" in contents([f"{pool}/{{0,1}}.tar", f"{pool}/{name}"])
    if name.startswith(".cache"):
        assert contents(f"{pool}/.cache") == contents(f"{pool}/.cache/*.tar") == ["hidden"]


SPELLINGS = [
    "{pool}//0.tar",
    "{pool}/../pool/0.tar",
    "{pool}/./0.tar",
    "file://{pool}/0.tar",
    "{pool}/soft.tar",
    "{pool}/hard.tar",
    "{pool}-link/0.tar",
    "{pool}/0.tar",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_file_under_two_names_is_one_line_with_both(pool, spelling):
    if "soft" in spelling:
        (pool / "soft.tar").symlink_to("0.tar")
    if "hard" in spelling:
        (pool / "hard.tar").hardlink_to(pool / "0.tar")
    (pool.parent / "pool-link").symlink_to(pool)
    other = spelling.format(pool=pool)
    given = str(pool) if "/pool/" in other and ("soft" in other or "hard" in other) else [str(pool), other]
    with pytest.raises(UserError, match="would be read twice") as caught:
        expand_input(given)
    shown = str(caught.value)
    assert f"{pool}/0.tar" in shown and other.removeprefix("file://") in shown and "\n" not in shown
    assert contents([f"{pool}/1.tar", other]) == ["1.tar", "0.tar"]


def test_one_object_under_two_names_is_one_line(root):
    if root.startswith("s3"):
        with pytest.raises(UserError, match="would be read twice"):
            expand_input([f"{root}/ab", f"{root.replace('s3:', 's3a:')}/ab/x.tar"])
        assert contents([f"{root}/ab/x.tar", f"{root}/a1/x.tar"]) == ["ab", "a1"]


def test_a_name_that_is_not_utf8_is_one_line(pool):
    path = os.fsencode(pool) + b"/caf\xe9.tar"
    with open(path, "w") as file:
        file.write("x")
    with open(os.fsencode(pool) + b"/caf\xe9.txt", "w") as file:
        file.write("x")
    with pytest.raises(UserError, match=r"caf\\xe9\.tar'?: the name is not UTF-8; rename the file"):
        expand_input(str(pool))
    os.unlink(path)
    assert contents(str(pool)) == ["0.tar", "1.tar"]


def test_a_bucket_that_may_not_be_listed_is_asked_by_name(monkeypatch):
    with moto_server() as server, s3_server.environment(server):
        server.make_bucket("bucket")
        for number in range(12):
            store.write_bytes(f"s3://bucket/p/{number:02d}.tar", b"%02d" % number)

        def refuse(*arguments):
            raise UserError("s3://bucket/p: Access Denied")

        monkeypatch.setattr("d2prune.store.s3.list_objects", refuse)
        assert contents("s3://bucket/p/{00..11}.tar") == [f"{number:02d}" for number in range(12)]
        with pytest.raises(UserError, match="Access Denied"):
            expand_input("s3://bucket/p")
