"""What makes a checkpoint complete: a manifest with size and SHA-256 of every file, itself sealed by a digest.

Lists, finds and verifies checkpoints without torch, so that the services which hold no model can. Writing and reading
tensors is store.py.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nanochat.config import GPTConfig
from nanochat.errors import CheckpointCorrupt, InvalidConfig, InvalidRequest, NotFound

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "state.json"
FORMAT = 1
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_ID = re.compile(rf"(?P<run>{_PART})(/(?P<stage>{_PART})(/step_(?P<step>\d{{6,}}))?)?")
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """A complete checkpoint as it is listed. `id` is run/stage/step_000500; `created` is in Unix seconds."""

    id: str
    run: str
    stage: str
    step: int
    created: float
    size_bytes: int
    config: GPTConfig
    metrics: dict[str, float]
    folder: Path


def checkpoint_id(run: str, stage: str, step: int) -> str:
    """Raises InvalidRequest on a name that could not be a folder's."""
    for name in (run, stage):
        if not re.fullmatch(_PART, name):
            raise InvalidRequest(f"{name!r} cannot name a run or a stage; use letters, digits, '.', '_' and '-'.")
    return f"{run}/{stage}/step_{step:06d}"


def checkpoints_dir(home: Path) -> Path:
    return home / "checkpoints"


