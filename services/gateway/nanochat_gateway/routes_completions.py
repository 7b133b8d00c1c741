"""POST /v1/completions. Several prompts are answered side by side, or in a stream one after the other."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response

from nanochat.disconnect import unless_gone
from nanochat.protocol.generate import Done, GenerateRequest
from nanochat.protocol.openai import Completion, CompletionChoice, CompletionRequest
from nanochat_gateway.answer import AnswerHead
from nanochat_gateway.auth import chat_key
from nanochat_gateway.body import read_model
from nanochat_gateway.completions import completion, completion_choices, completion_chunks, usage_chunk
from nanochat_gateway.inference_client import Generation
from nanochat_gateway.openai_request import completion_generations
from nanochat_gateway.openai_stream import frames
from nanochat_gateway.routes_chat import event_stream
from nanochat_gateway.state import GatewayState, State

router = APIRouter(dependencies=[chat_key])


@router.post("/v1/completions")
async def create_completion(request: Request, state: State) -> Response:
    body = await read_model(request, CompletionRequest, state.settings.max_body_bytes)
    asked = completion_generations(body, state.settings)
    if body.stream:
        first = await unless_gone(request.receive, state.inference.generate(asked[0]))
        return event_stream(frames(_chunks(first, asked, body, state)), first, state)
    whole = await unless_gone(request.receive, _whole(asked, body, state))
    return Response(whole.model_dump_json(exclude_unset=True), media_type="application/json")


async def _whole(asked: list[GenerateRequest], body: CompletionRequest, state: GatewayState) -> Completion:
    """All prompts, `max_parallel_prompts` at a time. The first failure cancels the others and is raised."""
    limit = asyncio.Semaphore(state.settings.max_parallel_prompts)

    async def one(position: int) -> tuple[AnswerHead, list[CompletionChoice], Done]:
        async with limit:
            return await completion_choices(await state.inference.generate(asked[position]), body, position)

    tasks = [asyncio.ensure_future(one(position)) for position in range(len(asked))]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    heads, choices, dones = zip(*answers, strict=True)
    return completion(heads[0], [choice for several in choices for choice in several], dones)


async def _chunks(
    first: Generation, asked: list[GenerateRequest], body: CompletionRequest, state: GatewayState
) -> AsyncGenerator[Completion, None]:
    head = AnswerHead.of(first.started, "cmpl")
    dones: list[Done] = []
    for position, request in enumerate(asked):
        generation = first if position == 0 else await state.inference.generate(request)
        try:
            async for chunk in completion_chunks(generation, head, body, position, dones):
                yield chunk
        finally:
            await generation.aclose()
    if body.include_usage:
        yield usage_chunk(head, dones)
