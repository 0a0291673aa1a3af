"""Write and read one object above S3's 5 GB limit for a single put, on an S3 server on loopback.

    python -m benchmarks.large_object --folder DIR --gigabytes 5.5

Writes the object through `store.writer`, reads it back, and compares every block of 8 MiB; all
blocks differ. Prints seconds, CPU seconds and peak memory; exits with 1 at the first difference.
The object is served from a temporary folder inside `--folder`.

The server (rclone) runs without hashing: to compute an ETag it would read the whole object before
it answered the first request for it, which takes longer than a client waits. It keeps the parts in
memory until the upload is complete, so it needs as much memory as the object has bytes.
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
    """Return the block with this number."""
    return number.to_bytes(8, "little") + NOISE[8:]


def main() -> None:
    """Write the object, read it back, compare, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="for the served object (default: the system's temp)")
    parser.add_argument("--gigabytes", type=float, default=5.5, help="size of the object (%(default)s)")
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
                        raise SystemExit(f"{url}: block {number} of {count} differs from what was written")
                if source.read(1):
                    raise SystemExit(f"{url}: found more than the {count * BLOCK:,} bytes that were written")
            read = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{count * BLOCK:,} bytes: written in {written:.0f} s, read and compared in {read:.0f} s; "
        f"{used.ru_utime + used.ru_stime:.0f} CPU s and a peak of {used.ru_maxrss / 1024:.0f} MiB "
        "in this process"
    )


if __name__ == "__main__":
    main()
