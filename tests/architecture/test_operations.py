"""The runbook is true: an alert a section, and every command, option, target, setting and file in it exists."""

import re
from pathlib import Path

import pytest
import typer

from nanochat.cli.main import app
from tests.architecture.test_readme import defaults_in_code

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
RULES = sorted((ROOT / "docker" / "prometheus" / "rules").glob("*.yml"))
SERVICES = {"gateway", "trainer", "worker", "inference", "redis", "postgres", "prometheus", "grafana"}


def alerts() -> set[str]:
    return {name for path in RULES for name in re.findall(r"^\s*- alert: (\w+)", path.read_text(), re.MULTILINE)}


def alert_sections() -> list[str]:
    return re.findall(r"^### (.+)$", RUNBOOK.split("\n## Alerts\n")[1], re.MULTILINE)


def commands() -> list[list[str]]:
    """Every `nanochat ...` of the runbook, as words."""
    found = re.findall(r"(?:^    |`|trainer )nanochat ((?:[\w./-]+ ?)+)", RUNBOOK, re.MULTILINE)
    return [command.split() for command in found]


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    sections = alert_sections()
    assert len(sections) == len(set(sections))
    assert set(sections) == alerts()


def test_no_section_is_empty() -> None:
    for section in re.split(r"^#+ .*$", RUNBOOK, flags=re.MULTILINE)[1:]:
        assert len(section.split()) >= 8, section


def test_commands_and_their_options_exist() -> None:
    assert len(commands()) > 15
    for words in commands():
        command, context = typer.main.get_command(app), typer.Context(typer.main.get_command(app))
        named = [word for word in words if not word.startswith("-")]
        depth = 0
        while (
            hasattr(command, "list_commands") and depth < len(named) and named[depth] in command.list_commands(context)
        ):
            command = command.get_command(context, named[depth])  # type: ignore[attr-defined]
            depth += 1
        assert depth, f"nanochat {' '.join(words)}"
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word for word in words if word.startswith("--")} - options
        assert not unknown, f"nanochat {' '.join(words)}"


def test_settings_exist() -> None:
    named = set(re.findall(r"NANOCHAT_[A-Z_]+", RUNBOOK)) - {"NANOCHAT_VERSION"}
    assert {"NANOCHAT_HOME", "NANOCHAT_API_KEYS"} <= named <= set(defaults_in_code())


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", RUNBOOK, re.MULTILINE))
    assert targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", RUNBOOK)
    assert links
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]


@pytest.mark.parametrize(
    "pattern", [r"docker compose (?:exec|restart|ps|logs|up)(?: -\w+)* ([a-z]+)\b", r"--scale ([a-z]+)="]
)
def test_services_of_compose_exist(pattern: str) -> None:
    named = set(re.findall(pattern, RUNBOOK))
    assert named
    assert named <= SERVICES
    compose = (ROOT / "compose.yaml").read_text()
    assert not [name for name in named if not re.search(rf"^  {name}:", compose, re.MULTILINE)]
