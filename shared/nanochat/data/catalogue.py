"""The public datasets that have a name of their own: catalogue.json, as data. Another one is a few lines there.

Everything else on the hub goes by hf://owner/dataset (protocol/hub.py), and any folder by its path (registry.py).
"""

import functools
from pathlib import Path

from pydantic import Field, TypeAdapter, field_validator

from nanochat.errors import NotFound
from nanochat.protocol import Strict
from nanochat.protocol.hub import HubReference


class PublicDataset(Strict):
    """`num_shards` are those for training: one more is kept for validation. A benchmark (tasks/benchmark.py) has files
    instead, named by their splits, and all of them come. Both counts are for people to plan by; what is there, the hub
    says."""

    source: str
    is_benchmark: bool = False
    num_shards: int = Field(ge=1)
    shard_bytes: int = Field(ge=1)
    description: str

    @field_validator("source")
    @classmethod
    def _on_the_hub(cls, source: str) -> str:
        HubReference.parse(source)
        return source

    @property
    def num_files(self) -> int:
        return self.num_shards if self.is_benchmark else self.num_shards + 1

    @property
    def reference(self) -> HubReference:
        return HubReference.parse(self.source)


@functools.cache
def public_datasets() -> dict[str, PublicDataset]:
    """By name."""
    content = Path(__file__).with_suffix(".json").read_bytes()
    return TypeAdapter(dict[str, PublicDataset]).validate_json(content)


def public_dataset(name: str) -> PublicDataset:
    """Raises NotFound naming those that are known."""
    found = public_datasets().get(name)
    if found is None:
        raise NotFound(
            f"no public dataset is called {name!r}; known are {', '.join(public_datasets())}. "
            "For another one give its source: hf://owner/dataset.",
            param="name",
        )
    return found
