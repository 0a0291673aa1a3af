"""Which icon sets train the teacher, form the pool, and test the students; which licences are used.

Whole families of sets are assigned, since the sets of a family share drawings: `bx` and `bxs`,
`fa-solid` and `fa7-solid`. What is chosen (gamma's multiple, SemDeDup's threshold) is chosen on the
families of CHOOSING; those of TESTING only report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

PACKAGE, VERSION = "@iconify/json", "2.2.535"
URL = f"https://registry.npmjs.org/{PACKAGE}/-/json-{VERSION}.tgz"
SHA256 = "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91"

Split = Literal["teacher", "pool", "choosing", "testing"]
SPLITS: tuple[Split, ...] = ("teacher", "pool", "choosing", "testing")

LICENCES = frozenset(
    {
        "Apache-2.0", "BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0",
        "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0", "GPL-3.0-or-later", "ISC", "MIT", "MPL-2.0",
        "OFL-1.1", "Unlicense",
    }
)  # fmt: skip
"""Licences that permit rendering and training. Sets under any other, or none, are left out."""

UNUSED_CATEGORIES = frozenset({"Logos"})
"""Names of brands describe no image: nothing in one set helps with the names of another."""

# Sets that belong together although their names do not begin alike.
_FAMILIES = {
    "material": ("ic", "mdi", "mdi-light", "line-md", "material-symbols", "material-symbols-light", "zmdi"),
    "material-files": ("material-icon-theme",),
    "boxicons": ("bx", "bxs", "boxicons"),
    "font-awesome": (
        "fa", "fa-brands", "fa-regular", "fa-solid", "fa6-brands", "fa6-regular", "fa6-solid", "fa7-brands",
        "fa7-regular", "fa7-solid", "la",
    ),
    "feather": ("feather", "lucide", "lucide-lab"),
    "ionicons": ("ion", "famicons"),
    "maps": ("gis", "map", "maki", "osmic", "pinhead", "roentgen", "temaki"),
    "unicons": ("uil", "uim", "uis", "uit"),
    "coreui": ("cib", "cif", "cil"),
    "emojione": ("emojione", "emojione-monotone", "emojione-v1"),
    "flags": ("circle-flags", "flag", "flagpack"),
    "wikimedia": ("ooui",),
}  # fmt: skip
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names}

# Large collections with one consistent style each, whose names are edited: a curated source.
TEACHER = frozenset(
    {
        "bi", "carbon", "feather", "fluent", "game", "healthicons", "hugeicons", "iconoir", "mingcute",
        "openmoji", "ph", "pixelarticons", "ri", "tabler", "tdesign",
    }
)  # fmt: skip
CHOOSING = frozenset(
    {
        "clarity", "fxemoji", "heroicons", "ionicons", "lets", "unicons", "vaadin", "whh",
    }
)  # fmt: skip
TESTING = frozenset(
    {
        "dashicons", "f7", "flat", "flowbite", "foundation", "grommet", "iconamoon", "jam", "majesticons",
        "meteocons", "mynaui", "octicon", "si", "teenyicons", "wi",
    }
)  # fmt: skip


def family_of(prefix: str) -> str:
    """Return the family of an icon set: a listed one, or the first word of its name."""
    return _FAMILY_OF.get(prefix) or prefix.partition("-")[0]


def split_of(prefix: str) -> Split:
    """Return the split that an icon set belongs to."""
    family = family_of(prefix)
    if family in TEACHER:
        return "teacher"
    if family in CHOOSING:
        return "choosing"
    return "testing" if family in TESTING else "pool"


def is_usable(collection: Mapping[str, Any]) -> bool:
    """Whether a set, described as in `collections.json`, has a permitted licence and is no logo set."""
    licence = collection.get("license") or {}
    return licence.get("spdx") in LICENCES and collection.get("category") not in UNUSED_CATEGORIES


def caption_of(name: str) -> str:
    """Return the caption of an icon: its name as words."""
    return " ".join(name.replace("_", "-").split("-")).strip()
