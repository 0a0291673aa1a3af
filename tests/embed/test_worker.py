"""A pool with every fault: sample counts balance, reasons are right, and bits never depend on workers."""

import dataclasses
import hashlib

import numpy as np
import pyarrow.compute as pc
import pytest

from d2prune import store
from d2prune.embed import params as embed_params
from d2prune.embed import worker as stage
from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool
from d2prune.embed.decode.resize import Pixels
from d2prune.embed.model import sources
from d2prune.embed.model.encoder import ClipEncoder
from d2prune.errors import InfrastructureError, UserError
from d2prune.inputs import rejects
from d2prune.inputs.shards import TarShard, expand_input
from d2prune.inputs.tar.checksum import hash_sample
from d2prune.inputs.tar.reader import parse_sample
from d2prune.store import schemas
from d2prune.store.columns import vectors
from tests.embed.faulty_samples import (
    EMBEDDED,
    FATAL_KEYS,
    FATAL_REASONS,
    FAULTY,
    REASONS,
    UID,
    good,
    tables,
    with_little_memory,
)
from tests.embed.images import encode_image, make_image, write_tar


def run(setting, pool_url=None):
    pool, _, params, make_worker = setting
    units = embed_params.plan(expand_input(pool_url or str(pool)), params)
    worker = make_worker()
    return [(unit, worker(unit)) for unit in units]


def test_every_fault_is_rejected_with_its_reason(setting):
    pool, folder, _, _ = setting
    path = write_tar(pool / "0.tar", FAULTY)
    ((_, receipt),) = run(setting)
    samples, rejects, embeddings = tables(folder, receipt)
    assert samples.schema.equals(schemas.samples()) and embeddings.schema.equals(schemas.embeddings(24))
    assert rejects.schema.equals(schemas.REJECTS)
    assert samples["key"].to_pylist() == EMBEDDED
    assert dict(zip(rejects["key"].to_pylist(), rejects["reason"].to_pylist(), strict=True)) == REASONS
    assert set(samples["shard"].to_pylist()) == set(rejects["shard"].to_pylist()) == {"0"}
    assert receipt.counters == {
        "read": 13,
        "embedded": 6,
        "rejected": 7,
        **{f"rejected.{reason}": list(REASONS.values()).count(reason) for reason in REASONS.values()},
        "caption-replaced": 1,
        "json-broken": 1,
        "uid-from-hash": 4,
        "uid-duplicate": 1,
    }
    info = store.info(str(path))
    source = {"size": info.size, "version": info.version}
    assert receipt.facts == {"dimension": 24, "precision": "fp32", "source": source}
    assert samples["caption"].to_pylist()[1] == "caf\ufffd"
    assert samples["uid"].to_pylist()[3:5] == [UID, UID]
    assert pc.all(pc.match_substring_regex(samples["uid"], "^[0-9a-f]{32}$")).as_py()
    data = open(path, "rb").read()
    for row in samples.select(["key", "offset", "size", "caption"]).to_pylist():
        members = parse_sample(data[row["offset"] : row["offset"] + row["size"]])
        assert {m.name.rpartition(".")[0] for m in members} == {row["key"]}


def test_embeddings_equal_batches_of_good_samples(setting, tiny_model):
    pool, folder, _, _ = setting
    write_tar(pool / "0.tar", [("bad.txt", b""), *(m for i in range(10) for m in good(f"{i}", i))])
    ((_, receipt),) = run(setting)
    samples, _, embeddings = tables(folder, receipt)
    encoder = ClipEncoder(sources.resolve(str(tiny_model), None), device="cpu")
    import io

    from PIL import Image

    images = [Image.open(io.BytesIO(good("", i)[0][1])) for i in range(10)]
    pixels = np.stack([encoder.preprocess(Pixels.of(image)) for image in images])
    captions = [f"picture {i}" for i in range(10)]
    found = [encoder.encode(pixels[at : at + 4], captions[at : at + 4]) for at in (0, 4, 8)]
    for name, attribute in (("image_emb", "image_ND"), ("text_emb", "text_ND")):
        expected = np.concatenate([getattr(part, attribute) for part in found])
        assert vectors(embeddings[name]).tobytes() == expected.tobytes()
    expected = np.concatenate([part.clip_score_N for part in found])
    assert samples["clip_score"].to_numpy().tobytes() == expected.tobytes()


