"""Write docs/configuration.md from the configuration model: `python docs/make_configuration.py`."""

import inspect
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from d2prune.config.model import RunConfig

HEAD = """# Configuration

One YAML file; `--set a.b=c` overrides a key. Unknown keys are refused with the nearest known name. Only `input`,
`work_dir`, `output`, a budget (`select.fraction`, `size` or `min_score`) and, for tars, `embed.model` (or `models`) are
needed. (Made by `docs/make_configuration.py`.)
"""

COSTS = """## What a change costs

| changed | done again |
|---|---|
| `ray.*` | nothing |
| `write.*` | write |
| `select.fraction`, `size`, `min_score`, `groups` | select, write |
| `score.*`, `select.gamma_*` | rank and what follows |
| `graph.*`, `select.drop_*` | graph and what follows |
| `filter.*`, `embed.*` but `max_reject_rate`, `image_timeout` | embed and what follows |
| `columns.*`; a changed shard | its parts, graph and what follows |

`embed.image_timeout` is in no fingerprint: a new limit does not touch shards that are embedded already.
"""


def section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a section, None for a plain key."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def row(name: str, field: FieldInfo) -> str:
    """One key as a table row."""
    default = "needed" if field.is_required() else "`null`" if field.default is None else f"`{field.default}`"
    return f"| `{name}` | {default} | {field.description} |"


def page() -> str:
    """The whole page."""
    top = "| key | default | |\n|---|---|---|"
    lines = [HEAD, top]
    lines += [row(name, field) for name, field in RunConfig.model_fields.items() if section(field) is None]
    for name, field in RunConfig.model_fields.items():
        model = section(field)
        if model is not None:
            lines += ["", f"## {name}", "", inspect.cleandoc(str(model.__doc__)), "", top]
            lines += [row(f"{name}.{key}", inner) for key, inner in model.model_fields.items()]
    return "\n".join([*lines, "", COSTS])


if __name__ == "__main__":
    (Path(__file__).parent / "configuration.md").write_text(page(), encoding="utf-8")
