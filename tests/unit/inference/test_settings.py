import pytest
from pydantic import ValidationError

from nanochat_inference.settings import InferenceSettings


def test_settings_come_from_their_own_and_the_common_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_INFERENCE_PORT", "9002")
    monkeypatch.setenv("NANOCHAT_MODEL", "mine")
    monkeypatch.setenv("NANOCHAT_INFERENCE_NUM_THREADS", "3")
    settings = InferenceSettings.load()
    assert (settings.port, settings.model, settings.resolved_num_threads) == (9002, "mine", 3)


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "70000"), ("MAX_RUNNING", "0"), ("DEADLINE_S", "0"), ("PRECISION", "fp7")]
)
def test_an_impossible_value_names_its_field(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"NANOCHAT_INFERENCE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        InferenceSettings.load()
