"""Every baseline of DataComp, as configured in its how-to, keeps the uids that DataComp's rule keeps."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.runs.driver import run
from d2prune.store import artifacts
from d2prune.store.columns import vectors
from tests import oracles_datacomp as datacomp
from tests.docs.baselines import read_baselines
from tests.embed.images import encode_image, make_image, write_tar
from tests.oracles_datacomp import Metadata

BASELINES = read_baselines()
WORDS = ["Dog", "lamp", "fox", "fireman"]
# What WordNet answers for the words of the captions: a noun's first meaning, here the noun itself.
MEANINGS = {"dog": "dog", "dogs": "dog", "lamp": "lamp", "foxes": "fox", "firemen": "fireman", "boss": "boss"}
CAPTIONS = [
    "a photo of a brown dog on the beach",
    "two DOGS play with a red ball",
    "the boss sits in his office",
    "a dog, seen from behind the fence",
    "three foxes in the snowy forest at night",
    "firemen in front of the burning house",
    "ein Hund liegt auf dem Teppich im Wohnzimmer",
    "une lampe sur la table de la cuisine",
    "old lamp",
    "hello",
    "a b c",
    "the new house in the old town\nwith a garden",
    "the cat and the hat",
    "机の上の猫の写真です 青い空",
]
# Around the limits of the basic filter, and images without a size.
SIZES = [(200, 600), (199, 300), (200, 601), (640, 480), (600, 200), (1024, 768), (300, 300), (0, 0)]


def make_metadata(n, seed=0):
    rng = np.random.default_rng(seed)
    size = np.array([SIZES[i] for i in rng.integers(0, len(SIZES), n)])
    rows = rng.normal(size=(n, 16))
    return Metadata(
        [rng.bytes(16).hex() for _ in range(n)],
        [CAPTIONS[i] for i in rng.integers(0, len(CAPTIONS), n)],
        size[:, 0],
        size[:, 1],
        # Two digits: equal scores, and scores that equal the thresholds.
        rng.integers(5, 45, n) / 100,
        rng.integers(5, 45, n) / 100,
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16),
    )


def write_metadata(folder, data, n_files=2):
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(data.uid)), n_files)):
        text = np.random.default_rng(1).normal(size=(len(rows), 16)).astype(np.float16)
        table = {
            "uid": [data.uid[i] for i in rows],
            "text": [data.text[i] for i in rows],
            "original_width": data.width[rows],
            "original_height": data.height[rows],
            "clip_b32_similarity_score": data.b32[rows],
            "clip_l14_similarity_score": data.l14[rows],
        }
        pq.write_table(pa.table(table), folder / f"{number:08d}.parquet")
        image = data.l14_img[rows]
        arrays = {"l14_img": image, "l14_txt": text, "b32_img": image[:, :8], "b32_txt": text[:, :8]}
        np.savez(folder / f"{number:08d}.npz", **arrays)
    return folder


def keep(name, data, files):
    """What baselines.py keeps, called as its row of the table says."""
    words = name.split()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    arch = options.get("--arch")
    numbers = {key: float(options[f"--{key}"]) for key in ("threshold", "fraction") if f"--{key}" in options}
    match words[0]:
        case "no_filter":
            return np.ones(len(data.uid), bool)
        case "basic_filter":
            return datacomp.basic_filter(data)
        case "text_based":
            classes = {word.lower() for word in WORDS}
            return datacomp.text_based(data, lambda word: MEANINGS.get(word.lower()), classes)
        case "clip_score":
            return datacomp.clip_score(data, arch, **numbers)
        case "laion2b":
            return datacomp.laion2b(data)
    images = datacomp.image_based(data, np.load(files["centroids"]), np.load(files["target"]))
    return images if words[0] == "image_based" else images & datacomp.clip_score(data, arch, **numbers)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the configurations name."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(3)
    (folder / "words.txt").write_text("\n".join([*WORDS, ""]))
    return {"words": folder / "words.txt"} | {
        name: save_rows(folder / f"{name}.npy", rng, count, width=16)
        for name, count in (("target", 4), ("centroids", 9))
    }


def save_rows(path, rng, count, width):
    # Centroids of different norms: the largest inner product is not the smallest angle.
    np.save(path, rng.normal(size=(count, width)) * rng.uniform(0.5, 1, (count, 1)))
    return path


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    data = make_metadata(240)
    return data, write_metadata(tmp_path_factory.mktemp("pool") / "metadata", data)


def configure_baseline(values, files, pool, folder, **changes):
    """A configuration of the page with the files of this test."""
    values = values | {"input": str(pool), "work_dir": f"{folder}/work", "output": f"{folder}/output"}
    values = {key: dict(part) if isinstance(part, dict) else part for key, part in values.items()}
    if "words" in values.get("filter", {}):
        values["filter"]["words"] = str(files["words"])
    for name in ("target", "centroids"):
        if name in values["score"]:
            values["score"][name] = str(files[name])
    return RunConfig.parse(values | changes, "datacomp.md")


def subset_of(config):
    manifests = run(config, InProcess(), stop_after="write").manifests
    return np.load(f"{config.output}/subset.npy"), manifests


@pytest.mark.parametrize("name", BASELINES)
def test_metadata(name, metadata, files, tmp_path):
    data, pool = metadata
    found, manifests = subset_of(configure_baseline(BASELINES[name], files, pool, tmp_path))
    kept = keep(name, data, files)
    assert 0 < kept.sum() < len(kept) or name == "no_filter"
    assert found.tolist() == datacomp.uids(data, kept).tolist()
    counters = manifests["embed"].counters
    assert counters["embedded"] + counters.get("filtered", 0) == counters["read"] == len(kept)


def test_intersection_by_fraction_in_two_runs(metadata, files, tmp_path):
    """The threshold is that of the whole pool, as the page explains."""
    data, pool = metadata
    by_score = configure_baseline(BASELINES["clip_score --arch l14 --fraction 0.3"], files, pool, tmp_path)
    subset_of(by_score)
    kept = [pq.read_table(path)["selection_score"] for path in Path(by_score.output).glob("kept-*.parquet")]
    lowest = pa.chunked_array(kept).to_numpy().min()
    values = BASELINES["image_based_intersect_clip_score --arch l14 --threshold 0.25"]
    values = values | {"select": {"method": "score", "min_score": float(lowest)}}
    found, _ = subset_of(configure_baseline(values, files, pool, tmp_path / "second"))
    kept = keep("image_based", data, files) & datacomp.clip_score(data, "l14", fraction=0.3)
    assert found.tolist() == datacomp.uids(data, kept).tolist()


def exported(manifests, work):
    """What a run without filters embedded, as metadata."""
    tables = [
        [artifacts.read_table(f"{work}/embed", unit, name) for unit in manifests["embed"].units]
        for name in ("samples.parquet", "embeddings.parquet")
    ]
    samples, embeddings = (pa.concat_tables(parts) for parts in tables)
    width, height = (samples[name].to_numpy() for name in ("width", "height"))
    score = samples["clip_score"].to_numpy()
    rows = vectors(embeddings["image_emb"])
    return Metadata(
        samples["uid"].to_pylist(), samples["caption"].to_pylist(), width, height, score, score, rows
    )


def test_tars(files, tmp_path, tiny_model):
    """The same configurations on tars, whose scores a model computes."""
    rng, members = np.random.default_rng(0), []
    for i in range(42):
        width, height = SIZES[i % (len(SIZES) - 1)]
        image = encode_image(make_image(i, width, height), "JPEG")
        record = json.dumps({"uid": rng.bytes(16).hex()}).encode()
        caption = CAPTIONS[i % len(CAPTIONS)].encode()
        members += [(f"{i:04d}.jpg", image), (f"{i:04d}.txt", caption), (f"{i:04d}.json", record)]
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "0.tar", members[:60])
    write_tar(tmp_path / "tars" / "1.tar", members[60:])
    embed = {"embed": {"model": str(tiny_model)}}
    data = None
    wide = dict(files)
    for name in BASELINES:
        if "b32" in name or "threshold" in name:
            continue
        values = {key: part for key, part in BASELINES[name].items() if key != "columns"}
        if name == "laion2b":
            # Random weights: no score reaches 0.28.
            values["select"] = {"method": "score", "fraction": 1.0}
        output = {"output": str(tmp_path / name)}
        config = configure_baseline(values, wide, tmp_path / "tars", tmp_path, **embed, **output)
        found, manifests = subset_of(config)
        if data is None:
            data = exported(manifests, config.work_dir)
            # A random model sees little difference between images: centroids and target are some of them.
            for file, rows in (("centroids", data.l14_img[:9]), ("target", data.l14_img[2:6])):
                wide[file] = tmp_path / f"{file}.npy"
                np.save(wide[file], rows.astype(np.float32))
        kept = datacomp.english(data) if name == "laion2b" else keep(name, data, wide)
        assert found.tolist() == datacomp.uids(data, kept).tolist(), name
        assert kept.any(), name


def test_rejects_of_tables_name_the_filter(metadata, files, tmp_path):
    _, pool = metadata
    _, manifests = subset_of(configure_baseline(BASELINES["basic_filter"], files, pool, tmp_path))
    counters, work = manifests["embed"].counters, f"{tmp_path}/work/embed"
    parts = [artifacts.read_table(work, unit, "rejects.parquet") for unit in manifests["embed"].units]
    reasons = pa.concat_tables(parts)["reason"].to_pylist()
    assert {f"filtered.{reason}": reasons.count(reason) for reason in reasons} == {
        name: count for name, count in counters.items() if name.startswith("filtered.")
    }
    assert {"filtered-words", "filtered-language", "filtered-image-side", "filtered-aspect-ratio"} <= {
        *reasons
    }
    assert counters["rejected"] == 0


@pytest.mark.parametrize(
    ("columns", "rule", "line"),
    [
        (["text"], {"min_words": 2}, "a filter reads captions, but .* has none; name their column"),
        (["original_width"], {"min_image_side": 2}, "found no original_width and original_height"),
    ],
)
def test_filter_without_its_columns_is_one_line(tmp_path, columns, rule, line):
    pool = write_metadata(tmp_path / "pool", make_metadata(6), 1)
    path = pool / "00000000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(columns), path)
    config = configure_baseline(BASELINES["no_filter"], {}, pool, tmp_path, filter=rule)
    with pytest.raises(UserError, match=line) as error:
        run(config, InProcess(), stop_after="embed")
    assert "\n" not in str(error.value)
