"""Samples with every fault, the reasons they are rejected for, and helpers to read parts."""

import json

from d2prune.inputs import rejects
from d2prune.parts import files
from d2prune.store import artifacts
from tests.embed.images import encode_image, make_image

PNG = encode_image(make_image(0))
UID = "0123456789abcdef" * 2


def uid_json(uid):
    return json.dumps({"uid": uid}).encode()


def good(key, seed):
    """Return the members of a sample without faults."""
    return [(f"{key}.jpg", encode_image(make_image(seed), "JPEG")), (f"{key}.txt", b"picture %d" % seed)]


FAULTY = [
    *good("good-1", 1),
    ("no-image.txt", b"a"),
    ("no-caption.jpg", PNG),
    ("empty-caption.jpg", PNG),
    ("empty-caption.txt", b" \n"),
    ("truncated.jpg", encode_image(make_image(5), "JPEG")[:-200]),
    ("truncated.txt", b"a"),
    ("junk.png", b"<svg/>"),
    ("junk.txt", b"a"),
    ("bomb.png", encode_image(make_image(0, 300, 300))),
    ("bomb.txt", b"a"),
    ("heavy.jpg", b"\xff\xd8\xff" + bytes(50_000)),
    ("heavy.txt", b"a"),
    ("latin.PNG", PNG),
    ("latin.TXT", b"caf\xe9"),
    ("broken-json.webp", encode_image(make_image(6), "WEBP")),
    ("broken-json.txt", b"a"),
    ("broken-json.json", b"{"),
    ("folder/ünïcode.jpeg", PNG),
    ("folder/ünïcode.txt", "über".encode()),
    ("folder/ünïcode.json", uid_json(UID.upper())),
    ("twin.jpg", PNG),
    ("twin.txt", b"a"),
    ("twin.json", uid_json(UID)),
    *good("good-2", 2),
]
EMBEDDED = ["good-1", "latin", "broken-json", "folder/ünïcode", "twin", "good-2"]
REASONS = {
    "no-image": rejects.IMAGE_MISSING,
    "no-caption": rejects.CAPTION_MISSING,
    "empty-caption": rejects.CAPTION_EMPTY,
    "truncated": rejects.IMAGE_TRUNCATED,
    "junk": rejects.IMAGE_UNDECODABLE,
    "bomb": rejects.IMAGE_TOO_LARGE,
    "heavy": rejects.IMAGE_TOO_LARGE,
}

FATAL_KEYS = ["0", "segfault", "1", "2", "spin", "3", "junk", "4", "no-memory", "5", "6"]
FATAL_REASONS = {
    "segfault": rejects.IMAGE_CRASHED_DECODER,
    "no-memory": rejects.IMAGE_CRASHED_DECODER,
    "spin": rejects.IMAGE_TIMEOUT,
    "junk": rejects.IMAGE_UNDECODABLE,
}


def tables(folder, receipt):
    """Read samples, rejects and embeddings of a part."""
    return (
        artifacts.read_table(folder, receipt, name)
        for name in (files.SAMPLES, files.REJECTS, files.EMBEDDINGS)
    )


def with_little_memory(encoder, fits):
    """Make the model run out of memory on more than `fits` samples; return the list of sizes tried."""
    import torch

    tried, whole = [], encoder._model.encode_image

    def encode_image(batch):
        tried.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. (simulated)")
        return whole(batch)

    encoder._model.encode_image = encode_image
    return tried
