"""The built images, as an engine runs them: who they run as, what they lack, how large they are, how they stop.

Needs a container engine and the images (`docker/offline/build`, or the commands of docker/README.md).
"""

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = str(ROOT / "docker/offline/docker")
VERSION = os.environ.get("NANOCHAT_VERSION", "dev")
PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")
IMAGES = ("gateway", "trainer", "worker", "inference")
LIGHT = ("gateway", "trainer")
LIGHT_BUDGET_BYTES = 120_000_000  # over the base image
START_TIMEOUT_S = 90.0
# From SIGTERM to the end of a service with nothing to do; each drains for longer when it has.
IDLE_STOP_S = 10.0
every_image = pytest.mark.parametrize("name", IMAGES)
# What compose.yaml and Kubernetes give a container.
CONFINED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp",
    "--tmpfs=/var/lib/nanochat:uid=10001,gid=10001",
)


def docker(*words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DOCKER, *words], capture_output=True, text=True, timeout=timeout_s)


def image(name: str) -> str:
    return f"nanochat/{name}:{VERSION}"


def what_is_missing() -> str | None:
    if docker("version").returncode != 0:
        return "no container engine answers (docker/offline/engine start)"
    missing = [image(name) for name in IMAGES if docker("image", "inspect", image(name)).returncode != 0]
    return f"not built: {', '.join(missing)} (docker/offline/build)" if missing else None


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    if reason := what_is_missing():
        pytest.skip(reason)


pytestmark = pytest.mark.engine


def inspect(reference: str) -> dict[str, Any]:
    done = docker("image", "inspect", reference)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def python(name: str, code: str) -> subprocess.CompletedProcess[str]:
    return docker("run", "--rm", "--network=none", *CONFINED, "--entrypoint=python", image(name), "-c", code)


@contextmanager
def running(name: str, *options: str) -> Iterator[str]:
    container = f"nanochat-test-{name}-{uuid.uuid4().hex[:8]}"
    done = docker("run", "--detach", f"--name={container}", *CONFINED, *options, image(name))
    try:
        assert done.returncode == 0, done.stderr
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def state(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", container).stdout)[0]["State"]
    return found


def wait_for_answer(container: str, port: int) -> None:
    """Until the image's own check says that the process lives."""
    command = ("exec", container, "python", "-I", "/app/healthcheck.py", f"http://127.0.0.1:{port}/health/live")
    deadline = time.monotonic() + START_TIMEOUT_S
    while docker(*command).returncode != 0:
        assert state(container)["Running"], docker("logs", container).stderr
        assert time.monotonic() < deadline, docker("logs", container).stderr
        time.sleep(0.2)


@every_image
def test_image_runs_as_nobody_special(name: str) -> None:
    assert inspect(image(name))["Config"]["User"] == "10001:10001"
    done = python(name, "import os; print(os.getuid(), os.getgid(), os.environ['HOME'])")
    assert done.stdout.split() == ["10001", "10001", "/tmp"], done.stderr


@every_image
def test_its_user_cannot_change_the_program(name: str) -> None:
    code = (
        "import os, pathlib\n"
        "paths = [path for path in pathlib.Path('/app').rglob('*') if not path.is_symlink()]\n"
        "assert len(paths) > 1000\n"
        "print([str(path) for path in paths if os.access(path, os.W_OK)])\n"
    )
    # With a writable root: the file system's own permissions are asked, not --read-only.
    done = docker("run", "--rm", "--network=none", "--entrypoint=python", image(name), "-c", code)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("package", ["torch", "numpy", "pyarrow"])
def test_light_image_lacks(name: str, package: str) -> None:
    done = python(name, f"import importlib.util; print(importlib.util.find_spec({package!r}))")
    assert done.stdout.strip() == "None", done.stderr


@pytest.mark.parametrize("name", LIGHT)
def test_light_image_is_small(name: str) -> None:
    added = inspect(image(name))["Size"] - inspect(PYTHON_IMAGE)["Size"]
    assert 0 < added < LIGHT_BUDGET_BYTES


def test_worker_and_inference_store_torch_once() -> None:
    worker, inference = (inspect(image(name))["RootFS"]["Layers"] for name in ("worker", "inference"))
    base = inspect(PYTHON_IMAGE)["RootFS"]["Layers"]
    common = [layer for layer in worker if layer in inference and layer not in base]
    assert len(common) >= 2  # the user, and the library with torch


@every_image
def test_code_is_compiled_and_found(name: str) -> None:
    code = (
        "import importlib.util, os\n"
        f"for package in ('nanochat', 'nanochat_{name}'):\n"
        "    origin = importlib.util.find_spec(package).origin\n"
        "    assert origin.startswith('/app/code/'), origin\n"
        "    assert os.path.exists(importlib.util.cache_from_source(origin)), origin\n"
    )
    done = python(name, code)
    assert done.returncode == 0, done.stderr


@every_image
def test_no_secret_and_no_address_of_an_index_is_in_the_image(name: str) -> None:
    history = docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image(name)).stdout
    environment = " ".join(inspect(image(name))["Config"]["Env"])
    assert "healthcheck.py" in history
    assert not re.search(r"PASSWORD|TOKEN|SECRET|_KEYS?=|index-url|INDEX_URL|--registry", history + environment)


def test_pages_are_in_the_gateway() -> None:
    code = (
        "from nanochat_gateway.routes_pages import STATIC\n"
        "assert (STATIC / 'index.html').is_file() and list((STATIC / 'assets').glob('*.js'))\n"
    )
    done = python("gateway", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "port", "options"),
    [
        ("gateway", 8000, ["--env=NANOCHAT_ALLOW_ANONYMOUS=1"]),
        ("trainer", 8001, []),
        ("inference", 8002, []),
        # Without a database it waits for one, and stops all the same: process 1 has no signal handler but its own.
        ("worker", 8003, []),
    ],
)
def test_sigterm_ends_a_confined_service(name: str, port: int, options: list[str]) -> None:
    with running(name, *options) as container:
        wait_for_answer(container, port)
        before = time.monotonic()
        docker("kill", "--signal=TERM", container)
        done = docker("wait", container, timeout_s=IDLE_STOP_S)
        assert time.monotonic() - before < IDLE_STOP_S
        assert done.stdout.strip() in ("0", "143"), docker("logs", container).stderr


def test_a_gateway_without_keys_refuses_in_one_line() -> None:
    done = docker("run", "--rm", "--network=none", *CONFINED, image("gateway"))
    assert done.returncode == 2
    assert "no key is set" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
