"""Let a CPU build of torch import a CUDA build of torchvision.

pip may resolve a CUDA build of torchvision beside a CPU build of torch. The compiled extension of
torchvision then does not load, and `import torchvision` fails with "operator torchvision::nms does
not exist" while it registers fake kernels. timm and open_clip import torchvision, so they fail too.

The schemas of two operators are enough for the import. They have no kernels, and torchvision's
compiled image operators remain unavailable; this project decodes images with Pillow. Where torch
and torchvision match, nothing is installed.

Call `install_if_needed` before the first import of open_clip, timm or torchvision in a process.
`d2prune.embed.model.sources.import_open_clip` does so for the package.
"""

import importlib.machinery
import importlib.util
import sys

import torch

__all__ = ["install_if_needed"]

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# Kept, because a torch.library.Library unregisters its operators when it is collected.
_library: "torch.library.Library | None" = None


def install_if_needed() -> None:
    """Define the schemas of `torchvision::nms` and `torchvision::qnms` if `is_needed`."""
    global _library
    if not is_needed():
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    _library = library


def is_needed() -> bool:
    """Whether the installed torchvision cannot be imported without the shim.

    False if the shim is installed, if torch is a CUDA build, and if torchvision is absent, already
    imported or its extension loads.
    """
    if _library is not None or torch.version.cuda is not None or "torchvision" in sys.modules:
        return False
    return importlib.util.find_spec("torchvision") is not None and not _extension_loads()


def _extension_loads() -> bool:
    """Whether torchvision's compiled operators load. If they do, this registers them."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    # Found by file name: importing a submodule would run the registration that fails.
    finder = importlib.machinery.PathFinder()
    extension = finder.find_spec("_C", list(spec.submodule_search_locations))
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
