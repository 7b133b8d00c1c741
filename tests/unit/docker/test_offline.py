"""docker/offline where it has to choose or refuse; what it builds is asked in tests/e2e/test_images.py."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.unit.docker.dockerfile import ROOT

OFFLINE = ROOT / "docker/offline"
# A client before version 23 has BuildKit inside; a later one needs its plugin.
OLD_CLIENT = """
case "$1" in
  buildx) exit 1 ;;
  --version) echo "Docker version 20.10.24, build 1" ;;
  *) echo "old: $@, $DOCKER_BUILDKIT" ;;
esac"""
NEW_CLIENT_WITHOUT_BUILDX = OLD_CLIENT.replace("20.10.24", "28.2.2").replace("old:", "new:")
NO_ENGINE = "exit 1"


def command(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def run(name: str, *words: str, first_in_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{first_in_path}:{os.environ['PATH']}", **variables}
    return subprocess.run([OFFLINE / name, *words], capture_output=True, text=True, env=environment, timeout=30)


def test_the_client_is_one_that_can_build(tmp_path: Path) -> None:
    new = command(tmp_path / "new", "docker", NEW_CLIENT_WITHOUT_BUILDX)
    old = command(tmp_path / "old", "docker", OLD_CLIENT)
    for asked, found in ((old, new), (new, old)):
        done = run("docker", "build", ".", first_in_path=found.parent, DOCKER=str(asked))
        assert done.stdout == "old: build ., 1\n"


def test_a_user_is_told_in_one_line_that_only_root_may_start_an_engine(tmp_path: Path) -> None:
    command(tmp_path, "docker", NO_ENGINE)
    command(tmp_path, "id", "echo 1000")
    done = run("engine", "start", first_in_path=tmp_path, DOCKER_HOST="")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "none can be started here" in line and "only root" in line


def test_an_engine_that_runs_is_left_as_it_is(tmp_path: Path) -> None:
    command(tmp_path, "docker", "echo 99.1")
    done = run("engine", "start", first_in_path=tmp_path)
    assert done.stdout == "container engine: 99.1 runs\n"


def test_the_process_ids_of_an_engine_that_was_killed_keep_no_new_one_from_starting(tmp_path: Path) -> None:
    """They may be somebody else's by now: here, this test's."""
    folder = tmp_path / "bin"
    command(folder, "id", "echo 0")
    command(folder, "docker", '[ -e "$ENGINE_RUN/runs" ] && echo 99.1')
    waits = "sleep 60 & trap 'kill $!; exit' TERM; touch \"$ENGINE_RUN/runs\"; wait"
    refuses = "echo 'pid file found, ensure docker is not running'; exit 1"
    command(folder, "dockerd", f'[ ! -e "$ENGINE_RUN/docker.pid" ] || {{ {refuses}; }}; {waits}')
    (tmp_path / "docker.pid").write_text(str(os.getpid()))
    variables = {"ENGINE_RUN": str(tmp_path), "ENGINE_LOG": str(tmp_path / "log")}
    started = run("engine", "start", first_in_path=folder, **variables)
    stopped = run("engine", "stop", first_in_path=folder, **variables)
    assert "99.1 started" in started.stdout, started.stderr
    assert stopped.stdout == "container engine: stopped\n"


def test_an_unknown_image_is_refused_with_the_known_ones() -> None:
    done = subprocess.run([OFFLINE / "build", "gatewya"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "no image 'gatewya'" in done.stderr and "gateway, trainer, worker, inference" in done.stderr


def test_wheels_are_fetched_for_all_that_the_images_install() -> None:
    done = subprocess.run([sys.executable, OFFLINE / "requirements.py"], capture_output=True, text=True, timeout=30)
    listed = set(done.stdout.splitlines())
    shared = tomllib.loads((ROOT / "shared/pyproject.toml").read_text())
    extras = shared["project"]["optional-dependencies"]
    worker = tomllib.loads((ROOT / "services/worker/pyproject.toml").read_text())
    wanted = {*shared["project"]["dependencies"], *extras["torch"], *extras["postgres"], *extras["cli"]}
    wanted |= {*shared["build-system"]["requires"], *worker["project"]["dependencies"]}
    assert wanted - {"nanochat-shared[torch]"} <= listed
    assert not [requirement for requirement in listed if requirement.startswith("nanochat-")]
