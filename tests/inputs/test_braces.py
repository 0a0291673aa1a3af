"""Brace expansion follows bash, except that unbalanced braces are an error."""

import pytest

from d2prune.errors import UserError
from d2prune.inputs.braces import expand_braces


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{00..02}.tar", ["00.tar", "01.tar", "02.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..10..5}", ["0", "5", "10"]),
        ("{1..3..0}", ["1", "2", "3"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("x{a,b{1..2},}y", ["xay", "xb1y", "xb2y", "xy"]),
        ("{{a,b},c}", ["a", "b", "c"]),
        ("{plain}", ["{plain}"]),
        ("a\\b{1,2}", ["a\\b1", "a\\b2"]),
    ],
)
def test_expands_in_the_order_of_bash(pattern, expected):
    assert expand_braces(pattern) == expected


def test_expands_a_datacomp_pool():
    found = expand_braces("s3://pool/{00000000..00001279}.tar")
    assert found == [f"s3://pool/{i:08d}.tar" for i in range(1280)]


@pytest.mark.parametrize("pattern", ["{a", "a}", "{a,{b}", "}{", "{a,b}}"])
def test_unbalanced_braces_are_an_error(pattern):
    with pytest.raises(UserError, match=r"input .*: found '[{}]' without '[{}]'"):
        expand_braces(pattern)


@pytest.mark.parametrize("pattern", ["{0..99999999999}", "{0..9999}{0..9999}", "{a,b}" * 40])
def test_too_many_names_are_refused_before_they_are_made(pattern):
    with pytest.raises(UserError, match="expands to more than 10000000 names"):
        expand_braces(pattern)
