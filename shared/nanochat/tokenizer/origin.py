"""What a tokenizer was made of, beside its file: without it nobody can tell later, or make it again."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nanochat.errors import DataError
from nanochat.files import write_file
from nanochat.protocol import Strict

_NAME = "origin.json"


class Origin(Strict):
    """`config` is the job's; the fingerprint that of the split trained on; `bytes_per_token` by kind of text."""

    job_id: str
    dataset: str
    dataset_fingerprint: str
    num_chars: int
    vocab_size: int
    config: dict[str, Any]
    bytes_per_token: dict[str, float]


def save_origin(folder: Path, origin: Origin) -> None:
    write_file(folder / _NAME, origin.model_dump_json(indent=2).encode())


def load_origin(folder: Path) -> Origin | None:
    """None for a tokenizer that came from elsewhere. Raises DataError."""
    path = folder / _NAME
    try:
        return Origin.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        raise DataError(f"{path} cannot be read: {exc}. Remove it, or train the tokenizer again.") from exc
