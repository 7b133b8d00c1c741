"""Pipelines as data: profiles/<name>.json is {"description", "num_processes", "stages": [{"kind", "name", "config"}]}.

Stages run in order. Within a config, "@tokenizer" stands for the output of the earlier stage of that name; a stage's
name is its kind unless it has one, which it must where there are several of a kind. `for_each` writes a stage once for
every combination of values: {"depth": [10, 11]} gives each stage its depth, and "{depth}" in the name its own name.
"""

import itertools
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from nanochat.errors import InvalidConfig
from nanochat.protocol import Strict
from nanochat.protocol.complaint import invalid_config
from nanochat.protocol.jobs import JobKind, Name

PROFILES = Path(__file__).parent / "profiles"


class Stage(Strict):
    kind: JobKind
    name: Name
    config: dict[str, Any] = Field(default_factory=dict)


class Profile(Strict):
    """`num_processes` is that of a pipeline which asks for no number of its own."""

    description: str
    num_processes: Annotated[int, Field(ge=1)] = 1
    stages: list[Stage] = Field(min_length=1)


class _WrittenStage(Strict):
    kind: JobKind
    name: str | None = None
    for_each: dict[str, list[int | float]] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)

    def stages(self) -> list[Stage]:
        """The last key of for_each changes fastest."""
        return [
            Stage(
                kind=self.kind,
                name=_filled(self.name or self.kind, dict(zip(self.for_each, values, strict=True))),
                config={**self.config, **dict(zip(self.for_each, values, strict=True))},
            )
            for values in itertools.product(*self.for_each.values())
        ]


class _WrittenProfile(Strict):
    description: str
    num_processes: Annotated[int, Field(ge=1)] = 1
    stages: list[_WrittenStage] = Field(min_length=1)


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.json"))


@cache
def load_profile(name: str) -> Profile:
    """Raises InvalidConfig, listing the profiles there are. The answer is shared: do not change it."""
    if name not in profile_names():
        raise InvalidConfig(
            f"config.profile is {name!r}; there is {', '.join(profile_names())}.", param="config.profile"
        )
    try:
        return read_profile((PROFILES / f"{name}.json").read_text())
    except InvalidConfig as exc:
        raise InvalidConfig(f"profile {name} cannot be used: {exc.message}", param="config.profile") from exc


def read_profile(text: str) -> Profile:
    """A profile's file, with every for_each written out. Raises InvalidConfig."""
    try:
        written = _WrittenProfile.model_validate(json.loads(text))
        stages = [stage for item in written.stages for stage in item.stages()]
        profile = Profile(description=written.description, num_processes=written.num_processes, stages=stages)
    except ValidationError as exc:
        raise invalid_config(exc) from exc
    except ValueError as exc:
        raise InvalidConfig(str(exc)) from exc
    counts = Counter(stage.name for stage in profile.stages)
    for stage in profile.stages:
        if counts[stage.name] > 1:
            raise InvalidConfig(f"{counts[stage.name]} stages are called {stage.name!r}; give each a name of its own.")
    return profile


def _filled(template: str, values: dict[str, int | float]) -> str:
    """ "{depth}" as 12, "{target_flops}" as 2.15e18: no more than replacing, as a name is no program."""
    for key, value in values.items():
        template = template.replace("{" + key + "}", f"{value:g}".replace("+", ""))
    return template
