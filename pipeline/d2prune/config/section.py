"""Base of all sections of a configuration.

Field descriptions are user documentation: docs/configuration.md is generated from them.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
