"""Let a CPU build of torch import a CUDA build of torchvision.

The torchvision wheel that pip resolves beside a CPU torch may be a CUDA build. Its compiled
extension then does not load, and ``import torchvision`` dies while it registers fake kernels, with
"operator torchvision::nms does not exist". timm and open_clip import torchvision, so they die with
it. Defining the schemas of those two operators first is enough for the import; no kernel stands
behind them, and the compiled image operators of torchvision stay unavailable (this project decodes
with Pillow).

Call :func:`install` before the first import of open_clip, timm or torchvision, in every process that does so.
"""

import importlib.machinery
import importlib.util
import sys

import torch

__all__ = ["install"]

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# A torch.library.Library un-registers its operators when it is collected, hence the reference.
_library: "torch.library.Library | None" = None


def install() -> None:
    """Define the operators ``torchvision::nms`` and ``torchvision::qnms`` if torchvision cannot do it itself.

    Does nothing where torch is a CUDA build, where torchvision is absent or was already imported, where its
    extension loads, and on a second call.
    """
    global _library
    if _library is not None or torch.version.cuda is not None or "torchvision" in sys.modules:
        return
    if importlib.util.find_spec("torchvision") is None or _extension_loads():
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    _library = library


def _extension_loads() -> bool:
    """Whether torchvision's compiled operators load in this process; loading them registers the real operators."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    # Found by name, not by import: importing any submodule of torchvision runs the failing registration.
    finder = importlib.machinery.PathFinder()
    extension = finder.find_spec("_C", list(spec.submodule_search_locations))
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
