"""The pages: what is served before and after they are built, and the headers that guard them."""

from pathlib import Path

import httpx
import pytest

from tests.integration.gateway.conftest import GatewayWith


@pytest.fixture
def static(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>built</title>")
    (folder / "assets" / "main-abc123.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.mark.parametrize("path", ["/", "/train", "/models"])
def test_every_page_is_the_one_built_index(gateway_with: GatewayWith, static: Path, path: str) -> None:
    response = httpx.get(gateway_with(static=static) + path, trust_env=False)
    assert response.text == "<!doctype html><title>built</title>"
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["cache-control"] == "no-cache"


def test_assets_are_kept_by_the_browser(gateway_with: GatewayWith, static: Path) -> None:
    gateway = gateway_with(static=static)
    response = httpx.get(f"{gateway}/assets/main-abc123.js", trust_env=False)
    assert response.headers["content-type"].startswith("text/javascript")
    assert "immutable" in response.headers["cache-control"]
    missing = httpx.get(f"{gateway}/assets/main-other.js", trust_env=False)
    assert (missing.status_code, "immutable" in missing.headers.get("cache-control", "")) == (404, False)


@pytest.mark.parametrize("path", ["/assets/../../secret.txt", "/assets/%2e%2e/%2e%2e/secret.txt", "/assets/..%2fx"])
def test_nothing_outside_the_assets_is_served(gateway_with: GatewayWith, static: Path, path: str) -> None:
    with httpx.Client(trust_env=False) as client:
        url = httpx.URL(gateway_with(static=static), raw_path=path.encode())
        assert client.get(url).status_code == 404


def test_before_they_are_built_the_page_says_how(client: httpx.Client, gateway_with: GatewayWith) -> None:
    response = httpx.get(gateway_with(), trust_env=False)
    assert response.status_code == 200
    assert "make web" in response.text
    assert "<script" not in response.text


def test_pages_built_while_it_runs_are_served(gateway_with: GatewayWith, tmp_path: Path) -> None:
    static = tmp_path / "later"
    gateway = gateway_with(static=static)
    assert "make web" in httpx.get(gateway, trust_env=False).text
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("now")
    (static / "assets" / "a.css").write_text("")
    assert httpx.get(gateway, trust_env=False).text == "now"
    assert httpx.get(f"{gateway}/assets/a.css", trust_env=False).status_code == 200


def test_an_asset_before_anything_is_built_is_not_found(gateway_with: GatewayWith, tmp_path: Path) -> None:
    response = httpx.get(f"{gateway_with(static=tmp_path / 'none')}/assets/x", trust_env=False)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/nothing", "/metrics"])
def test_every_answer_carries_the_security_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
