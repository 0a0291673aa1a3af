"""The configuration of a run: what a user writes in `run.yaml`, checked before anything starts.

Stages do not receive this model. Each takes its own frozen params, which hold only what changes the
result, so `ray` never enters a fingerprint.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field, field_validator, model_validator

from d2prune import store
from d2prune.config import file, messages
from d2prune.config.embed import ColumnsConfig, EmbedConfig, FilterConfig
from d2prune.config.section import Location, OptionError, Section
from d2prune.config.sections import (
    METHODS_ON_GRAPHS,
    DedupConfig,
    GraphConfig,
    RayConfig,
    ReportConfig,
    ScoreConfig,
    SelectConfig,
    WriteConfig,
)
from d2prune.errors import UserError
from d2prune.scores import expression
from d2prune.store import schemas

# Numbers that the samples of every pool have.
_SCORES = ("clip_score", "width", "height", *schemas.PAIR_SCORES)


class RunConfig(Section):
    """The configuration of a run."""

    input: Location | list[Location] = Field(
        description="tars, or tables of embeddings: a folder, a glob, a name with braces, or a list of them "
        "(see inputs.md)"
    )
    work_dir: Location = Field(
        description="folder of intermediate artifacts; keep it to resume and to try other fractions"
    )
    output: Location = Field(
        description="folder of the filtered shards, one per selection. With `s3://b/out/{run_id}` every run "
        "writes to its own folder, and `s3://b/out/latest.json` names the newest"
    )
    embed: EmbedConfig = EmbedConfig()
    filter: FilterConfig = FilterConfig()
    columns: ColumnsConfig = ColumnsConfig()
    score: ScoreConfig = ScoreConfig()
    graph: GraphConfig = GraphConfig()
    dedup: DedupConfig = DedupConfig()
    select: SelectConfig
    write: WriteConfig = WriteConfig()
    report: ReportConfig = ReportConfig()
    ray: RayConfig = RayConfig()

    @classmethod
    def load(
        cls,
        path: str | Path | None,
        overrides: Sequence[str | file.Override] = (),
        *,
        needs_budget: bool = True,
    ) -> "RunConfig":
        """Read a YAML file and apply overrides such as `select.fraction=0.3`.

        Args:
            path: path or URL of the file; None: the overrides are the whole configuration.
            overrides: `KEY=VALUE`, in the order in which they apply.
            needs_budget: False: without a budget in `select`, the whole pool is the budget. For runs
                that stop before `select`.

        Raises:
            UserError: one line with the file, the key, its value and what was expected.
        """
        if path is not None:
            path = str(path)
            store.check_readable("config", path)
        settings = file.read(path, overrides)
        return cls._validate(settings if needs_budget else _add_budget(settings))

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> "RunConfig":
        """Validate plain values; errors start with `source`.

        Raises:
            UserError: as in `load`.
        """
        return cls._validate(file.Settings(source, values))

    @classmethod
    def _validate(cls, settings: file.Settings) -> "RunConfig":
        values = settings.merge()
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            faults = messages.list_faults(error, cls, values)
            raise UserError(settings.blame(faults, cls._find_faults)) from None

    @classmethod
    def _find_faults(cls, values: dict[str, Any]) -> list[messages.Fault]:
        try:
            cls.model_validate(values)
        except pydantic.ValidationError as error:
            return messages.list_faults(error, cls, values)
        return []

    @property
    def embeddings_file(self) -> str:
        """Name of the file in each part that holds the embeddings distances are computed on."""
        first = next(iter(self.embed.models), None)
        return schemas.embeddings_file(None if self.graph.model == first else self.graph.model)

    @property
    def written(self) -> dict[str, str]:
        """The folders that a run writes to, by key."""
        found = {"work_dir": self.work_dir, "output": self.output}
        if self.write.stable:
            found["folder of shared tars"] = store.join(
                self.output.rstrip("/").rpartition("/")[0], schemas.SHARED_FOLDER
            )
        return found

    @property
    def pair_scores(self) -> tuple[str, ...]:
        """The scores of the rescore stage that this run uses, in the order of `schemas.PAIR_SCORES`."""
        used = {*self.find_pair_scores(self.score.difficulty), *self.find_pair_scores(self.select.drop_score)}
        return tuple(name for name in schemas.PAIR_SCORES if name in used)

    def find_pair_scores(self, text: str | None) -> set[str]:
        """Return the scores of the rescore stage in a score or an expression of scores."""
        if text is None or text in self.embed.fields:
            return set()
        columns = expression.parse(text, "score").columns
        return {name for name in columns if name in schemas.PAIR_SCORES and name not in self.embed.fields}

    @field_validator("input", "work_dir", "output")
    @classmethod
    def _check_bucket(cls, value: str | list[str]) -> str | list[str]:
        for url in [value] if isinstance(value, str) else value:
            if re.match(r"(s3|gs)://(/|$)", url):
                raise ValueError("expected a bucket after //, as in s3://bucket/folder")
        return value

    @field_validator("output")
    @classmethod
    def _check_run_id(cls, output: str) -> str:
        if "{" in output and not re.fullmatch(r"[^{}]+/\{run_id\}/?", output):
            raise ValueError("expected braces only in the last folder, .../{run_id}")
        return output

    @model_validator(mode="after")
    def _check_output(self) -> "RunConfig":
        if self.output.rstrip("/") == self.work_dir.rstrip("/"):
            raise OptionError("output", f"found {self.output}, the work_dir; expected another folder")
        return self

    @model_validator(mode="after")
    def _check_stable(self) -> "RunConfig":
        if self.write.stable and not self.output.rstrip("/").endswith("/{run_id}"):
            problem = f"found true with output {self.output}; expected an output that ends in /{{run_id}}"
            raise OptionError("write.stable", problem)
        return self

    @model_validator(mode="after")
    def _check_expressions(self) -> "RunConfig":
        """Report a mistyped expression now, not after hours of embedding."""
        for key, text in (
            ("score.difficulty", self.score.difficulty),
            ("select.drop_score", self.select.drop_score),
        ):
            if text is None or text in self.embed.fields:
                continue
            try:
                parsed = expression.parse(text, key)
            except UserError as error:
                raise OptionError(key, str(error).removeprefix(f"{key}: ")) from error
            for name in parsed.columns:
                self._check_score(name, key)
        return self

    def _check_score(self, name: str, key: str) -> None:
        known = [*_SCORES, *map(schemas.score_column, self.embed.models)]
        known += [field for field, kind in self.embed.fields.items() if kind == "number"]
        if name in known or name in schemas.samples().names:
            return
        if name in self.embed.fields:
            raise OptionError(key, f"{name} is a text in embed.fields; expected a number")
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}? " if close else ""
        raise OptionError(
            key,
            f"unknown score {name!r}; {hint}expected one of {', '.join(known)}, or a number of "
            f"embed.fields, as in embed: {{fields: {{{name}: number}}}}",
        )

    @model_validator(mode="after")
    def _check_target(self) -> "RunConfig":
        needs = {
            "score.target": (self.score.target, (schemas.NORM_SIM_INF, schemas.NEAR_TARGET)),
            "score.centroids": (self.score.centroids, (schemas.NEAR_TARGET,)),
        }
        for option, (given, scores) in needs.items():
            used = [name for name in scores if name in self.pair_scores]
            if used and given is None:
                raise OptionError(option, f"found null; expected a file, which {used[0]} needs")
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> "RunConfig":
        name = self.select.groups
        if name is not None and name not in {"shard", *schemas.samples().names, *self.embed.fields}:
            raise OptionError(
                "select.groups",
                f"unknown column {name!r}; expected shard, or a text of embed.fields, as in "
                f"embed: {{fields: {{{name}: text}}}}",
            )
        return self

    @model_validator(mode="after")
    def _check_graph_is_built(self) -> "RunConfig":
        if self.graph.n_neighbors:
            return self
        user = None
        if self.select.method in METHODS_ON_GRAPHS:
            user = f"select.method {self.select.method}"
        elif self.dedup.near is not None:
            user = "dedup.near"
        if user is not None:
            problem = f"found 0; expected a whole number from 1 to 1,024, since {user} uses the graph"
            raise OptionError("graph.n_neighbors", problem)
        return self

    @model_validator(mode="after")
    def _check_graph_model(self) -> "RunConfig":
        if self.graph.model is not None and self.graph.model not in self.embed.models:
            known = ", ".join(self.embed.models) or "none, so leave it out"
            raise OptionError(
                "graph.model", f"found {self.graph.model}; expected a name in embed.models ({known})"
            )
        return self

    @model_validator(mode="after")
    def _check_remote_decoding(self) -> "RunConfig":
        if self.embed.decode == "remote" and not self.ray.num_gpus:
            raise OptionError(
                "embed.decode",
                "found remote, which applies to workers with a GPU; expected ray.num_gpus above 0, or local",
            )
        return self


def _add_budget(settings: file.Settings) -> file.Settings:
    """Return the settings with the whole pool as the budget if they have none."""
    select = settings.merge().get("select")
    given = select if isinstance(select, dict) else {}
    if (select is not None and not isinstance(select, dict)) or given.keys() & {
        "fraction",
        "size",
        "min_score",
    }:
        return settings
    whole = file.Override("", ("select", "fraction"), 1.0, "without a budget:")
    return dataclasses.replace(settings, overrides=(*settings.overrides, whole))
