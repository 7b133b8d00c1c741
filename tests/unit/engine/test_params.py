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
    ],
)
def test_an_impossible_value_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name


def test_bounds_are_allowed() -> None:
    SamplingParams(temperature=2, top_k=200, top_p=1, max_tokens=1, stop=("x",) * 4, n=1, logprobs=20)
    SamplingParams(temperature=0, top_k=0, top_p=1e-9, logprobs=0)
