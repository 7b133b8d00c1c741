"""The files of a measurement: JSON, and a picture where there is one, named after what was measured and when."""

import json
import math
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nanochat.files import write_file


def write(folder: Path, kind: str, report: Any, picture: str = "") -> list[Path]:
    """Such as serve-20250131T120000Z.json and .svg. Raises OSError."""
    name = f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    files = {folder / f"{name}.json": as_json(report)}
    if picture:
        files[folder / f"{name}.svg"] = picture
    for path, content in files.items():
        write_file(path, content.encode())
    return list(files)


def as_json(report: Any) -> str:
    """Dataclasses as objects, what is not finite as null."""
    return json.dumps(_plain(report), indent=2) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it: no dataclass, no path, no infinity."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
