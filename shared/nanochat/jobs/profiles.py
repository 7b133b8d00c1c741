"""Pipelines as data: profiles/<name>.json is {"description", "stages": [{"kind", "config"}]}, in order.

Within a config, "@tokenizer" stands for the output of the earlier stage of that kind.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from nanochat.errors import InvalidConfig
from nanochat.protocol import Strict
from nanochat.protocol.jobs import JobKind, invalid_config

PROFILES = Path(__file__).parent / "profiles"


class Stage(Strict):
    kind: JobKind
    config: dict[str, Any] = Field(default_factory=dict)


class Profile(Strict):
    description: str
    stages: list[Stage] = Field(min_length=1)


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
        return Profile.model_validate(json.loads((PROFILES / f"{name}.json").read_text()))
    except (ValidationError, ValueError) as exc:
        detail = invalid_config(exc).message if isinstance(exc, ValidationError) else str(exc)
        raise InvalidConfig(f"profile {name} cannot be used: {detail}", param="config.profile") from exc
