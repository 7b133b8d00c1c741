"""/v1/datasets: folders under $NANOCHAT_HOME/datasets and what can be built. Downloading comes with a later version."""

from typing import Any

from fastapi import APIRouter

from nanochat.data.registry import BUILTIN_DATASETS, datasets_dir, resolve_dataset
from nanochat.errors import DataError, InvalidRequest
from nanochat_trainer.state import State, TrainerState

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.get("")
def list_all(state: State) -> dict[str, Any]:
    folder = datasets_dir(state.home)
    found = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    names = sorted(name for name in found | set(BUILTIN_DATASETS) if not name.startswith("."))
    return {"object": "list", "data": [_shown(state, name) for name in names]}


@router.post("/{name}/download")
def download(name: str, state: State) -> None:
    raise InvalidRequest(
        f"this version cannot download {name!r} yet; put its parquet shards into {datasets_dir(state.home) / name}.",
        param="name",
    )


def _shown(state: TrainerState, name: str) -> dict[str, Any]:
    """`error` says why a job could not use it."""
    shown: dict[str, Any] = {
        "id": name,
        "object": "dataset",
        "is_builtin": name in BUILTIN_DATASETS,
        "num_shards": 0,
        "size_bytes": 0,
        "error": None,
    }
    try:
        dataset = resolve_dataset(name, state.home, state.settings.common.resolved_data_roots)
        sizes = [path.stat().st_size for path in dataset.shards]
    except DataError as exc:
        return {**shown, "error": exc.message}
    except (OSError, RuntimeError) as exc:  # a folder that may not be read, links that lead in a circle
        return {**shown, "error": f"dataset {name!r} cannot be read: {exc}. Check its permissions and links."}
    return {**shown, "num_shards": len(sizes), "size_bytes": sum(sizes)}
