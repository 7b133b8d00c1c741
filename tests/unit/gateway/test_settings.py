import os

import pytest
from pydantic import SecretStr, ValidationError

from nanochat.loopback import is_loopback
from nanochat_gateway.settings import AccessSettings, GatewaySettings

NOBODY = AccessSettings(api_keys=SecretStr(""), admin_keys=SecretStr(""), allow_anonymous=False)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NANOCHAT_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "chat.localhost"])
def test_these_hosts_are_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert GatewaySettings(host=host, access=NOBODY).is_loopback


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.example"])
def test_any_other_host_needs_a_key(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValidationError, match="no key is set"):
        GatewaySettings(host=host, access=NOBODY)


def test_variables_are_read_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "NANOCHAT_GATEWAY_PORT": "9000",
        "NANOCHAT_GATEWAY_INFERENCE_URLS": "http://a:1/, http://b:2",
        "NANOCHAT_GATEWAY_TRAINER_URL": "http://t:3",
        "NANOCHAT_API_KEYS": "a,b",
        "NANOCHAT_MODEL": "mine",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings.load()
    assert (settings.port, settings.trainer_url) == (9000, "http://t:3")
    assert settings.inference_url_list == ["http://a:1", "http://b:2"]
    assert settings.access.api_key_list == ["a", "b"]
    assert settings.common.model == "mine"


def test_no_inference_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="INFERENCE_URLS is empty"):
        GatewaySettings(inference_urls=" ,", access=NOBODY)
