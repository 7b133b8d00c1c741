"""How much one request may ask for, in messages and characters. Inference, which has the tokenizer, counts tokens."""

from collections.abc import Sequence

from nanochat.errors import InvalidRequest
from nanochat.protocol.openai import ChatMessage
from nanochat_gateway.settings import GatewaySettings


def check_message_sizes(messages: Sequence[ChatMessage], settings: GatewaySettings) -> None:
    """Raises InvalidRequest naming the first message that is too long, or what is too much in all."""
    if len(messages) > settings.max_messages:
        raise InvalidRequest(
            f"messages has {len(messages)} items; at most {settings.max_messages} are taken. Start a new chat.",
            param="messages",
        )
    total = 0
    for i, message in enumerate(messages):
        size = num_chars(message)
        total += size
        if size > settings.max_message_chars:
            raise InvalidRequest(
                f"messages[{i}].content has {size} characters; at most {settings.max_message_chars} are taken. "
                "Shorten it.",
                param=f"messages[{i}].content",
            )
    if total > settings.max_total_chars:
        raise InvalidRequest(
            f"messages has {total} characters in all; at most {settings.max_total_chars} are taken. "
            "Shorten it or start a new chat.",
            param="messages",
        )


def check_prompt_sizes(prompts: Sequence[str | list[int]], settings: GatewaySettings) -> None:
    """The same for prompts of completions. Token ids are bounded by the body and the model's context."""
    if len(prompts) > settings.max_prompts:
        raise InvalidRequest(
            f"prompt has {len(prompts)} items; at most {settings.max_prompts} are taken. Send several requests.",
            param="prompt",
        )
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str) and len(prompt) > settings.max_total_chars:
            raise InvalidRequest(
                f"prompt {i} has {len(prompt)} characters; at most {settings.max_total_chars} are taken. Shorten it.",
                param="prompt",
            )


def num_chars(message: ChatMessage) -> int:
    content = message.content
    return len(content) if isinstance(content, str) else sum(len(part.text) for part in content)
