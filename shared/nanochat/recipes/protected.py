"""Which checkpoints of a run may not be deleted by it: those that are served, and those that others build on.

The one question that a recipe has to the database; by hand, where there may be none, nothing is served.
"""

import json
from pathlib import Path

from nanochat.checkpoint import manifest
from nanochat.settings import CommonSettings

_BUILDING_KINDS = ("sft", "rl")


def protected_checkpoints(home: Path, run: str, stage: str) -> set[str]:
    """Ids. Raises Unavailable where the database that says what is served does not answer."""
    prefix = f"{run}/{stage}/"
    return {identity for identity in _served(home) | _bases(home) | _named_by_jobs(home) if identity.startswith(prefix)}


def _served(home: Path) -> set[str]:
    """Those chosen under any name, and those that a rollback would bring back."""
    from nanochat.jobs.database import Database  # slow to import, for most runs delete nothing
    from nanochat.jobs.models import ModelStore

    settings = CommonSettings.load().model_copy(update={"home": home})
    if not settings.database_url and not (home / "nanochat.db").is_file():
        return set()
    database = Database(settings.resolved_database_url)
    try:
        choices = ModelStore(database).choices()
    finally:
        database.close()
    return {identity for choice in choices for identity in (choice.checkpoint, choice.previous) if identity}


def _bases(home: Path) -> set[str]:
    """What other checkpoints were made from: a later attempt at them begins there again."""
    return {
        str(base)
        for info in manifest.list_checkpoints(home)
        if (base := manifest.read_state(info.folder).get("base")) is not None
    }


def _named_by_jobs(home: Path) -> set[str]:
    """What jobs that have been started, and may have saved nothing yet, begin with."""
    root = manifest.checkpoints_dir(home)
    found = set()
    for path in (home / "jobs").glob("*/spec.json"):
        try:
            spec = json.loads(path.read_bytes())
        except (OSError, ValueError):  # removed or being written at this moment
            continue
        folder = Path(spec.get("config", {}).get("checkpoint") or "/")
        if spec.get("kind") in _BUILDING_KINDS and folder.is_relative_to(root):
            found.add(folder.relative_to(root).as_posix())
    return found
