"""POST /v1/chat/completions in OpenAI's shape, and POST /chat/completions, the plain token stream."""

import json
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response

from nanochat.disconnect import unless_gone
from nanochat.errors import NanochatError
from nanochat.protocol.generate import Delta, Done
from nanochat.protocol.openai import ChatCompletionRequest, TokenStreamRequest
from nanochat_gateway.auth import chat_key
from nanochat_gateway.body import read_model
from nanochat_gateway.errors import body_of
from nanochat_gateway.inference_client import Generation
from nanochat_gateway.openai_request import chat_generation, token_stream_generation
from nanochat_gateway.openai_stream import chat_chunks, chat_completion, frames
from nanochat_gateway.sse import EventStream, frame
from nanochat_gateway.state import GatewayState, State

router = APIRouter(dependencies=[chat_key])


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request, state: State) -> Response:
    body = await read_model(request, ChatCompletionRequest, state.settings.max_body_bytes)
    asked = chat_generation(body, state.settings)

    async def answer() -> Response:
        generation = await state.inference.generate(asked)
        if body.stream:
            return event_stream(frames(chat_chunks(generation, body)), generation, state)
        whole = await chat_completion(generation, body)
        return Response(whole.model_dump_json(exclude_unset=True), media_type="application/json")

    return await unless_gone(request.receive, answer())


@router.post("/chat/completions")
async def create_token_stream(request: Request, state: State) -> Response:
    body = await read_model(request, TokenStreamRequest, state.settings.max_body_bytes)
    asked = token_stream_generation(body, state.settings)
    generation = await unless_gone(request.receive, state.inference.generate(asked))
    return event_stream(_token_frames(generation), generation, state)


def event_stream(chunks: AsyncGenerator[bytes, None], generation: Generation, state: GatewayState) -> EventStream:
    return EventStream(
        chunks,
        close=generation.aclose,
        active=state.metrics.streams_active,
        keep_alive_s=state.settings.keep_alive_s,
    )


async def _token_frames(generation: Generation) -> AsyncGenerator[bytes, None]:
    """{"token", "gpu"} for each piece of text, then {"done": true}; an error frame and no done where it breaks."""
    try:
        async for event in generation.events():
            if isinstance(event, Delta) and event.text:
                yield frame(json.dumps({"token": event.text, "gpu": generation.started.worker}, ensure_ascii=False))
            elif isinstance(event, Done):
                yield frame(json.dumps({"done": True}))
    except NanochatError as error:
        yield frame(body_of(error).model_dump_json())
