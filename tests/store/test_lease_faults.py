"""A lease whose renewals fail: it survives what passes, and is lost in order if it does not pass."""

import errno
import time

import pytest

from d2prune import store
from d2prune.errors import BusyError, D2PruneError, InfrastructureError, UserError
from d2prune.store import lease, lease_record, writing
from tests.store.test_lease import hide_processes

FAULTS = {
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "permission": PermissionError(errno.EACCES, "Permission denied"),
    "read-only": OSError(errno.EROFS, "Read-only file system"),
    "stale NFS handle": OSError(errno.ESTALE, "Stale file handle"),
    "time-out": TimeoutError("timed out"),
    "403": UserError("s3://b/.lease/00000001.json: ClientError: An error occurred (403): Forbidden"),
    "503": InfrastructureError("s3://b/.lease/00000001.json: SlowDown"),
    "bug": RuntimeError("unexpected"),
}


def break_writes(monkeypatch, fault, times):
    """The next `times` openings of a file for writing fail."""
    left = [times]

    def fail(path, mode="r", **options):
        if left[0] > 0 and mode != "rb":
            left[0] -= 1
            raise fault
        return open(path, mode, **options)

    monkeypatch.setattr(writing, "open", fail, raising=False)
    return left


def wait_until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_passes_costs_nothing(tmp_path, monkeypatch, kind):
    url = str(tmp_path)
    with lease.hold(url, ttl_s=60.0, renew_s=0.01) as held:
        left = break_writes(monkeypatch, FAULTS[kind], 3)
        wait_until(lambda: left[0] == 0)
        beat = lease_record.read_latest(f"{url}/.lease").beat
        wait_until(lambda: lease_record.read_latest(f"{url}/.lease").beat > beat)
        held.check()
        with pytest.raises(BusyError), lease.hold(url):
            pass


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_stays_loses_the_lease_when_it_expires(tmp_path, monkeypatch, kind):
    ttl_s = 0.4
    with lease.hold(str(tmp_path), ttl_s=ttl_s, renew_s=0.02) as held:
        with monkeypatch.context() as patch:
            break_writes(patch, FAULTS[kind], 10**9)
            start = time.monotonic()
            with pytest.raises(D2PruneError) as caught:
                while True:
                    held.check()
                    time.sleep(0.01)
            assert time.monotonic() - start > ttl_s * 0.8
            lines = str(caught.value).splitlines()
            assert len(lines) == 1 and "lease could not be renewed" in lines[0] and str(tmp_path) in lines[0]
            assert not isinstance(caught.value, BusyError)
        # It stays lost when the fault is gone.
        with pytest.raises(D2PruneError, match="could not be renewed"):
            held.check()


def test_a_lease_that_was_taken_over_during_a_fault_is_lost_to_the_other_run(tmp_path, monkeypatch):
    hide_processes(monkeypatch)
    url = str(tmp_path)
    with lease.hold(url, ttl_s=0.5, renew_s=0.02) as first:
        with monkeypatch.context() as patch:
            # Only the first lease's renewals fail.
            write, owner = lease_record.write_holder, first._holder.owner

            def fail(folder, holder):
                if holder.owner == owner:
                    raise UserError("disk full")
                write(folder, holder)

            patch.setattr(lease_record, "write_holder", fail)
            with lease.hold(url, ttl_s=20.0, renew_s=0.05) as second:
                with pytest.raises(BusyError, match="was taken over by process"):
                    first.check()
                second.check()


def test_a_filesystem_that_hangs_loses_the_lease(tmp_path, monkeypatch):
    read_latest = lease_record.read_latest
    with lease.hold(str(tmp_path), ttl_s=0.3, renew_s=0.01) as held:
        hang = []

        def hang_once(folder):
            if not hang:
                hang.append(folder)
                time.sleep(1.0)
            return read_latest(folder)

        monkeypatch.setattr(lease_record, "read_latest", hang_once)
        wait_until(lambda: hang)
        start = time.monotonic()
        with pytest.raises(InfrastructureError, match="no answer to the last renewal"):
            while time.monotonic() - start < 0.9:
                held.check()
                time.sleep(0.01)
        assert time.monotonic() - start < 0.9


def test_a_full_disk_at_the_end_of_a_run_is_not_an_error(tmp_path, monkeypatch):
    with lease.hold(str(tmp_path), renew_s=100.0):
        break_writes(monkeypatch, FAULTS["full disk"], 10**9)
    assert not lease_record.read_latest(store.join(str(tmp_path), lease.FOLDER)).released


@pytest.mark.parametrize("data", [b"", b"[]", b'{"token": 1}', bytes(300)])
def test_a_damaged_record_is_repaired_by_its_holder(tmp_path, data):
    url = str(tmp_path)
    with lease.hold(url, renew_s=0.01) as held:
        store.write_bytes(lease_record.holder_url(f"{url}/.lease", 1), data)
        wait_until(lambda: lease_record.read_latest(f"{url}/.lease").owner == held._holder.owner)
        held.check()


@pytest.mark.parametrize("data", [b"", bytes(300)])
def test_a_damaged_record_is_waited_for_until_it_expires(tmp_path, monkeypatch, data):
    monkeypatch.setattr(lease_record, "_UNKNOWN_TTL_S", 0.3)
    store.write_bytes(lease_record.holder_url(f"{tmp_path}/.lease", 7), data)
    start = time.monotonic()
    with lease.hold(str(tmp_path), renew_s=0.05) as held:
        assert held.token == 8 and time.monotonic() - start > 0.2
