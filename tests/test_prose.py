"""Text that a user can read is plain English: the glossary in tests/prose.py, applied to every file."""

import pytest

from tests.prose import ROOT, RULES, faults, files


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_banned_phrase(path):
    found = faults(path)
    assert not found, "\n" + "\n".join(found)


def _check(tmp_path, name: str, text: str) -> list[str]:
    path = tmp_path / name
    path.write_text(text)
    return faults(path)


BAD = """
GPUs wait for pictures
ahead of lots
partitions by lot
it pays on the card
one letter of each neighbour
is told in the docs
the log says so
whoever lost it
sent by nobody
nothing: hence empty
before the graph has its say
finished before, nothing to do
3 another run is at work
what became of it
2 a mistake of yours
two shards in hand
its lease is taken over at once
requests under way
the same command goes on
all tries used up
from 80 % on, D2 leads
where the tars lie now
a GPU of its own
a made-up run
"""
GOOD = """
picturesque
a lot of memory
lower-case letters
letters and digits
letters, digits and _
two kinds at once
the paper says so
unless a section says otherwise
no one else
it has nothing to do with Ray
loads them all at once
tries to connect
from 80 % upwards
a list of cards
reads the whole object
x lies in [0, 1]
its own GPU
an exp of our own making
a share of its own value
made up of parts
as it is read
so long as it runs
the last attempt
tells the scheduler to wait
tokens that are whole words
bear in mind
an allotment
a placeholder
"""


@pytest.mark.parametrize("text", BAD.strip().splitlines())
def test_bad_prose_is_found(tmp_path, text):
    assert len(_check(tmp_path, "page.md", text)) >= 1


@pytest.mark.parametrize("text", GOOD.strip().splitlines())
def test_good_prose_is_not(tmp_path, text):
    assert _check(tmp_path, "page.md", text) == []


def test_every_rule_has_a_suggestion_and_a_valid_pattern():
    assert all(rule.instead and list(rule.find("")) == [] for rule in RULES)


def test_code_is_searched_where_it_is_read(tmp_path):
    code = '"""One picture."""\n\npicture = {"picture": f"a {picture} of"}\n# What\n# became of it.\n'
    code += 'x = ("goes "\n     "on")\n'
    assert _check(tmp_path, "module.py", code) == [
        "module.py:1: 'picture' -> image",
        "module.py:4: 'What became of' -> status, outcome",
        "module.py:6: 'goes on' -> resumes, continues",
    ]


def test_pages_are_searched_where_they_are_read(tmp_path):
    page = '<p class="picture">\n<img alt="Picture"> {{ picture }}</p>\n'
    page += '<script>\nconst picture = "no picture";\n</script>'
    assert [fault.split(":")[1] for fault in _check(tmp_path, "page.html", page)] == ["2", "4"]
    script = "// a picture\nlet picture = 'picture';\nsay(`one picture ${picture}`);"
    assert [fault.split(":")[1] for fault in _check(tmp_path, "page.js", script)] == ["1", "3"]


def test_identifiers_in_markdown_are_not_prose(tmp_path):
    assert _check(tmp_path, "page.md", "`picture/small` and `sign-of-life`") == []
