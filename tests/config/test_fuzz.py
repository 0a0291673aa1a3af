"""Random configurations: each one can be planned, or is refused in one line; nothing else happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from d2prune.config import messages
from d2prune.config.model import RunConfig
from d2prune.errors import D2PruneError, UserError
from d2prune.runs.plan import plan_run
from tests.fuzzing import fuzz
from tests.pools import write_pool


def _list_fields():
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (((name, key), inner) for key, inner in field.annotation.model_fields.items())
        else:
            yield (name, None), field


_FIELDS = dict(_list_fields())
_PLAUSIBLE = {
    "number": ["1", "0.5", "1e1", "7", "0"],
    "text": ["demo", "clip_score", "shard", "auto", "0.5*clip_score + width"],
    "mapping": ["{a: number}", "{a: demo}", ""],
    "true": ["true", "false"],
    "null": ["null", "~", ""],
    "auto": ["auto"],
}
_SPECIAL = (
    "null", "~", "", "true", "no", "auto", ".nan", "-.inf", "1e400", "1" + "0" * 30, "-1", "0", "010", "0x1F",
    "1_000", "1:30", "1e3", "0.3", "5e-324", "2024-01-01", "'5'", '"\\ud83d"', '"\\0"', '"\\e[1m"', "'é ü'",
    "!!str x", "*a", "&a 1", "<<", "[", "{", "}", "demo", "[]", "{}", "[[1]]", "{a: number}", "{a: text}",
    "shard", "clip_score", "0.5*clip_score", "'('", "fast", "remote", "image", "random", "en", "zz", "- x",
    "x: y", "# c", "d2", "[ViT-B-32/openai, demo]", "{a: demo, b: demo}", "{score: demo}",
)  # fmt: skip
_scalars = (
    st.sampled_from(_SPECIAL)
    | st.integers(-3, 20).map(str)
    | st.integers().map(str)
    | st.floats().map(str)
    # No slash, so that a random model is never a folder of this machine.
    | st.text(st.characters(blacklist_characters="/~\r\n"), max_size=12)
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(_scalars, inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=5,
)


def _plausible(field):
    """Values that fit the type of a field, as text."""
    words = messages.describe_type(messages.field_type(field))
    found = [value for word, values in _PLAUSIBLE.items() if word in words for value in values]
    return st.sampled_from(found or words.replace(" or ", ", ").split(", "))


_known = st.sampled_from(list(_FIELDS))
_unknown = st.tuples(st.sampled_from(["graph", "grahp", "embed", "x"]), st.sampled_from(["seed", "sed", "a"]))


@st.composite
def _texts(draw):
    """A valid file with some keys replaced, and sometimes some characters."""
    sections = {
        "input": {None: "a"},
        "work_dir": {None: "w"},
        "output": {None: "o"},
        "select": {"fraction": "0.3"},
    }
    if draw(st.booleans()):
        sections["embed"] = {"model": "demo"}
    wild = draw(st.integers(0, 2)) == 0
    for name, key in draw(st.lists(_known | _unknown if wild else _known, max_size=4)):
        section = sections.setdefault(name, {})
        section[key] = draw(_values if wild else _plausible(_FIELDS[name, key]))
    lines = []
    for name, keys in sections.items():
        lines.append(f"{name}: {keys[None]}" if None in keys else f"{name}:")
        lines += [f"  {key}: {value}" for key, value in keys.items() if key is not None]
    text = "\n".join(lines) + "\n"
    if draw(st.integers(0, 4)) == 0:
        start = draw(st.integers(0, len(text)))
        junk = draw(st.text("{}[]:,#&*!|>'\"%@`-? \t\n\r\0\x85\ufeffa1", max_size=5))
        text = text[:start] + junk + text[start + draw(st.integers(0, 5)) :]
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"])), "surrogatepass")


_overrides = (
    _known.flatmap(lambda key: st.tuples(st.just(key), _plausible(_FIELDS[key])))
    | st.tuples(_known | _unknown, _values)
).map(lambda pair: ".".join(filter(None, pair[0])) + "=" + pair[1])


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    write_pool(folder / "pool", 1, 2)
    return folder


@fuzz
@given(_texts(), st.lists(_overrides, max_size=2))
def test_any_configuration_is_planned_or_refused_in_one_line(places, text, overrides):
    path = places / "run.yaml"
    path.write_bytes(text)
    try:
        config = RunConfig.load(path, overrides)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
        return
    try:
        plan_run(config.model_copy(update={"input": str(places / "pool")}))
    except D2PruneError as error:
        assert "\n" not in str(error)
