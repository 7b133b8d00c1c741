"""What a build is sent: what the images are made of, and no key, data or leftover."""

import pytest

from tests.unit.docker.dockerfile import IMAGES, ROOT, copied_from_context, image_stages, is_sent


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "README.md",
        "tests/conftest.py",
        "compose.yaml",
        "k8s/base/secret.yaml",
        "docker/offline/build",
        "services/gateway/.env",
        "services/gateway/web/.env.local",
        "services/gateway/web/node_modules/vite/index.js",
        "services/gateway/nanochat_gateway/static/index.html",
        "shared/nanochat/__pycache__/errors.cpython-311.pyc",
        "shared/nanochat/server.key",
        "shared/nanochat_shared.egg-info/PKG-INFO",
        "services/worker/nanochat_worker.egg-info/PKG-INFO",
    ],
)
def test_what_no_image_needs_is_not_sent(path: str) -> None:
    assert not is_sent(path)


@pytest.mark.parametrize("name", IMAGES)
def test_whatever_an_image_copies_exists_and_is_sent(name: str) -> None:
    sources = [source for stage in image_stages(name) for source in copied_from_context(stage)]
    assert len(sources) >= 5
    assert not [source for source in sources if not (ROOT / source).exists() or not is_sent(source)]


def test_every_source_file_of_the_packages_is_sent() -> None:
    packages = ["shared/nanochat", *(f"services/{name}/nanochat_{name}" for name in IMAGES)]
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 100
    assert not [path for path in files if not is_sent(str(path.relative_to(ROOT)))]


def test_no_folder_is_brought_back_by_a_wildcard() -> None:
    """Docker 20.10 does not look into an excluded folder unless a pattern names it in full."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    brought_back = [line for line in lines if line.startswith("!")]
    assert brought_back
    assert not [line for line in brought_back if "*" in line]
