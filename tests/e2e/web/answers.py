"""What the fake model says: a rule on the question, in the frames of a chat completion."""

import re
from collections.abc import Iterator
from typing import Any

Frame = dict[str, Any] | str

HOSTILE = (
    'Look: <img src=x onerror="window.pwned=1"> <script>window.pwned=1</script>\n\n'
    "<b onclick=window.pwned=1>bold</b> [press](javascript:window.pwned=1) "
    "![a picture](https://elsewhere.example/pixel.png) [fine](https://example.org/)\n\n"
    '<style>body{display:none}</style><iframe src="https://elsewhere.example"></iframe>'
)
MARKDOWN = """## Lists and code

Some **bold**, *slanted* and `inline` text, and 3*4*5 as it is.

1. first
2. second

```python
def square(x):
    return x * x  # <b>not bold</b>
```

| word | letters |
|---|---|
| cat | 3 |
"""
FIXED = {
    "markdown": MARKDOWN,
    "hostile": HOSTILE,
    "long page": "\n\n".join(f"Paragraph {number}." for number in range(60)),
}


def frames(question: str) -> Iterator[Frame]:
    """Role, content, calls, the end of the choice, usage, [DONE], as the gateway sends them."""
    yield chunk({"role": "assistant", "content": ""})
    if question == "forever":
        number = 0
        while True:
            yield chunk({"content": f"word {number}\n\n"})
            number += 1
    text, calls = answer(question)
    told = 0
    for call in [*calls, None]:
        end = call["end"] + 1 if call else len(text)
        for piece in re.findall(r"\s*\S+\s*|\s+", text[told:end]):
            yield chunk({"content": piece})
        told = end
        if call:
            yield {**chunk({}), "nanochat": {"tool_calls": [call]}}
        if question == "break off":
            return
        if question == "fail":
            yield {"error": {"message": "The engine stopped.", "type": "server_error", "param": None, "code": "failed"}}
            return
    reason = "length" if question == "be long" else "stop"
    yield {**chunk({}, reason), "nanochat": {"tool_calls": calls}}
    num_tokens = len(text.split())
    usage = {"prompt_tokens": 20, "completion_tokens": num_tokens, "total_tokens": 20 + num_tokens}
    yield {**chunk({}), "choices": [], "usage": usage}
    yield "[DONE]"


def answer(question: str) -> tuple[str, list[dict[str, Any]]]:
    """The text and the calculator calls that stand in it."""
    if found := re.search(r"(\d+) *([-+*]) *(\d+)", question):
        a, operation, b = int(found[1]), found[2], int(found[3])
        result = str({"+": a + b, "-": a - b, "*": a * b}[operation])
        return with_call("Let me work it out.\n\n", f"{a}{operation}{b}", result, f"The answer is **{result}**.")
    if found := re.search(r"how many (\w) (?:are |is )?in (\w+)", question, re.IGNORECASE):
        letter, word = found[1].lower(), found[2].lower()
        result = str(word.count(letter))
        return with_call("", f"'{word}'.count('{letter}')", result, f"The answer is {result}.")
    if found := re.search(r"spell the word:? (\w+)", question, re.IGNORECASE):
        return f"{found[1]}:{','.join(found[1])}", []
    if question == "no result":
        return with_call("Hm. ", "1/0", None, "That has no answer.")
    if question == "emoji":
        return with_call("👩‍🚀 Grüße, 世界! ", "2+2", "4", "Four 🎉")
    return FIXED.get(question, f"You said: {question}"), []


def with_call(before: str, expression: str, result: str | None, after: str) -> tuple[str, list[dict[str, Any]]]:
    span = f"{expression}={result or ''}"
    call = {"expression": expression, "result": result, "start": len(before), "end": len(before) + len(span)}
    return f"{before}{span}\n{after}", [call]


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "nanochat",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        "usage": None,
    }
