"""What crosses a wire or a process border: requests, events, job configs. pydantic models, torch-free.

jobs.py       a job, its config by kind, as REST, CLI and recipes read it
complaint.py  what is wrong with one of these, as an error
hub.py        names of datasets on the hub
progress.py   the lines of progress.jsonl, from a recipe to the worker
generate.py   between gateway and inference
openai.py     between the world and the gateway
"""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A model that refuses unknown keys and silent conversions such as "3" for 3."""

    model_config = ConfigDict(extra="forbid", strict=True)
