"""The configuration model: defaults, overrides, and errors in one line."""

import pytest
import yaml

from d2prune.config.model import RunConfig
from d2prune.errors import UserError

MINIMAL = {
    "input": "s3://pool/{0..3}.tar",
    "work_dir": "w",
    "output": "o",
    "embed": {"model": "demo"},
    "select": {"fraction": 0.3},
}


@pytest.fixture
def write(tmp_path):
    def _write(values):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return _write


def test_overrides_replace_defaults(write):
    config = RunConfig.load(
        write(MINIMAL), ["select.fraction=0.5", "graph.n_neighbors=7", "graph.target_recall=null"]
    )
    assert (config.select.fraction, config.graph.n_neighbors, config.graph.target_recall) == (0.5, 7, None)
    assert config.score.difficulty == "clip_score"
    assert RunConfig.load(write(MINIMAL), ["graph.nprobe=3"]).graph.target_recall is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.fracton=0.3", "unknown key select.fracton; did you mean select.fraction?"),
        ("grahp.n_neighbors=3", "unknown key grahp; did you mean graph?"),
        ("graph.zzzz=3", "unknown key graph.zzzz; expected one of features, n_neighbors"),
        (
            "select.fraction=0",
            "select.fraction = 0: expected a number above 0 and up to 1, or null; 0.3 means 30%",
        ),
        ("select.fraction=1.5", "select.fraction = 1.5: expected a number above 0 and up to 1"),
        ("select.fraction=.nan", "select.fraction = nan"),
        ("select.size=10", "select: expected exactly one of fraction, size, min_score; found fraction, size"),
        (
            "graph.features=colour",
            "graph.features = 'colour': expected image, text or image+text",
        ),
        ("graph={nprobe: 3, target_recall: 0.9}", "graph: expected target_recall or nprobe, not both"),
        ("embed.fields={uid: text}", "embed.fields: expected names of new columns; uid already exists"),
        ("embed.fields={lang: word}", "embed.fields.lang = 'word': expected number or text"),
        ("fraction", "--set fraction: expected KEY=VALUE"),
        (
            "embed={models: demo}",
            "embed.models = 'demo': expected a list such as [ViT-B-32/openai, ViT-L-14/openai]",
        ),
        ("embed.batch_size=0", "embed.batch_size = 0: expected a whole number from 1 to 65,536, or auto"),
        ("embed={model: demo, batch_size: auto, compile: true}", "embed: expected batch_size to be a number"),
        ("ray.num_gpus=1.5", "ray.num_gpus = 1.5: expected a fraction of one GPU, or a whole number"),
        (
            "embed.decode=remote",
            "embed.decode: found remote, which applies to workers with a GPU; expected ray.num_gpus above 0",
        ),
        ("columns.image=x", "unknown key columns.image; did you mean columns.image_emb?"),
        ("input.x=1", "--set input.x=1: input is not a section"),
    ],
)
def test_error_is_one_line_with_the_key_and_the_value(write, override, message):
    with pytest.raises(UserError) as caught:
        RunConfig.load(write(MINIMAL), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_unreadable_files_are_reported(write, tmp_path):
    with pytest.raises(UserError, match=r"run\.yaml: output is missing; expected, for example, output: s3"):
        RunConfig.load(write({"input": "x", "work_dir": "w", "select": {"fraction": 0.1}}))
    with pytest.raises(UserError, match="cannot be read"):
        RunConfig.load(tmp_path / "none.yaml")
    (tmp_path / "run.yaml").write_text("a: [")
    with pytest.raises(UserError, match="invalid YAML"):
        RunConfig.load(tmp_path / "run.yaml")
    (tmp_path / "run.yaml").write_text("- a")
    with pytest.raises(UserError, match="expected keys"):
        RunConfig.load(tmp_path / "run.yaml")