def test_bits_do_not_depend_on_processes_or_workers(setting):
    pool, _, params, make_worker = setting
    for shard in range(3):
        write_tar(pool / f"{shard}.tar", [m for i in range(7) for m in good(f"{i}", 10 * shard + i)])
    units = embed_params.plan(expand_input(str(pool)), params)
    first = [make_worker(decode_processes=1)(unit) for unit in units]
    worker = make_worker(folder="again", decode_processes=4)
    second = [worker(unit) for unit in reversed(units)]
    assert first == second[::-1]


@pytest.mark.parametrize(
    ("cut", "expected"),
    [(0.4567, [rejects.TAR_TRUNCATED]), (0.0, [rejects.TAR_EMPTY])],
)
def test_damaged_tar_is_a_reject_not_a_failure(setting, cut, expected):
    pool, folder, _, _ = setting
    path = write_tar(pool / "0.tar", [m for i in range(5) for m in good(f"{i}", i)])
    data = open(path, "rb").read()
    open(path, "wb").write(data[: int(len(data) * cut)])
    ((_, receipt),) = run(setting)
    samples, rejects, _ = tables(folder, receipt)
    assert rejects["reason"].to_pylist() == expected
    assert samples["key"].to_pylist() == [str(i) for i in range(samples.num_rows)]
    assert receipt.counters["tar-without-end-mark"] == 1
    assert (samples.num_rows > 0) == (cut > 0)


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_zeros_are_a_reject_and_the_samples_before_them_are_embedded(setting, part):
    pool, folder, _, _ = setting
    path = write_tar(pool / "0.tar", [m for i in range(20) for m in good(f"{i}", i)])
    data = open(path, "rb").read()
    kept = int(len(data) * part)
    open(path, "wb").write(data[:kept] + bytes(len(data) - kept))
    ((_, receipt),) = run(setting)
    samples, rejected, _ = tables(folder, receipt)
    assert rejects.TAR_ZEROS in rejected["reason"].to_pylist()
    assert receipt.counters["read"] == samples.num_rows + rejected.num_rows
    assert (samples.num_rows > 0) == (part > 0)


def test_checksums_are_those_of_the_bytes_that_are_copied(setting):
    """Also of members that are not loaded, and of samples with long names."""
    pool, folder, _, _ = setting
    image = encode_image(make_image(1), "JPEG")
    members = [
        ("a.jpg", image),
        ("a.txt", b"a"),
        ("a.npz", b"n" * 90_000),
        *good("b", 2),
        *good("c" * 120, 3),
    ]
    path = write_tar(pool / "0.tar", [*members, *good("d", 4)])
    ((_, receipt),) = run(setting)
    rows = next(iter(tables(folder, receipt))).to_pylist()
    data = open(path, "rb").read()
    assert [row["key"] for row in rows] == ["a", "b", "c" * 120, "d"]
    for row in rows:
        piece = data[row["offset"] : row["offset"] + row["size"]]
        assert row["checksum"] == hash_sample(piece)
        stored = {member.extension: member.payload for member in parse_sample(piece)}["jpg"]
        assert row["image_sha256"] == hashlib.sha256(stored).digest()


def test_caption_of_zeros_is_empty(setting):
    pool, folder, _, _ = setting
    write_tar(pool / "0.tar", [good("a", 1)[0], ("a.txt", bytes(30)), *good("b", 2)])
    ((_, receipt),) = run(setting)
    _, rejected, _ = tables(folder, receipt)
    assert [(row["key"], row["reason"]) for row in rejected.to_pylist()] == [("a", rejects.CAPTION_EMPTY)]


def test_tar_without_members_gives_an_empty_part(setting):
    pool, folder, _, _ = setting
    write_tar(pool / "0.tar", [])
    ((_, receipt),) = run(setting)
    samples, rejects, _ = tables(folder, receipt)
    assert samples.num_rows == rejects.num_rows == 0
    assert receipt.counters == {"read": 0, "embedded": 0, "rejected": 0}


def test_unit_keys_depend_on_content_and_params(setting):
    pool, _, params, _ = setting
    path = write_tar(pool / "0.tar", good("a", 1))
    write_tar(pool / "1.tar", good("a", 1))

    def keys(params=params):
        return [unit.key for unit in embed_params.plan(expand_input(str(pool)), params)]

    before = keys()
    assert before == keys() and len(set(before)) == 2
    assert not set(keys(dataclasses.replace(params, batch_size=5))) & set(before)
    assert not set(keys(dataclasses.replace(params, pretrained="sha256:other"))) & set(before)
    write_tar(path, good("a", 2))
    assert keys()[0] != before[0] and keys()[1] == before[1]


