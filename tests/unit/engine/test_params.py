import pytest

from nanochat.engine.params import SamplingParams
from nanochat.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_k", 201),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("max_tokens", 0),
        ("stop", ("a", "")),
        ("n", 0),
        ("logprobs", -1),
        ("logprobs", 21),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-46),  # float32's 0: every logit of the prompt's tokens would be infinite
        ("repetition_penalty", 1e39),
        ("repetition_penalty", float("inf")),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", float("nan")),
        ("logit_bias", {5: 100.5}),
        ("logit_bias", {5: float("nan")}),
        ("logit_bias", dict.fromkeys(range(1025), 1.0)),
        ("stop", ("x" * 1025,)),
        ("stop", ("a", "x" * 10_000)),
    ],
)
def test_an_impossible_value_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name


def test_bounds_are_allowed() -> None:
    SamplingParams(temperature=2, top_k=200, top_p=1, max_tokens=1, stop=("x",) * 4, n=1, logprobs=20)
    SamplingParams(temperature=0, top_k=0, top_p=1e-9, logprobs=0)
    SamplingParams(min_p=1, repetition_penalty=1e-3, presence_penalty=-2, frequency_penalty=2, logit_bias={0: -100})
    SamplingParams(stop=("x" * 1024,))


def test_what_a_greedy_row_cannot_use_is_allowed() -> None:
    SamplingParams(temperature=0, top_k=5, top_p=0.5, min_p=0.5, seed=1)
