"""The write stage from and to a real S3 server: the same bytes as on a disk, and errors of one line."""

import pytest
import s3fs

from d2prune.errors import UserError
from d2prune.verify import folder
from tests.output.pools import build, naive, plain_pool, read_tars, tree
from tests.output.runs import write

ALIKE = (".d2prune-run.json", "meta.json", "sizes.json", "subset.npy")


@pytest.mark.parametrize("step", [2, 9])
def test_the_output_on_s3_equals_the_local_output(tmp_path, s3, step):
    bucket = s3.make_bucket(f"same{step}")
    made = plain_pool(3, 30)
    kept = [[(i * 7 + n) % step == 0 for i in range(30)] for n in range(3)]
    write(build(tmp_path / "local", made, kept), str(tmp_path / "out"))
    remote = build(tmp_path / "remote", made, kept, url=f"{bucket}/pool", work_dir=f"{bucket}/work")
    write(remote, f"{bucket}/out")
    here, there = tree(tmp_path / "out"), tree(s3.folder / f"same{step}" / "out")
    assert here.keys() == there.keys()
    same = [name for name in here if name in ALIKE or name[0].isdigit() or name.startswith("decisions")]
    assert len(same) == len(here) - 2
    assert all(here[name] == there[name] for name in same)
    assert read_tars(s3.folder / f"same{step}" / "out") == naive(made, kept, 7)
    assert folder.verify(f"{bucket}/out", full=True) == []
    assert write(remote, f"{bucket}/out")[1] == []


def test_a_wrong_key_or_missing_bucket_is_a_user_error(tmp_path, s3, monkeypatch):
    made = plain_pool(1, 3)
    pool = build(tmp_path, made, [[True] * 3])
    with pytest.raises((UserError, FileNotFoundError)) as caught:
        write(pool, "s3://no-such-bucket/out")
    assert "no-such-bucket" in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError):
        write(pool, f"{s3.make_bucket('denied')}/out")
    s3fs.S3FileSystem.clear_instance_cache()
    assert not list((s3.folder / "denied").iterdir())