def test_deleted_shard_is_a_user_error(setting):
    pool, _, params, make_worker = setting
    path = write_tar(pool / "0.tar", good("a", 1))
    (unit,) = embed_params.plan(expand_input(path), params)
    (pool / "0.tar").unlink()
    with pytest.raises(UserError, match=r"0\.tar.*existed when this run began"):
        make_worker()(unit)


def test_shard_of_another_size_than_listed_is_an_error(setting):
    pool, _, params, make_worker = setting
    path = write_tar(pool / "0.tar", good("a", 1))
    (shard,) = expand_input(path)
    (unit,) = embed_params.plan([dataclasses.replace(shard, size=shard.size + 512)], params)
    with pytest.raises(InfrastructureError, match="listed with"):
        make_worker()(unit)


def test_storage_errors_propagate(setting, monkeypatch):
    pool, _, params, make_worker = setting
    write_tar(pool / "0.tar", good("a", 1))
    (unit,) = embed_params.plan(expand_input(str(pool)), params)

    class Broken:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, size):
            raise InfrastructureError("connection reset")

    monkeypatch.setattr(store, "open_read", lambda url, ahead: Broken())
    with pytest.raises(InfrastructureError, match="connection reset"):
        make_worker()(unit)


def test_model_other_than_planned_is_refused(setting):
    _, _, params, make_worker = setting
    with pytest.raises(UserError, match="as planned"):
        make_worker(dataclasses.replace(params, pretrained="sha256:0"))


def test_reject_rate_above_the_limit_fails_the_run():
    counters = {"read": 10, "rejected": 3, "rejected.image-missing": 1, "rejected.caption-empty": 2}
    stage.check_reject_rate(counters, 0.3)
    stage.check_reject_rate({"read": 0}, 0.0)
    with pytest.raises(UserError, match=r"3 of 10 .*30\.0%; 2 caption-empty, 1 image-missing"):
        stage.check_reject_rate(counters, 0.29)


def test_units_can_be_pickled():
    import pickle

    unit = embed_params.EmbedUnit("k", TarShard("u", "n", 1, "v"))
    assert pickle.loads(pickle.dumps(unit)) == unit


def test_fields_of_the_json_become_columns_and_a_missing_number_is_a_reject(setting):
    pool, folder, params, make_worker = setting
    members = [
        *good("a", 1),
        ("a.json", b'{"score": 2, "lang": "de"}'),
        *good("b", 2),
        ("b.json", b'{"score": "x"}'),
    ]
    write_tar(pool / "0.tar", [*members, *good("c", 3), ("c.json", b'{"score": 0.5}')])
    params = dataclasses.replace(params, fields=(("lang", "text"), ("score", "number")))
    (unit,) = embed_params.plan(expand_input(str(pool)), params)
    samples, rejected, _ = tables(folder, make_worker(params)(unit))
    assert samples.select(["key", "lang", "score"]).to_pylist() == [
        {"key": "a", "lang": "de", "score": 2.0},
        {"key": "c", "lang": "", "score": 0.5},
    ]
    assert [(row["key"], row["reason"]) for row in rejected.to_pylist()] == [("b", rejects.FIELD_MISSING)]


def test_values_that_arrow_cannot_store_cost_at_most_their_sample(setting):
    pool, folder, params, make_worker = setting
    jsons = {
        "half": b'{"score": 1, "lang": "caf\\ud83d"}',
        "digits": b'{"score": 1' + b"0" * 400 + b"}",
        "deep": b'{"score": 2, "lang": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "infinite": b'{"score": 1e999, "\\ud83d": 1}',
        "text": b'{"score": "\\ud83d"}',
        "twice": b'{"score": "x", "score": -0.0, "lang": {"a": ["\\ud83d"]}}',
    }
    members = [(key, *good(key, i)) for i, key in enumerate(jsons)]
    write_tar(pool / "0.tar", [m for key, *two in members for m in (*two, (f"{key}.json", jsons[key]))])
    params = dataclasses.replace(params, fields=(("lang", "text"), ("score", "number")))
    (unit,) = embed_params.plan(expand_input(str(pool)), params)
    receipt = make_worker(params)(unit)
    samples, rejected, _ = tables(folder, receipt)
    assert samples.select(["key", "lang", "score"]).to_pylist() == [
        {"key": "half", "lang": "caf\ufffd", "score": 1.0},
        {"key": "twice", "lang": r"{'a': ['\ud83d']}", "score": -0.0},
    ]
    assert {row["key"]: row["reason"] for row in rejected.to_pylist()} == dict.fromkeys(
        ("digits", "deep", "infinite", "text"), rejects.FIELD_MISSING
    )
    assert receipt.counters["field-replaced"] == 1


