"""`docker compose` as a user runs it, on a project of the test's own: its volumes and ports are nobody else's.

Nothing here knows what is tested. A container is killed from outside of it, as the kernel does when memory is short:
after `docker kill` the engine takes the container for stopped on purpose, and no restart policy applies.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nanochat.cli.ports import any_free_port

ROOT = Path(__file__).parents[2]
# Deadlines are for a machine on which others work too: they end a test that hangs, and measure nothing.
UP_DEADLINE_S = 480.0


def wait_until(condition: Callable[[], object], what: str, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"after {deadline_s:g} s still not so: {what}"
        time.sleep(0.5)


def compose_command() -> list[str] | None:
    """The plugin of docker, or the program of the same name that comes as a Python wheel."""
    beside = Path(sys.executable).parent / "docker-compose"
    candidates = [["docker", "compose"], [str(beside)], ["docker-compose"]]
    for command in candidates:
        if shutil.which(command[0]) and _succeeds([*command, "version"]):
            return command
    return None


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def docker(*arguments: str, timeout_s: float = 60.0) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


@dataclass
class Deployment:
    """One project. `variables` go over those of `env_file`."""

    command: Sequence[str]
    folder: Path
    project: str = field(default_factory=lambda: f"nanochat-test-{os.getpid()}")
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env_file = self.folder / ".env"
        subprocess.run([sys.executable, ROOT / "docker" / "env.py", self.env_file], check=True, capture_output=True)
        self.port = any_free_port()
        self.variables = {
            "GATEWAY_PORT": str(self.port),
            "COMPOSE_PROFILES": "",
            # What is tested is small, and threads that wait for each other on busy cores are slow.
            "NANOCHAT_WORKER_THREADS": "1",
            "NANOCHAT_INFERENCE_NUM_THREADS": "1",
            **self.variables,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_key(self) -> str:
        found = re.search(r"^NANOCHAT_ADMIN_KEYS=(\S+)$", self.env_file.read_text(), re.MULTILINE)
        assert found
        return found[1]

    def run(
        self, *arguments: str, timeout_s: float = UP_DEADLINE_S, files: Sequence[str] = ("compose.yaml",), **more: str
    ) -> subprocess.CompletedProcess[str]:
        named = [part for name in files for part in ("-f", str(ROOT / name))]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NANOCHAT_", "COMPOSE_"))}
        return subprocess.run(
            [*self.command, "-p", self.project, "--env-file", str(self.env_file), *named, *arguments],
            cwd=ROOT,
            env={**kept, **self.variables, **more},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def do(self, *arguments: str, **more: Any) -> str:
        """Run, and insist on success."""
        done = self.run(*arguments, **more)
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *arguments: str, **more: Any) -> float:
        """Until every container is healthy; the seconds that took."""
        started = time.monotonic()
        done = self.run("up", "--detach", "--wait", "--no-build", *arguments, **more)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return time.monotonic() - started

    def logs(self, *services: str, tail: int = 40) -> str:
        return self.run("logs", "--no-color", f"--tail={tail}", *services).stdout

    def containers(self, service: str) -> list[str]:
        return self.do("ps", "--all", "--quiet", "--no-trunc", service).split()

    def state(self, container: str) -> dict[str, Any]:
        return dict(json.loads(docker("inspect", "--format", "{{json .}}", container)))

    def is_healthy(self, service: str) -> bool:
        states = [self.state(container)["State"] for container in self.containers(service)]
        return bool(states) and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

    def crash(self, service: str) -> Callable[[], bool]:
        """SIGKILL to the first process of each of its containers. Gives what tells that all of them are back."""
        before = {}
        for container in self.containers(service):
            state = self.state(container)
            before[container] = state["State"]["StartedAt"]
            _kill_from_outside(state["State"]["Pid"])

        def is_back() -> bool:
            states = {container: self.state(container)["State"] for container in before}
            return all(
                state["StartedAt"] != before[container] and state["Health"]["Status"] == "healthy"
                for container, state in states.items()
            )

        return is_back

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        return httpx.request(method, self.url + path, json=body, headers=headers, timeout=timeout_s, trust_env=False)

    def get(self, path: str) -> Any:
        response = self.ask("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None) -> Any:
        response = self.ask("POST", path, body or {})
        assert response.is_success, response.text
        return response.json()

    def chat(self, question: str = "Spell the word: garden", timeout_s: float = 60.0) -> httpx.Response:
        body = {"model": "nanochat", "messages": [{"role": "user", "content": question}], "max_tokens": 8}
        return self.ask("POST", "/v1/chat/completions", body, timeout_s=timeout_s)

    def job(self, job_id: str) -> Any:
        return self.get(f"/v1/jobs/{job_id}")

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Ask Prometheus, which no port leads to: from inside of its container."""
        address = f"http://127.0.0.1:9090/api/v1/query?{httpx.QueryParams(query=expression)}"
        done = self.run("exec", "-T", "prometheus", "wget", "-qO-", address)
        if done.returncode != 0:
            return []
        return [(item["metric"], float(item["value"][1])) for item in json.loads(done.stdout)["data"]["result"]]

    def close(self) -> None:
        self.run("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20")


def _kill_from_outside(process_id: int) -> None:
    """The id is one of the engine's machine; only a container with its process list reaches it from everywhere."""
    code = f"import os; os.kill({process_id}, 9)"
    image = f"nanochat/gateway:{os.environ.get('NANOCHAT_VERSION', 'dev')}"
    options = ["--rm", "--pid=host", "--user=0", "--network=none", "--entrypoint=python"]
    docker("run", *options, image, "-c", code)
