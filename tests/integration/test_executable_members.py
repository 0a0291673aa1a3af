"""A run over a hostile pool, and `verify` of its output, execute nothing that the pool holds."""

import tarfile
from pathlib import Path

from d2prune.execution import InProcess
from d2prune.output.executable import is_executable
from d2prune.runs.driver import run
from d2prune.verify.folder import verify
from tests.embed.images import encode_image, make_image, write_tar
from tests.output import hostile


def test_a_run_and_verify_execute_no_member(configure, tmp_path, monkeypatch):
    markers, pool = tmp_path / "markers", tmp_path / "hostile"
    markers.mkdir()
    pool.mkdir()
    hostile.mark_ghostscript(monkeypatch, markers)
    members = []
    extensions = ["pyd", "pickle", "pkl", "pth", "pt", "png", "eps"]
    for i, made in enumerate(hostile.hostile_samples(markers, extensions)):
        found = {"jpg": encode_image(make_image(i), "JPEG"), "txt": b"a caption %d" % i}
        extension, payload = made.members[-1]
        found[extension] = payload
        members += [(f"{made.key}.{name}", data) for name, data in found.items()]
    write_tar(pool / "00000000.tar", members)
    config = configure(input=str(pool), select__fraction=1.0, embed__max_reject_rate=0.5)
    result = run(config, InProcess())
    out = Path(config.output)
    assert result.manifests["write"].counters["executable_set_aside"] > 100
    faults = verify(config.output, full=True)
    assert not [fault for fault in faults if "would execute" in fault or "differs" in fault]
    tars = sorted(out.glob("*.tar"))
    hostile.decode_all(tars)
    assert list(markers.iterdir()) == []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                assert not is_executable(member.name.split(".", 1)[1], data)
    # The option writes another output from the same embeddings, and verify still executes nothing.
    keeping = configure(
        input=str(pool),
        select__fraction=1.0,
        embed__max_reject_rate=0.5,
        write__keep_executable_members=True,
        output=str(tmp_path / "kept"),
    )
    counters = run(keeping, InProcess()).manifests["write"].counters
    assert "executable_set_aside" not in counters
    faults = verify(keeping.output, full=True)
    assert not [fault for fault in faults if "would execute" in fault or "differs" in fault]
    assert list(markers.iterdir()) == []
    hostile.decode_all(sorted(Path(keeping.output).glob("*.tar")))
    assert list(markers.iterdir()) != []
