"""A pool with every kind of fault: sample counts balance, and every good sample comes out."""

import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.inputs import rejects
from d2prune.runs.driver import run
from d2prune.verify.folder import verify
from tests.embed.faulty_samples import EMBEDDED, FAULTY, REASONS
from tests.embed.images import encode_image, make_image, write_tar
from tests.pools import write_pool

LONG = "folder/" + "long" * 40


@pytest.fixture
def faulty_pool(tmp_path):
    folder = write_pool(tmp_path / "pool", shards=2, samples=20)
    write_tar(folder / "00000002.tar", FAULTY)
    # The same keys as in the previous shard, and one too long for a ustar header.
    image = encode_image(make_image(7), "JPEG")
    write_tar(folder / "00000003.tar", [*FAULTY[:2], (f"{LONG}.jpg", image), (f"{LONG}.txt", b"long")])
    whole = (folder / "00000001.tar").read_bytes()
    (folder / "00000004.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "00000005.tar").write_bytes(b"")
    return folder


def test_every_fault_is_counted_and_every_good_sample_comes_out(configure, faulty_pool):
    config = configure(
        input=str(faulty_pool), select__fraction=1.0, embed__max_pixels=50_000, embed__max_reject_rate=0.5
    )
    result = run(config, InProcess())
    counters = result.manifests["embed"].counters
    assert counters["read"] == counters["embedded"] + counters["rejected"]
    expected = Counter(REASONS.values()) + Counter([rejects.TAR_TRUNCATED, rejects.TAR_EMPTY])
    # With the default byte limit, the oversized file is rejected as an invalid JPEG instead.
    expected[rejects.IMAGE_TOO_LARGE] -= 1
    found = Counter(
        {name.removeprefix("rejected."): n for name, n in counters.items() if name.startswith("rejected.")}
    )
    assert sum(found.values()) == sum(expected.values()) + 1
    for reason in (
        rejects.CAPTION_EMPTY,
        rejects.CAPTION_MISSING,
        rejects.IMAGE_MISSING,
        rejects.TAR_TRUNCATED,
    ):
        assert found[reason] == expected[reason]
    assert verify(config.output, full=True) == []

    decisions = pq.read_table([str(path) for path in sorted(Path(config.output).glob("decisions-*.parquet"))])
    assert decisions.num_rows == counters["embedded"] == result.manifests["select"].counters["kept"]
    source = Counter(zip(decisions["shard"].to_pylist(), decisions["key"].to_pylist(), strict=True))
    assert max(source.values()) == 1
    assert {key for shard, key in source if shard == "00000002"} == set(EMBEDDED)
    assert ("00000003", LONG) in source and ("00000003", EMBEDDED[0]) in source


def test_payloads_are_copied_byte_for_byte(configure, faulty_pool):
    config = configure(input=str(faulty_pool), select__fraction=1.0, embed__max_reject_rate=0.5)
    result = run(config, InProcess())
    before: Counter[bytes] = Counter()
    for path in sorted(faulty_pool.glob("*.tar")):
        if path.stat().st_size and path.name != "00000004.tar":
            with tarfile.open(path) as tar:
                before.update(tar.extractfile(member).read() for member in tar if member.isfile())
    tars = sorted(str(path) for path in Path(config.output).glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert len(samples) == len({sample["__key__"] + sample["__url__"] for sample in samples})
    payloads = [value for sample in samples for name, value in sample.items() if not name.startswith("__")]
    # The one change: a caption that is not UTF-8 would stop a trainer, so it is repaired.
    assert [payload for payload in payloads if payload not in before] == [
        b"caf\xe9".decode(errors="replace").encode()
    ]
    assert result.manifests["write"].counters["caption_repaired"] == 1


def test_too_many_rejects_fail_the_run_with_their_reasons(configure, faulty_pool, tmp_path):
    with pytest.raises(UserError, match=r"rejected \(.*caption-missing.*embed\.max_reject_rate is 5\.0%"):
        run(configure(input=str(faulty_pool), embed__max_reject_rate=0.05), InProcess())
    assert not (tmp_path / "output").exists()
    result = run(
        configure(input=str(faulty_pool), embed__max_reject_rate=0.5), InProcess(), stop_after="embed"
    )
    assert result.manifests["embed"].counters["rejected"] > 0