def write(
    folder: Path,
    *,
    run: str,
    stage: str,
    step: int,
    created: float,
    known: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Write the manifest over the files that are in `folder` now. The last file of a checkpoint.

    `known` is what another manifest says of files that are the same: they are not read again.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    files = {
        name: known.get(name) or {"size_bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in paths
        for name in [path.relative_to(folder).as_posix()]
    }
    values = {"format": FORMAT, "run": run, "stage": stage, "step": step, "created": created, "files": files}
    (folder / MANIFEST).write_bytes(_sealed(values))


def read(folder: Path) -> dict[str, Any]:
    """The manifest's content. Raises CheckpointCorrupt when it is missing, malformed, or a byte of it has changed."""
    path = folder / MANIFEST
    try:
        return parse(path.read_bytes(), path)
    except FileNotFoundError as exc:
        raise _corrupt(path, "is missing: the checkpoint was not completed") from exc
    except OSError as exc:
        raise _corrupt(path, f"cannot be read ({exc})") from exc


def parse(content: bytes, path: Path) -> dict[str, Any]:
    """The manifest that these bytes are. Raises CheckpointCorrupt naming `path`, where they came from."""
    try:
        values = json.loads(content)
    except ValueError as exc:
        raise _corrupt(path, f"cannot be read ({exc})") from exc
    if not isinstance(values, dict) or values.pop("seal", None) is None or _sealed(values) != content:
        raise _corrupt(path, "has changed since it was written")
    if values["format"] != FORMAT:
        raise _corrupt(path, f"has format {values['format']}, this version reads format {FORMAT}")
    return values


def verify(folder: Path, on_progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Check every file against the manifest, and return it. Raises CheckpointCorrupt naming the first bad file.

    Reads every byte: about a second a gigabyte. on_progress is called for each MiB of it.
    """
    values = read(folder)
    for name, expected in values["files"].items():
        path = folder / name
        if not path.is_file():
            raise _corrupt(path, "is missing")
        if path.stat().st_size != expected["size_bytes"]:
            raise _corrupt(path, f"has {path.stat().st_size} bytes and should have {expected['size_bytes']}")
        if _digest(path, on_progress) != expected["sha256"]:
            raise _corrupt(path, "has changed since it was written (its SHA-256 differs)")
    return values


def read_info(folder: Path) -> CheckpointInfo:
    """What the small files of a checkpoint say, sizes of files compared but not their digests.

    A folder that was copied to another run goes by its new place. Raises CheckpointCorrupt.
    """
    values = read(folder)
    for name, expected in values["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["size_bytes"]:
            raise _corrupt(path, "is missing or has another size than the manifest says")
    match = _ID.fullmatch("/".join(folder.parts[-3:]))
    place = match.groupdict() if match else {}
    run, stage, step = (place.get(key) or values[key] for key in ("run", "stage", "step"))
    return CheckpointInfo(
        id=checkpoint_id(run, stage, int(step)),
        run=run,
        stage=stage,
        step=int(step),
        created=values["created"],
        size_bytes=sum(file["size_bytes"] for file in values["files"].values()),
        config=read_config(folder),
        metrics=_metrics(read_state(folder)),
        folder=folder,
    )


def read_config(folder: Path) -> GPTConfig:
    path = folder / "config.json"
    try:
        return GPTConfig.from_dict(_read_json(path))
    except (InvalidConfig, TypeError) as exc:
        raise _corrupt(path, f"is no model's config ({exc})") from exc


def read_state(folder: Path) -> dict[str, Any]:
    values = _read_json(folder / STATE)
    if not isinstance(values, dict):
        raise _corrupt(folder / STATE, "is not a JSON object")
    return values


def list_checkpoints(home: Path) -> list[CheckpointInfo]:
    """Every complete checkpoint, newest first. Incomplete and damaged ones are left out, the damaged ones logged."""
    return list(_newest_first(checkpoints_dir(home).glob("*/*/step_*")))


def newest(home: Path, run: str, stage: str, *, verified: bool = False) -> CheckpointInfo | None:
    """The checkpoint written last in a run's stage; None when there is none.

    With `verified`, every byte is checked and a damaged one passed over for the one before, as a resume wants it.
    """
    for info in _newest_first((checkpoints_dir(home) / run / stage).glob("step_*")):
        if not verified:
            return info
        try:
            verify(info.folder)
        except CheckpointCorrupt as exc:
            log.warning("checkpoint_skipped", extra={"checkpoint": info.id, "reason": exc.message})
            continue
        return info
    return None


def find(home: Path, reference: str) -> CheckpointInfo:
    """The checkpoint that an id names: run/stage/step_000500, or the newest one of run/stage, or of a run.

    Raises NotFound, or CheckpointCorrupt when one step is named and damaged.
    """
    match = _ID.fullmatch(reference)
    if match is None:
        raise NotFound(f"{reference!r} names no checkpoint; a name reads run/stage/step_000500, run/stage, or run.")
    base = checkpoints_dir(home)
    if match["step"] is not None:
        if not (base / reference).is_dir():
            raise NotFound(f"no checkpoint {reference!r} in {base}; list them with GET /v1/checkpoints.")
        return read_info(base / reference)
    pattern = "step_*" if match["stage"] else "*/step_*"
    info = next(_newest_first((base / reference).glob(pattern)), None)
    if info is None:
        raise NotFound(f"no complete checkpoint under {reference!r} in {base}; list them with GET /v1/checkpoints.")
    return info


def _newest_first(folders: Iterator[Path]) -> Iterator[CheckpointInfo]:
    infos = []
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            continue
        try:
            infos.append(read_info(folder))
        except CheckpointCorrupt as exc:
            log.warning("checkpoint_skipped", extra={"checkpoint": str(folder), "reason": exc.message})
    yield from sorted(infos, key=lambda info: (info.created, info.step), reverse=True)


def _metrics(state: dict[str, Any]) -> dict[str, float]:
    """state.json's metrics that are finite numbers; JSON has no others."""
    metrics = state.get("metrics")
    items = metrics.items() if isinstance(metrics, dict) else ()
    return {name: float(v) for name, v in items if isinstance(v, int | float) and math.isfinite(v)}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise _corrupt(path, f"cannot be read ({exc})") from exc


def _sealed(values: dict[str, Any]) -> bytes:
    """The one way in which these values are written, so that any other byte in the file is a change."""
    body = json.dumps(values, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**values, "seal": seal}, sort_keys=True, indent=1) + "\n").encode()


def _digest(path: Path, on_progress: Callable[[], None] = lambda: None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            on_progress()
    return digest.hexdigest()


def _corrupt(path: Path, what: str) -> CheckpointCorrupt:
    return CheckpointCorrupt(f"checkpoint file {path} {what}. Choose another checkpoint, or save this one again.")
