"""How many tokens a request will take, before it has been tokenized: the replica's process has no tokenizer.

Two running means are learnt from what workers report: tokens a byte of prompt, and tokens an answer. Admission and the
choice of a worker need no more than that.
"""

from nanochat.protocol.generate import GenerateRequest

# Of the first request: English in a vocabulary of some thousand pieces, and a chat's answer.
_TOKENS_PER_BYTE = 0.3
_ANSWER_TOKENS = 128.0
# Weight of the newest observation.
_WEIGHT = 0.05


class Estimate:
    def __init__(self) -> None:
        self._tokens_per_byte = _TOKENS_PER_BYTE
        self._answer_tokens = _ANSWER_TOKENS

    def tokens(self, asked: GenerateRequest) -> int:
        """Of the prompt, once, and of the answers that it will get."""
        answer = min(self._answer_tokens, asked.max_tokens or self._answer_tokens)
        return round(self._prompt_tokens(asked) + asked.n * answer) or 1

    def learn_prompt(self, num_bytes: int, num_tokens: int) -> None:
        if num_bytes:
            self._tokens_per_byte += _WEIGHT * (num_tokens / num_bytes - self._tokens_per_byte)

    def learn_answer(self, num_tokens: int) -> None:
        """An answer that came to its end."""
        self._answer_tokens += _WEIGHT * (num_tokens - self._answer_tokens)

    def _prompt_tokens(self, asked: GenerateRequest) -> float:
        if asked.prompt_token_ids is not None:
            return float(len(asked.prompt_token_ids))
        return prompt_bytes(asked) * self._tokens_per_byte


def prompt_bytes(asked: GenerateRequest) -> int:
    """Of text in UTF-8; 0 for token ids."""
    texts = [asked.prompt or ""]
    for message in asked.messages or []:
        parts = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
        texts += parts
    return sum(len(text.encode()) for text in texts)
