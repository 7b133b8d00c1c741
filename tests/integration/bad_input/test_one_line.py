"""What cannot work is said in one line: what is wrong, and where. Real processes, and never a traceback."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.server import eventually

from .conftest import NOBODY, Ended, Program, Start, fill, small_disk, unwritable

pytestmark = [pytest.mark.slow]

SERVICES = {
    "nanochat_gateway": "GATEWAY_PORT",
    "nanochat_trainer": "TRAINER_PORT",
    "nanochat_inference": "INFERENCE_PORT",
    "nanochat_worker": "WORKER_METRICS_PORT",
}
AWAY = f"postgresql://user:geheim@{NOBODY}/jobs"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def says(ended: Ended, pattern: str) -> str:
    """The one line that says it. It ended with a failure, without a traceback."""
    assert ended.status != 0, ended.said
    assert "Traceback" not in ended.said, ended.said
    found = [line for line in ended.lines if re.search(pattern, line)]
    assert len(found) == 1, ended.said
    return found[0]


@pytest.mark.parametrize("module", SERVICES)
def test_a_port_in_use_is_named(module: str, start: Start, taken_port: int, tmp_path: Path) -> None:
    program = start(module, **{SERVICES[module]: taken_port})
    says(program.wait(), rf"{taken_port}.*(in use|taken)|(in use|taken).*{taken_port}")


def test_a_port_in_use_is_named_by_the_stack(start: Start, taken_port: int) -> None:
    ended = start("nanochat.cli.main", "up", GATEWAY_PORT=taken_port).wait()
    says(ended, rf"port {taken_port} is taken.*NANOCHAT_GATEWAY_PORT")


def test_an_unwritable_home_is_named_by_the_stack(start: Start, tmp_path: Path) -> None:
    with unwritable(tmp_path / "sealed") as home:
        says(start("nanochat.cli.main", "up", HOME=home).wait(), rf"{home}.*(Read-only|Permission)")


@pytest.mark.parametrize("module", ["nanochat_trainer", "nanochat_worker"])
def test_an_unwritable_home_is_named(module: str, start: Start, tmp_path: Path) -> None:
    with unwritable(tmp_path / "sealed") as home:
        says(start(module, HOME=home).wait(), rf"{home}")


def test_a_home_that_is_a_file_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    says(start("nanochat.cli.main", "up", HOME=tmp_path / "file").wait(), r"file.*(exists|Not a directory)")


def test_a_full_disk_is_named_by_the_stack(start: Start, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as home:
        fill(home)
        says(start("nanochat.cli.main", "up", HOME=home).wait(120), rf"{home}.*No space left|No space left.*{home}")


def test_a_full_disk_is_named_by_the_trainer(start: Start, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as home:
        fill(home)
        says(start("nanochat_trainer", HOME=home).wait(), r"trainer_cannot_start.*(full|No space left)")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_full_disk_is_named_by_backup_and_restore(command: str, start: Start, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "checkpoints").mkdir(parents=True)
    (old / "checkpoints" / "large").write_bytes(bytes(3_000_000))
    assert start("nanochat.cli.main", "backup", str(tmp_path / "b.tar"), HOME=old).wait().status == 0
    with small_disk(tmp_path / "disk", "1m") as disk:
        if command == "backup":
            ended = start("nanochat.cli.main", "backup", str(disk / "b.tar"), HOME=old).wait()
        else:
            ended = start("nanochat.cli.main", "restore", str(tmp_path / "b.tar"), HOME=disk).wait()
        says(ended, rf"{disk}.*No space left")
        assert {path.name for path in disk.iterdir()} <= {"stack.lock"}


def test_a_database_that_does_not_answer_is_named_without_its_password(start: Start) -> None:
    program = start("nanochat_trainer", DATABASE_URL=AWAY, TRAINER_DATABASE_TIMEOUT_S=1)
    line = says(program.wait(), r"trainer_cannot_start.*database does not answer.*port 1")
    assert "geheim" not in line and "geheim" not in program.said


def test_a_worker_without_a_database_says_so(start: Start) -> None:
    program = start("nanochat_worker", DATABASE_URL=AWAY, WORKER_SCHEMA_TIMEOUT_S=1)
    says(program.wait(), r"worker_cannot_start.*database does not answer.*port 1")
    assert "geheim" not in program.said


def test_the_stack_with_a_database_that_does_not_answer_says_so(start: Start) -> None:
    program = start("nanochat.cli.main", "up", DATABASE_URL=AWAY, REDIS_URL=None, TRAINER_DATABASE_TIMEOUT_S=1)
    ended = program.wait()
    assert ended.status == 1
    assert "database does not answer" in ended.said
    assert "geheim" not in ended.said and "Traceback" not in ended.said


def test_a_broker_that_does_not_answer_is_named_by_the_stack(start: Start) -> None:
    says(start("nanochat.cli.main", "up", REDIS_URL=f"redis://:geheim@{NOBODY}/0").wait(), rf"Redis.*{NOBODY}")


def ready_reason(program: Program, port_name: str, pattern: str) -> None:
    def is_said() -> bool:
        assert program.process.poll() is None, program.said
        return any(re.search(pattern, reason) for reason in program.reasons(port_name))

    eventually(is_said, f"readiness says {pattern!r}; it says {program.reasons(port_name)}", deadline_s=60)


def test_a_trainer_without_a_broker_says_so_when_asked(start: Start) -> None:
    ready_reason(start("nanochat_trainer"), "TRAINER_PORT", r"(?i)redis|broker")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, r"is missing"),
        (lambda folder: folder.mkdir(), r"manifest\.json is missing"),
        (lambda folder: folder.write_text("a file"), r"[Nn]ot a directory|is missing"),
    ],
    ids=["missing", "empty", "a file"],
)
def test_a_wrong_checkpoint_folder_is_named(
    make: Callable[[Path], object], said: str, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "step_000001"
    make(folder)
    program = start("nanochat_inference", INFERENCE_CHECKPOINT=folder)
    ready_reason(program, "INFERENCE_PORT", rf"{folder}.*{said}")
    refused = [line for line in Ended(1, program.said).lines if line.startswith("model_refused")]
    assert len(refused) == 1 and str(folder) in refused[0]
    assert "Traceback" not in program.said
