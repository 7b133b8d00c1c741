"""Whether a run may go on from a checkpoint: with the sizes, tokenizer and conversations that it was trained with."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from nanochat.checkpoint.store import Checkpoint
from nanochat.config import GPTConfig
from nanochat.errors import Conflict, DataError
from nanochat.tokenizer.bpe import Tokenizer


def check_same_model(checkpoint: Checkpoint, config: GPTConfig) -> None:
    """Raises Conflict naming the first size that differs."""
    saved, asked = checkpoint.config.to_dict(), config.to_dict()
    for name, value in asked.items():
        if saved[name] != value:
            raise Conflict(
                f"checkpoint {checkpoint.info.id} has {name} {saved[name]} and the job asks for {value}; "
                "give the same sizes, or another run.",
                param="run",
            )


def check_same_tokenizer(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Raises Conflict where the tokens mean something else than they did: as many of them are no sign."""
    if checkpoint.tokenizer != tokenizer:
        raise Conflict(
            f"checkpoint {checkpoint.info.id} was trained with the tokenizer {_short_digest(checkpoint.tokenizer)} and "
            f"the job's is {_short_digest(tokenizer)}, another one of {tokenizer.vocab_size} tokens. Go on with the "
            f"first, of which {checkpoint.info.folder / 'tokenizer.json'} is a copy, or give another run.",
            param="run",
        )


def check_same_conversations(checkpoint: Checkpoint, sources: Sequence[Mapping[str, Any]]) -> None:
    """Raises DataError naming the first of the sources (describe_source) that differs; a place in them would mean
    other conversations. What only lies elsewhere is the same. Older checkpoints do not say what theirs were."""
    saved: list[dict[str, Any]] | None = checkpoint.state.get("conversations")
    if saved is None:
        return
    for was, now in zip_longest(saved, sources):
        if was is None or now is None or any(was[key] != now[key] for key in ("num_conversations", "fingerprint")):
            raise DataError(
                f"the conversations are not those that checkpoint {checkpoint.info.id} was trained on: it had "
                f"{_shown(was)} where the job has {_shown(now)}. Restore what was changed, or begin another run with "
                "this `checkpoint`."
            )


def _shown(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "none"
    return f"{source['num_conversations']} of {source['source']} ({source['fingerprint']})"


def _short_digest(tokenizer: Tokenizer) -> str:
    """Of its file."""
    return hashlib.sha256(tokenizer.to_json()).hexdigest()[:16]
