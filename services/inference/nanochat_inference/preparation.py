"""From a request of the protocol to sequences for the engine: in a worker, off the engine's thread."""

from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import GenerateRequest
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_prompt
from nanochat_inference.loaded_model import LoadedModel


def sequences(asked: GenerateRequest, loaded: LoadedModel) -> list[Sequence]:
    """A sequence for each choice. Raises InvalidRequest or ContextTooLong."""
    params = SamplingParams(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logit_bias=asked.logit_bias,
        seed=asked.seed,
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop),
        n=asked.n,
        logprobs=asked.logprobs,
    )
    prompt_ids = _prompt_ids(asked, loaded.tokenizer)
    return [
        Sequence(prompt_ids, params, loaded.tokenizer, loaded.context_length, index=index) for index in range(asked.n)
    ]


def _prompt_ids(asked: GenerateRequest, tokenizer: Tokenizer) -> list[int]:
    given = [name for name in ("messages", "prompt", "prompt_token_ids") if getattr(asked, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InvalidRequest(f"give exactly one of messages, prompt and prompt_token_ids; found {found}.")
    if asked.messages is not None:
        return render_prompt(tokenizer, asked.messages)
    if asked.prompt is not None:
        return [tokenizer.bos_id, *tokenizer.encode(asked.prompt)]
    ids = asked.prompt_token_ids or []
    if not ids:
        raise InvalidRequest("prompt_token_ids is empty; give at least one token.", param="prompt_token_ids")
    wrong = next((token_id for token_id in ids if not 0 <= token_id < tokenizer.vocab_size), None)
    if wrong is not None:
        raise InvalidRequest(
            f"prompt_token_ids has {wrong}; the vocabulary has ids 0 to {tokenizer.vocab_size - 1}.",
            param="prompt_token_ids",
        )
    return ids