def test_fatal_samples_cost_one_reject_each_for_any_processes_batches_and_order(
    setting, tmp_path, monkeypatch
):
    from tests.embed.decode.faulty_decoders import MisbehavingDecoder

    monkeypatch.setattr(stage, "Decoder", lambda *given: MisbehavingDecoder(str(tmp_path), Decoder(*given)))
    pool, _, params, make_worker = setting
    members = [good(key, i) for i, key in enumerate(FATAL_KEYS)]
    members[6] = [("junk.jpg", b"<svg/>"), ("junk.txt", b"a")]
    write_tar(pool / "0.tar", [m for one in members for m in one])
    write_tar(pool / "1.tar", [m for i in range(11) for m in good(f"{i}", i)])
    found = []
    for number, (processes, batch_size) in enumerate([(1, 4), (3, 3)]):
        changed = dataclasses.replace(params, batch_size=batch_size)
        folder = f"run-{number}"
        worker = make_worker(changed, folder=folder, decode_processes=processes, image_timeout=0.2)
        units = embed_params.plan(expand_input(str(pool)), changed)
        receipts = [worker(unit) for unit in (units if number == 0 else units[::-1])]
        worker.close()
        for receipt in receipts:
            assert (
                receipt.counters["read"] == 11 == receipt.counters["embedded"] + receipt.counters["rejected"]
            )
        assert sorted(receipt.counters["rejected"] for receipt in receipts) == [0, 4]
        parts = [list(tables(str(tmp_path / folder), receipt)) for receipt in receipts]
        found.append(
            sorted((row["shard"], row["key"], "") for samples, *_ in parts for row in samples.to_pylist())
        )
        found[-1] += sorted(
            (row["shard"], row["key"], row["reason"])
            for _, rejects, _ in parts
            for row in rejects.to_pylist()
        )
    assert found[0] == found[1]
    assert {key: reason for _, key, reason in found[0] if reason} == FATAL_REASONS


def test_batch_that_exceeds_the_devices_memory_loses_no_sample(setting):
    pool, folder, params, make_worker = setting
    write_tar(pool / "0.tar", [m for i in range(21) for m in good(f"{i}", i)])
    params = dataclasses.replace(params, batch_size=8)
    (unit,) = embed_params.plan(expand_input(str(pool)), params)
    samples, _, embeddings = tables(str(pool.parent / "whole"), make_worker(params, folder="whole")(unit))
    worker = make_worker(params)
    tried = with_little_memory(worker._models.encoders[0], 3)
    receipt = worker(unit)
    cut_samples, _, cut_embeddings = tables(folder, receipt)
    # Halved until it fits; later batches are split to that size from the start.
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    assert receipt.counters["batch-cut"] == 3 and receipt.counters["embedded"] == 21
    assert cut_samples.drop(["clip_score"]).equals(samples.drop(["clip_score"]))
    np.testing.assert_allclose(cut_samples["clip_score"], samples["clip_score"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        vectors(cut_embeddings["image_emb"]), vectors(embeddings["image_emb"]), atol=1e-3
    )


def test_single_sample_that_exceeds_the_devices_memory_fails_the_unit(setting):
    pool, _, params, make_worker = setting
    write_tar(pool / "0.tar", [m for i in range(3) for m in good(f"{i}", i)])
    (unit,) = embed_params.plan(expand_input(str(pool)), params)
    worker = make_worker()
    with_little_memory(worker._models.encoders[0], 0)
    with pytest.raises(InfrastructureError, match="one sample exceeds the memory"):
        worker(unit)


def test_tokenizing_in_decode_processes_gives_the_same_part(setting, tiny_model):
    """On a GPU captions are tokenized in the decode processes; the embeddings do not change."""
    from d2prune.embed.decode.tokenizing import TokenizingDecoder

    pool, _, _, make_worker = setting
    write_tar(pool / "0.tar", [m for i in range(5) for m in good(f"{i}", i)])
    ((unit, receipt),) = run(setting)
    worker = make_worker(folder="again")
    decoder = Decoder(worker._models.preprocesses[0], 50_000)
    worker._pool.close()
    worker._pool = DecodePool(
        TokenizingDecoder(decoder, [sources.resolve(str(tiny_model), None)]),
        1,
        decoder.preprocess.n_bytes,
        40,
    )
    worker._models.encoders[0].tokenize = None
    assert worker(unit) == receipt
    worker._pool.close()
