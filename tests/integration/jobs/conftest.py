"""A real Redis, a real trainer, real workers with fake recipes; SQLite and, where it is installed, PostgreSQL."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
import redis

from nanochat.cli.ports import any_free_port
from nanochat.errors import Unavailable
from nanochat.jobs.database import Database
from nanochat.jobs.store import JobStore
from nanochat.protocol.jobs import JobSpec

FAKES = Path(__file__).parent / "fakes"
T = TypeVar("T")


def wait_for(look: Callable[[], T | None], timeout_s: float = 30.0, what: str = "it") -> T:
    """Poll until `look` gives something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {timeout_s} s")


@dataclass
class Stack:
    """Trainer and workers as processes on one home. Everything started is ended by close()."""

    home: Path
    redis_url: str
    database_url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    url: str = ""

    def start_trainer(self) -> subprocess.Popen[bytes]:
        port = any_free_port()
        process = self._start("nanochat_trainer", NANOCHAT_TRAINER_PORT=str(port))
        self.url = f"http://127.0.0.1:{port}"
        self.wait_until_ready(port)
        return process

    def start_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        port = any_free_port()
        process = self._start("nanochat_worker", NANOCHAT_WORKER_METRICS_PORT=str(port), **environment)
        self.worker_url = f"http://127.0.0.1:{port}"
        self.wait_until_ready(port)
        return process

    def wait_until_ready(self, port: int) -> None:
        def look() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
            return False

        wait_for(look, 60, f"readiness on port {port}")

    def behave(self, **by_kind: dict[str, Any]) -> None:
        """What the fake recipes of each kind do from now on."""
        (self.home / "behaviour.json").write_text(json.dumps(by_kind))

    def submit(self, **spec: Any) -> dict[str, Any]:
        response = httpx.post(f"{self.url}/v1/jobs", json=spec)
        assert response.status_code == 202, response.text
        return dict(response.json())

    def store(self, **spec: Any) -> dict[str, Any]:
        """Queue a job past the trainer's checks, which fake data would not pass."""
        database = Database(self.database_url or f"sqlite:///{self.home / 'nanochat.db'}")
        try:
            return JobStore(database).submit(JobSpec(**spec)).model_dump()
        finally:
            database.close()

    def tokenizer_job(self, name: str, **spec: Any) -> dict[str, Any]:
        return self.submit(kind="tokenizer", name=name, config={"dataset": "python-docs"}, **spec)

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/v1/jobs/{job_id}").raise_for_status().json())

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=30)

    def wait_status(self, job_id: str, *statuses: str, timeout_s: float = 60.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in statuses else None

        return wait_for(look, timeout_s, f"{statuses} of {job_id}, which is {self.job(job_id)}")

    def runs(self, kind: str | None = None) -> list[dict[str, Any]]:
        """A line for each rank that was started."""
        file = self.home / "ranks.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if kind in (None, line["kind"])]

    def wait_running(self, num_ranks: int = 1) -> list[int]:
        """Process ids of the ranks, and of what they started, once there are so many."""
        runs = wait_for(lambda: self.runs() if len(self.runs()) >= num_ranks else None, what="the start of the ranks")
        return [pid for run in runs for pid in run["pids"]]

    def _start(self, module: str, **environment: str) -> subprocess.Popen[bytes]:
        variables = {
            "NANOCHAT_HOME": str(self.home),
            "NANOCHAT_REDIS_URL": self.redis_url,
            "NANOCHAT_DATABASE_URL": self.database_url,
            "NANOCHAT_TRAINER_RECONCILE_INTERVAL_S": "0.3",
            "NANOCHAT_TRAINER_RESEND_AFTER_S": "2",
            "NANOCHAT_TRAINER_PROMOTE_TIMEOUT_S": "2",
            "NANOCHAT_WORKER_TORCHRUN": "fake_torchrun",
            "NANOCHAT_WORKER_RECIPES": "fake_recipes",
            "NANOCHAT_WORKER_POLL_S": "0.1",
            "NANOCHAT_WORKER_STOP_GRACE_S": "2",
            "NANOCHAT_WORKER_LOST_GRACE_S": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")])),
        }
        with (self.home / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={**os.environ, **variables, **self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def make_dataset(folder: Path) -> Path:
    """Two files that pass for parquet as far as a submission looks."""
    folder.mkdir(parents=True)
    for index in range(2):
        (folder / f"shard_{index:05d}.parquet").write_bytes(b"PAR1" + b"\0" * 16 + b"PAR1")
    return folder


@pytest.fixture
def broker_url(redis_url: str) -> Iterator[str]:
    """A database of the session's Redis that nobody else uses, empty."""
    url = redis_url.removesuffix("/0") + "/7"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def stack(home: Path, broker_url: str) -> Iterator[Stack]:
    """A trainer on SQLite; the test starts the workers it wants."""
    stack = Stack(home=home, redis_url=broker_url)
    try:
        stack.start_trainer()
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of the session's own, run by a user that is not root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql")
    bin_folder, prefix = found[-1].parent, _as_postgres()
    folder = Path(tempfile.mkdtemp(prefix="nanochat-pg-", dir="/tmp"))
    try:
        if prefix:
            shutil.chown(folder, "postgres")
        data, port = folder / "data", any_free_port()
        initdb = [*prefix, str(bin_folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "nanochat", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL)
        options = ["-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
        with subprocess.Popen([*prefix, str(bin_folder / "postgres"), *options], stderr=subprocess.DEVNULL) as server:
            try:
                url = f"postgresql://nanochat@127.0.0.1:{port}/postgres"
                wait_for(lambda: _answers(url), 30, "the start of PostgreSQL")
                yield url
            finally:
                _stop_postgres(data)
                server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("root, and no user postgres to run PostgreSQL as")
    if shutil.which("runuser") is None:
        pytest.skip("root, and no runuser to run PostgreSQL as another user")
    return ["runuser", "-u", "postgres", "--"]


def _answers(url: str) -> bool:
    database = Database(url)
    try:
        with contextlib.suppress(Unavailable):
            database.revision()
            return True
        return False
    finally:
        database.close()


def _stop_postgres(data: Path) -> None:
    """SIGINT: a fast shutdown, clients or not."""
    pid = int((data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGINT)


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> str:
    """The server's database without any tables."""
    from sqlalchemy import text

    database = Database(postgres_url)
    with database.write() as session:
        session.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    database.close()
    return postgres_url


@pytest.fixture
def stack_on_postgres(home: Path, broker_url: str, empty_postgres_url: str) -> Iterator[Stack]:
    stack = Stack(home=home, redis_url=broker_url, database_url=empty_postgres_url)
    try:
        stack.start_trainer()
        yield stack
    finally:
        stack.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An up-to-date schema on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
    else:
        url = request.getfixturevalue("empty_postgres_url")
    database = Database(url)
    database.upgrade()
    yield database
    database.close()
