"""One object larger than S3's 5 GB put, through `storage.writer` and back, on a real S3 server on loopback.

Every 8 MiB block differs and is compared on the way back. So the server (rclone) is told not to
hash what it has: for an ETag it would read the object whole before it answered the first request,
which takes longer than a client waits. It holds the parts in its own memory until the upload is
completed: it needs as much as the object, this process a few.

    python -m benchmarks.large_object --folder DIR --gigabytes 5.5
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from d2prune import store
from d2prune.demo import s3_server

BLOCK = 8 * 2**20
NOISE = bytes(range(256)) * (BLOCK // 256)


def block(number: int) -> bytes:
    """The block of this number."""
    return number.to_bytes(8, "little") + NOISE[8:]


def main() -> None:
    """Write, read, compare, and tell how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="for the served object; default: a temporary folder")
    parser.add_argument("--gigabytes", type=float, default=5.5)
    options = parser.parse_args()
    count = -(-int(options.gigabytes * 1e9) // BLOCK)
    with tempfile.TemporaryDirectory(prefix="d2prune-large-", dir=options.folder) as folder:
        with s3_server.serve(Path(folder), hashes=False) as server, s3_server.environment(server):
            url = f"{server.make_bucket('bucket')}/large.bin"
            start = time.perf_counter()
            with store.writer(url) as sink:
                for number in range(count):
                    sink.write(block(number))
            written = time.perf_counter() - start
            print(f"{count * BLOCK:,} bytes written in {written:.0f} s", flush=True)
            assert store.info(url).size == count * BLOCK
            start = time.perf_counter()
            with store.open_read(url) as source:
                for number in range(count):
                    if source.read(BLOCK) != block(number):
                        raise SystemExit(f"block {number} of {count} is not what was written")
                if source.read(1):
                    raise SystemExit("the object is longer than what was written")
            read = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{count * BLOCK:,} bytes: written in {written:.0f} s, read and compared in {read:.0f} s; this process "
        f"{used.ru_utime + used.ru_stime:.0f} CPU s, {used.ru_maxrss / 1024:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
