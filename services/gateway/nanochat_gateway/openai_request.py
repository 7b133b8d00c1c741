"""OpenAI's requests as what inference is asked for (protocol/generate.py)."""

from typing import Any

from nanochat.protocol.generate import GenerateRequest, TextFormat
from nanochat.protocol.openai import ChatCompletionRequest, CompletionRequest, TokenStreamRequest
from nanochat_gateway.conversation import conversation
from nanochat_gateway.limits import check_message_sizes, check_prompt_sizes
from nanochat_gateway.settings import GatewaySettings


def chat_generation(body: ChatCompletionRequest, settings: GatewaySettings) -> GenerateRequest:
    """Raises InvalidRequest for messages that are too many, too long, or in a wrong order."""
    check_message_sizes(body.messages, settings)
    return GenerateRequest(
        model=body.model,
        messages=conversation(body.messages),
        max_tokens=body.token_limit,
        temperature=settings.chat_temperature if body.temperature is None else body.temperature,
        **_sampling(body),
        logprobs=body.top_logprobs if body.logprobs else None,
    )


def token_stream_generation(body: TokenStreamRequest, settings: GatewaySettings) -> GenerateRequest:
    check_message_sizes(body.messages, settings)
    return GenerateRequest(
        model=body.model or settings.common.model,
        messages=conversation(body.messages),
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_k=body.top_k,
    )


def completion_generations(body: CompletionRequest, settings: GatewaySettings) -> list[GenerateRequest]:
    """One for each prompt. Raises InvalidRequest for prompts that are too many or too long."""
    check_prompt_sizes(body.prompts, settings)
    return [_completion_generation(body, prompt) for prompt in body.prompts]


def _sampling(body: ChatCompletionRequest | CompletionRequest) -> dict[str, Any]:
    """What both shapes ask of sampling in the same words."""
    return {
        "top_k": body.top_k,
        "top_p": body.top_p,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": body.token_biases,
        "response_format": None if body.response_format == TextFormat() else body.response_format,
        "stop": body.stops,
        "seed": body.seed,
        "n": body.n,
    }


def _completion_generation(body: CompletionRequest, prompt: str | list[int]) -> GenerateRequest:
    text, token_ids = (prompt, None) if isinstance(prompt, str) else (None, prompt)
    return GenerateRequest(
        model=body.model,
        prompt=text,
        prompt_token_ids=token_ids,
        max_tokens=max(1, body.max_tokens),  # inference samples at least one; for 0 it is dropped again
        temperature=1.0 if body.temperature is None else body.temperature,
        **_sampling(body),
        logprobs=body.logprobs,
        # The gateway has no tokenizer: the text of a prompt of token ids comes with its log probabilities.
        prompt_logprobs=body.echo and (body.logprobs is not None or text is None),
    )
