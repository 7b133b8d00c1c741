"""Reads Dockerfiles and .dockerignore as far as the tests ask: instructions, stages, what a build is sent."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
IMAGES = ("gateway", "trainer", "worker", "inference")


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)  # in order: ("COPY", "a b")

    def all(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]


def stages(path: Path) -> list[Stage]:
    """Those of a Dockerfile; its arguments before the first FROM are the instructions of a stage without a name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    found = [Stage("", "")]
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        instruction, _, value = line.partition(" ")
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            found.append(Stage(name.strip(), base.strip()))
        else:
            found[-1].instructions.append((instruction, value.strip()))
    return found


def image_stages(name: str) -> list[Stage]:
    return stages(ROOT / "docker" / f"{name}.Dockerfile")


def copied_from_context(stage: Stage) -> list[str]:
    """Sources of the stage's COPYs that come out of the repository."""
    copies = [value.split() for value in stage.all("COPY") if not value.startswith("--from=")]
    return [source for words in copies for source in words[:-1]]


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a file into a build: the last pattern that matches it or its folder decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        folders = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        if any(re.fullmatch(_expression(pattern), folder) for folder in folders):
            sent = line.startswith("!")
    return sent


def _expression(pattern: str) -> str:
    """Docker's patterns: * stays within a folder, ** spans any number of them."""
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    meaning = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*"}
    return "".join(meaning.get(part, re.escape(part)) for part in parts)
