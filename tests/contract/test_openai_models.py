"""GET /v1/models."""

import openai
import pytest

from tests.integration.gateway.fake_inference import CHECKPOINT, FakeInference


def test_the_served_model_is_listed_with_its_checkpoint(sdk: openai.OpenAI) -> None:
    [model] = sdk.models.list()
    assert (model.id, model.object, model.owned_by, model.created) == ("nanochat", "model", "nanochat", 1_700_000_000)
    assert model.model_dump()["nanochat"] == {
        "checkpoint": CHECKPOINT,
        "context_length": 512,
        "vocab_size": 4096,
        "num_parameters": 1000,
    }
    assert sdk.models.retrieve("nanochat") == model


def test_no_model_yet_is_an_empty_list(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.served = None
    assert list(sdk.models.list()) == []


def test_an_unknown_model_is_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("gpt-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "nanochat" in caught.value.message
