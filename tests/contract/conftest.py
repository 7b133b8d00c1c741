"""The public contract is held against a gateway between fakes: the same ones as in integration/gateway."""

from collections.abc import Iterator

import openai
import pytest

from tests.integration.gateway.conftest import (  # noqa: F401  # fixtures
    _gateway,
    _inference,
    _trainer,
    client,
    gateway,
    gateway_with,
    inference,
    trainer,
)


@pytest.fixture
def sdk(gateway: str) -> Iterator[openai.OpenAI]:  # noqa: F811
    """OpenAI's own client, which must not need to know that it speaks to somebody else."""
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="unused", max_retries=0, timeout=10.0) as sdk:
        yield sdk
