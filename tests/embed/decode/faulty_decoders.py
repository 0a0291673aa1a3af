"""Decoders that fail on demand; in a module, since decode processes receive them by pickle."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from d2prune.embed.decode.decoder import DecodedSample
from d2prune.inputs.tar.reader import TarSample


@dataclass(frozen=True)
class MisbehavingDecoder:
    """Fails as the sample's key says, else calls `decoder` (default: fill the slot with the key's length)."""

    folder: str
    decoder: object = None

    def setup(self):
        if self.decoder is not None:
            self.decoder.setup()

    def __call__(self, sample: TarSample, into: memoryview):
        key = sample.key
        first = not Path(self.folder, key).exists()
        Path(self.folder, key).touch()
        if key.startswith("segfault"):
            ctypes.string_at(1)
        if key.startswith("spin"):
            while True:
                pass
        if key.startswith("sleep") or (key.startswith("slow-once") and first):
            time.sleep(60)
        if key.startswith("no-memory"):
            raise MemoryError
        if key.startswith("killed-once") and first:
            os.kill(os.getpid(), signal.SIGKILL)
        if key.startswith("defect"):
            raise ZeroDivisionError("a defect")
        if self.decoder is not None:
            return self.decoder(sample, into)
        into[:] = bytes([len(key)]) * len(into)
        return DecodedSample(key, 0, 0, "", "c" * sample.size, 1, 1, ())


@dataclass(frozen=True)
class DyingDecoder:
    """Ends its process before it decodes anything."""

    def setup(self):
        os._exit(3)


@dataclass(frozen=True)
class SlowDecoder:
    """Decodes slowly while a file exists, so that machines can join and leave during the work."""

    mark: str
    decoder: object

    def setup(self):
        self.decoder.setup()

    def __call__(self, sample: TarSample, into: memoryview):
        if os.path.exists(self.mark):
            time.sleep(0.06)
        return self.decoder(sample, into)
