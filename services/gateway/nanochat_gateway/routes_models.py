"""GET /v1/models: what is served now. Promoting is the trainer's (routes_jobs.py)."""

from fastapi import APIRouter
from starlette.responses import Response

from nanochat.errors import NotFound
from nanochat.protocol.generate import ServedModel
from nanochat.protocol.openai import Model, ModelExtension, ModelList
from nanochat_gateway.auth import chat_key
from nanochat_gateway.state import State

router = APIRouter(dependencies=[chat_key])


@router.get("/v1/models")
async def list_models(state: State) -> Response:
    models = [_shown(served) for served in await state.inference.served_models()]
    return Response(ModelList(data=models).model_dump_json(), media_type="application/json")


@router.get("/v1/models/{model}")
async def get_model(model: str, state: State) -> Response:
    served = {one.model: one for one in await state.inference.served_models()}
    if model not in served:
        names = ", ".join(sorted(served)) or "none yet: train one and promote it"
        error = NotFound(f"There is no model {model!r}; served are {names}.", param="model")
        error.code = "model_not_found"
        raise error
    return Response(_shown(served[model]).model_dump_json(), media_type="application/json")


def _shown(served: ServedModel) -> Model:
    added = ModelExtension(
        checkpoint=served.checkpoint,
        context_length=served.context_length,
        vocab_size=served.vocab_size,
        num_parameters=served.num_parameters,
    )
    return Model(id=served.model, created=served.created, nanochat=added)
