"""Prints what the images install, one requirement a line, from the projects' own lists.

What builds the projects is among them; the projects themselves are not.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECTS = ("shared", "services/gateway", "services/trainer", "services/worker", "services/inference")
EXTRAS = ("torch", "postgres", "cli")
# Debian 12 has Python 3.11.2, and pip looks at the machine's own, which may be later: redis wants this below 3.11.3.
FOR_AN_OLDER_PATCH = ("async-timeout>=4.0.3",)


def requirements() -> list[str]:
    found = set(FOR_AN_OLDER_PATCH)
    for project in PROJECTS:
        config = tomllib.loads((ROOT / project / "pyproject.toml").read_text())
        found.update(config["build-system"]["requires"], config["project"]["dependencies"])
        for extra in EXTRAS:
            found.update(config["project"].get("optional-dependencies", {}).get(extra, ()))
    return sorted(requirement for requirement in found if not requirement.startswith("nanochat-"))


if __name__ == "__main__":
    print("\n".join(requirements()))
