"""The syntax of `input`: quoting makes any name literal, and wildcards follow the documented rules."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.inputs.braces import expand_braces
from d2prune.store import patterns

NAMES = st.text(st.sampled_from("ab./\\*?{},:[]!#%$&~ +-'\"ü"), min_size=1, max_size=12)


@given(NAMES)
def test_a_quoted_name_is_one_literal_item(name):
    text = patterns.quote(name)
    assert patterns.split_list(text) == [text]
    assert expand_braces(text) == [text]
    assert not patterns.has_wildcard(text) and not patterns.has_special(text)
    assert patterns.unquote(text) == name


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_list_of_quoted_names_is_split_at_its_separators(names):
    # A single colon at the border of an item would be part of the separator.
    names = [name.strip(":") or "x" for name in names]
    text = "::".join(map(patterns.quote, names))
    assert [patterns.unquote(item) for item in patterns.split_list(text)] == names


@given(st.text("ab*?", min_size=1, max_size=6), st.text("ab", min_size=1, max_size=6))
def test_wildcards_of_one_level_match_as_in_fnmatch(level, name):
    if level != "**":
        found = patterns.compile_levels([level]).fullmatch(name) is not None
        assert found == fnmatch.fnmatchcase(name, level)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.tar", ["a.tar", "[a].tar"], ["._a.tar", ".tar", "d/a.tar", "a.tar.x", "_metadata.tar"]),
        ("[ab].tar", ["[ab].tar"], ["a.tar"]),
        (r"\*.tar", ["*.tar"], ["a.tar", r"\a.tar"]),
        (r"a\b?", [r"a\bc"], ["abc"]),
        ("*/x", ["a/x"], ["x", "a/b/x", ".a/x", "_temporary/x"]),
        (".a/*", [".a/x"], [".b/x", ".a/.x"]),
        ("**/x", ["x", "a/x", "a/b/x"], [".a/x", "a/.b/x", "ax"]),
        ("a/**", ["a/x", "a/b/x"], ["a/.x", "b/x"]),
    ],
)
def test_patterns_match_names_below_their_root(pattern, matching, others):
    regex = patterns.compile_levels(pattern.split("/"))
    assert [name for name in matching + others if regex.fullmatch(name)] == matching


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("https://h/x.tar?X-Amz-Signature=a/b*c", "https://h/x.tar", "?X-Amz-Signature=a/b*c"),
        ("http://h/{0..3}.tar?sig=", "http://h/{0..3}.tar", "?sig="),
        ("http://h/x?.tar", "http://h/x?.tar", ""),
        ("s3://b/x.tar?sig=1", "s3://b/x.tar?sig=1", ""),
        ("/p/x.tar?sig=1", "/p/x.tar?sig=1", ""),
    ],
)
def test_only_urls_of_the_web_have_a_query(url, path, query):
    assert patterns.split_query(url) == (path, query)


@pytest.mark.parametrize(
    "name",
    "._x.tar .DS_Store .hidden .tmp-d2prune-1 _SUCCESS _metadata _metadata.parquet _common_metadata "
    "_temporary _started_12 _committed_7".split(),
)
def test_hidden_names(name):
    assert patterns.is_hidden(name)
    assert not patterns.is_hidden(re.sub("^[._]*", "", name)) and not patterns.is_hidden("x" + name)


@pytest.mark.parametrize(
    ("pattern", "root", "levels"),
    [
        ("/p/*.tar", "/p", ["*.tar"]),
        ("/*.tar", "/", ["*.tar"]),
        ("*.tar", ".", ["*.tar"]),
        ("s3://b/*/x", "s3://b", ["*", "x"]),
        (r"/p\*/q?/x", "/p*", ["q?", "x"]),
        ("http://h/p/*.tar?sig=a", "http://h/p", ["*.tar"]),
    ],
)
def test_a_pattern_is_a_root_and_levels_below_it(pattern, root, levels):
    assert patterns.split_root(pattern) == (root, levels)
