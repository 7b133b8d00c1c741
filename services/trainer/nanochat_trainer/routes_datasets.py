"""/v1/datasets: what is under $NANOCHAT_HOME/datasets, can be built, or be downloaded. A download is a job."""

from typing import Any

from fastapi import APIRouter

from nanochat.data.catalogue import public_datasets
from nanochat.data.registry import BUILTIN_DATASETS, datasets_dir, resolve_dataset
from nanochat.errors import DataError
from nanochat.protocol import Strict
from nanochat.protocol.jobs import Job, JobSpec
from nanochat.tasks.splits import files_by_split
from nanochat_trainer.routes_jobs import IdempotencyKey, submit
from nanochat_trainer.state import State, TrainerState

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


class DownloadRequest(Strict):
    """As protocol.jobs.DatasetConfig says, which checks it."""

    num_shards: int | None = None
    source: str | None = None


@router.get("")
def list_all(state: State) -> dict[str, Any]:
    folder = datasets_dir(state.home)
    found = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    names = sorted(name for name in found | set(BUILTIN_DATASETS) | set(public_datasets()) if not name.startswith("."))
    return {"object": "list", "data": [_shown(state, name, is_there=name in found) for name in names]}


@router.post("/{name}/download", status_code=202)
async def download(
    name: str, state: State, request: DownloadRequest | None = None, idempotency_key: IdempotencyKey = None
) -> Job:
    """Submit a job of kind dataset. `num_shards` are for training, the validation shard comes too; null: all."""
    wanted = request.model_dump(exclude_none=True) if request else {}
    spec = JobSpec(kind="dataset", config={"name": name, **wanted})
    return await submit(spec, state, idempotency_key)


def _shown(state: TrainerState, name: str, *, is_there: bool) -> dict[str, Any]:
    """`error` says why a job could not use it; `source` where it can be downloaded from."""
    public = public_datasets().get(name)
    shown: dict[str, Any] = {
        "id": name,
        "object": "dataset",
        "is_builtin": name in BUILTIN_DATASETS,
        "source": public.source if public else None,
        "num_shards_available": public.num_files if public else None,
        "num_shards": 0,
        "size_bytes": 0,
        "error": None,
    }
    if public and not is_there:
        return shown  # nothing is wrong with it
    try:
        if public and public.is_benchmark:
            files = [file for found in files_by_split(datasets_dir(state.home) / name).values() for file in found]
            return {**shown, "num_shards": len(files), "size_bytes": sum(file.stat().st_size for file in files)}
        dataset = resolve_dataset(name, state.home, state.settings.common.resolved_data_roots)
        sizes = [path.stat().st_size for path in dataset.shards]
    except DataError as exc:
        return {**shown, "error": exc.message}
    except (OSError, RuntimeError) as exc:  # a folder that may not be read, links that lead in a circle
        return {**shown, "error": f"dataset {name!r} cannot be read: {exc}. Check its permissions and links."}
    return {**shown, "num_shards": len(sizes), "size_bytes": sum(sizes)}
