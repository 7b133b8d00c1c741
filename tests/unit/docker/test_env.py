"""`make env`: what it writes, what it never touches, and what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def make_env(path: Path) -> subprocess.CompletedProcess[str]:
    """The command as make runs it, without this environment's packages."""
    command = [sys.executable, "-I", "-S", str(ROOT / "docker" / "env.py"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def values_of(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_a_new_file_has_every_variable_that_compose_insists_on(env_file: Path) -> None:
    assert make_env(env_file).returncode == 0
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))
    assert len(needed) >= 4
    assert needed <= {name for name, value in values_of(env_file.read_text()).items() if value}


def test_only_its_owner_can_read_it(env_file: Path) -> None:
    make_env(env_file)
    assert env_file.stat().st_mode & 0o777 == 0o600


def test_no_two_secrets_are_alike_and_each_fits_into_a_url(env_file: Path, tmp_path: Path) -> None:
    make_env(env_file)
    make_env(tmp_path / "other")
    both = [values_of(path.read_text()) for path in (env_file, tmp_path / "other")]
    secrets = [value for values in both for name, value in values.items() if "KEY" in name or "PASSWORD" in name]
    assert len(secrets) == len(set(secrets)) == 10
    assert all(re.fullmatch(r"[a-z0-9-]{48,}", secret) for secret in secrets)


def test_it_prints_the_admin_key_and_what_comes_next_and_no_other_secret(env_file: Path) -> None:
    said = make_env(env_file).stdout
    values = values_of(env_file.read_text())
    assert values["NANOCHAT_ADMIN_KEYS"] in said
    assert "docker compose up" in said and "http://127.0.0.1:8000" in said
    assert values["POSTGRES_PASSWORD"] not in said and values["REDIS_PASSWORD"] not in said


def test_a_file_that_is_there_is_left_as_it_is_and_its_key_and_ports_are_told(env_file: Path) -> None:
    make_env(env_file)
    before = env_file.read_text().replace("#GATEWAY_PORT=8000", "GATEWAY_PORT=8123")
    before = re.sub("NANOCHAT_ADMIN_KEYS=.*", "NANOCHAT_ADMIN_KEYS='first,second'", before)
    env_file.write_text(before)
    again = make_env(env_file)
    assert (again.returncode, env_file.read_text()) == (0, before)
    assert "stays as it is" in again.stdout
    assert "\n    first\n" in again.stdout and "http://127.0.0.1:8123" in again.stdout


def test_what_a_file_lacks_is_named_and_not_added(env_file: Path) -> None:
    env_file.write_text("NANOCHAT_ADMIN_KEYS=a\nREDIS_PASSWORD=\nGRAFANA_ADMIN_PASSWORD=x\n")
    lacking = make_env(env_file)
    assert lacking.returncode == 1
    assert "lacks POSTGRES_PASSWORD, REDIS_PASSWORD:" in lacking.stderr
    assert env_file.read_text().count("\n") == 3


def test_a_file_that_others_can_read_is_said(env_file: Path) -> None:
    make_env(env_file)
    env_file.chmod(0o644)
    assert f"chmod 600 {env_file}" in make_env(env_file).stderr


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    refused = make_env(tmp_path / "no" / "folder" / ".env")
    assert refused.returncode == 1
    assert "cannot be written: No such file or directory" in refused.stderr
    assert refused.stderr.count("\n") == 1
