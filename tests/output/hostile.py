"""Samples whose members leave a marker file where they are unpickled or executed."""

import gzip
import io
import pickle
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import EpsImagePlugin
from webdataset import autodecode

from d2prune.output.executable import EXECUTABLE
from tests.output.pools import Made, jpeg, uid_of

EXTENSIONS = sorted({*autodecode.decoders, *autodecode.IMAGE_EXTENSIONS, *EXECUTABLE})
"""Every extension that the installed WebDataset decodes, and those of other loaders."""

IN_WEBDATASET = {"pyd", "pickle", "pkl", "pth", *autodecode.IMAGE_EXTENSIONS}
"""Those under which it executes some payload."""

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def _iptc_field(record, tag, data):
    return bytes((0x1C, record, tag)) + len(data).to_bytes(2, "big") + data


# Pillow opens the picture inside by its content.
IPTC = b"".join(
    (
        _iptc_field(3, 60, b"\x01\x00"),
        _iptc_field(3, 20, b"\x09"),
        _iptc_field(3, 30, b"\x09"),
        _iptc_field(3, 120, b"\x05"),
        _iptc_field(8, 10, POSTSCRIPT),
    )
)


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def payloads(folder):
    """Return every kind of payload that may execute: name -> bytes. Each creates a file in `folder`."""
    folder = Path(folder)
    npy, npz, saved = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, np.array([Marker(folder / "npy")], object), allow_pickle=True)
    np.savez(npz, np.array([Marker(folder / "npz")], object))
    torch.save(Marker(folder / "torch"), saved)
    return {
        "pickle": pickle.dumps(Marker(folder / "pickle")),
        "npy": npy.getvalue(),
        "npz": npz.getvalue(),
        "torch": saved.getvalue(),
        "postscript": POSTSCRIPT,
        "iptc": IPTC,
    }


def mark_ghostscript(monkeypatch, folder):
    """Make Pillow create a file instead of starting Ghostscript."""

    def create(*_args, **_options):
        (Path(folder) / "postscript").touch()
        raise OSError("no Ghostscript")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", create)


def hostile_samples(folder, extensions=EXTENSIONS):
    """Return samples with an image, a caption and a hostile member: each extension, kind and compression."""
    made = []
    for extension in extensions:
        for kind, payload in payloads(folder).items():
            for name, data in (
                (extension, payload),
                (f"seg.{extension.upper()}", payload),
                (f"{extension}.gz", gzip.compress(payload, mtime=0)),
                (f"{extension}.gz.gz", gzip.compress(gzip.compress(payload, mtime=0), mtime=0)),
            ):
                key = f"{len(made):05d}"
                uid = uid_of(f"{name} {kind}")
                plain = [("webp" if name == "jpg" else "jpg", jpeg(1)), ("txt", b"a caption")]
                members = [member for member in plain if member[0] != name]
                made.append(Made(key, uid, (*members, (name, data))))
    return made


def decode_all(tars):
    """Read tars as a trainer does, with each of WebDataset's default decoders; faults are skipped."""
    for handlers in ([], ["pilrgb"], ["torchrgb"]):
        data = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
        for _ in data.decode(*handlers, handler=webdataset.ignore_and_continue):
            pass
    data = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
    for item in data:
        try:
            webdataset.autodecode.default_decoder(item)
        except Exception:
            continue
