"""POST /v1/completions as OpenAI's package and evaluation harnesses use it."""

import httpx
import openai
import pytest

from nanochat.protocol.generate import Delta, Done, Finished, GenerateRequest, Started, TokenLogprob
from tests.integration.gateway.fake_inference import CHECKPOINT, FakeInference, Refusal, Step


def logprob(text: str, value: float, token_id: int = 0) -> TokenLogprob:
    token = TokenLogprob(token_id=token_id, token=text, bytes=list(text.encode()), logprob=value)
    token.top = [token.model_copy(), TokenLogprob(token_id=99, token="?", bytes=[63], logprob=value - 1)]
    return token


def scoring(asked: GenerateRequest) -> list[Step]:
    """A prompt of three tokens, "ab", "c" and "d"; one token " e" a choice."""
    scored = [None, logprob("c", -1.0), logprob("d", -2.0)] if asked.prompt_logprobs else None
    steps: list[Step] = [Started(model="nanochat", checkpoint=CHECKPOINT, prompt_tokens=3, prompt_logprobs=scored)]
    for index in range(asked.n):
        logprobs = [logprob(" e", -0.25)] if asked.logprobs is not None else None
        steps.append(Delta(index=index, text=" e", num_tokens=1, logprobs=logprobs))
        steps.append(Finished(index=index, finish_reason="length", completion_tokens=1))
    return [*steps, Done(prompt_tokens=3, completion_tokens=asked.n)]


@pytest.fixture(autouse=True)
def _scoring(inference: FakeInference) -> None:
    inference.script = scoring


def test_a_text_prompt_is_continued(sdk: openai.OpenAI, inference: FakeInference) -> None:
    completion = sdk.completions.create(model="nanochat", prompt="abcd")
    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-")
    [choice] = completion.choices
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, " e", "length", None)
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 1)
    assert inference.asked == [GenerateRequest(model="nanochat", prompt="abcd", max_tokens=16)]


def test_token_ids_are_a_prompt_too(sdk: openai.OpenAI, inference: FakeInference) -> None:
    sdk.completions.create(model="nanochat", prompt=[1, 2, 3], max_tokens=4)
    assert (inference.asked[0].prompt, inference.asked[0].prompt_token_ids) == (None, [1, 2, 3])


@pytest.mark.parametrize("prompts", [["p", "q", "r"], [[1], [2], [3]]])
def test_several_prompts_have_indices_in_their_order(
    sdk: openai.OpenAI, inference: FakeInference, prompts: list[str] | list[list[int]]
) -> None:
    completion = sdk.completions.create(model="nanochat", prompt=prompts, n=2)
    assert [choice.index for choice in completion.choices] == list(range(6))
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (9, 6)
    assert len(inference.asked) == 3


def test_a_stream_of_several_prompts_says_the_same_as_the_whole_answer(sdk: openai.OpenAI) -> None:
    whole = sdk.completions.create(model="nanochat", prompt=["p", "q"], n=2, echo=True)
    texts = dict.fromkeys(range(4), "")
    chunks = list(
        sdk.completions.create(
            model="nanochat", prompt=["p", "q"], n=2, echo=True, stream=True, stream_options={"include_usage": True}
        )
    )
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_a_harness_scores_token_ids_with_echo_and_logprobs(client: httpx.Client) -> None:
    body = {
        "model": "nanochat",
        "prompt": [[7, 8, 9], [7, 8, 9]],
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,
        "temperature": 0,
        "seed": 1234,
    }
    answer = client.post("/v1/completions", json=body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    logprobs = answer["choices"][1]["logprobs"]
    # A list each of as many items as the prompt has tokens, and the sampled one last, which a harness leaves out.
    assert logprobs["token_logprobs"] == [None, -1.0, -2.0, -0.25]
    assert logprobs["tokens"] == ["", "c", "d", " e"]
    assert logprobs["top_logprobs"] == [None, {"c": -1.0, "?": -2.0}, {"d": -2.0, "?": -3.0}, {" e": -0.25, "?": -1.25}]
    assert logprobs["text_offset"] == [0, 0, 1, 2]
    assert answer["choices"][1]["text"] == "cd e"


def test_max_tokens_0_with_echo_gives_the_prompt_alone(client: httpx.Client, inference: FakeInference) -> None:
    body = {"model": "nanochat", "prompt": "abcd", "echo": True, "logprobs": 0, "max_tokens": 0}
    answer = client.post("/v1/completions", json=body).json()
    [choice] = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abcd", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0, -2.0]
    assert answer["usage"]["completion_tokens"] == 0
    assert inference.asked[0].max_tokens == 1


def test_a_refused_prompt_among_several_refuses_the_request(sdk: openai.OpenAI, inference: FakeInference) -> None:
    def script(asked: GenerateRequest) -> list[Step] | Refusal:
        is_long = asked.prompt == "long"
        return Refusal(400, "context_length_exceeded", "too long", "prompt") if is_long else scoring(asked)

    inference.script = script
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.completions.create(model="nanochat", prompt=["p", "long", "q"])
    assert caught.value.code == "context_length_exceeded"
