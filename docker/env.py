"""`make env`: writes .env for `docker compose` with secrets of this machine, and says what to do next.

A file that is there is never changed, since its passwords are those of the volumes; what it lacks is named. Needs
nothing but Python's own library, so that a machine with Docker alone can run it.
"""

import os
import secrets
import sys
from pathlib import Path

# Letters and digits alone: they stand in URLs and in Redis' configuration as they are.
_SECRET_BYTES = 24

TEMPLATE = """\
# Secrets and settings of `docker compose` on this machine, written by `make env`. Keep it; give it to nobody.
# The database's and Redis' password are letters and digits only. How to change a secret: docs/operations.md.

# Keys of whoever may use the pages and the API, with commas between: chat alone, and training and promoting too.
NANOCHAT_API_KEYS={api_key}
NANOCHAT_ADMIN_KEYS={admin_key}
POSTGRES_PASSWORD={postgres}
REDIS_PASSWORD={redis}
GRAFANA_ADMIN_PASSWORD={grafana}

# What runs beside the services: grafana; and demo, which trains a small model at the first start (`up` without --wait).
# Empty where Grafana's image cannot be had.
COMPOSE_PROFILES=grafana

# Other ports of this machine, and the folder with your datasets, which jobs name as /data/...
#GATEWAY_PORT=8000
#GRAFANA_PORT=3000
#DATA_FOLDER=/srv/text
"""


def content() -> str:
    """A new .env, with new secrets."""
    names = ("api_key", "admin_key", "postgres", "redis", "grafana")
    prefixes = {"api_key": "nc-", "admin_key": "nc-admin-"}
    return TEMPLATE.format(**{name: prefixes.get(name, "") + secrets.token_hex(_SECRET_BYTES) for name in names})


def read(path: Path) -> dict[str, str]:
    """The variables of a .env: NAME=value lines, quotes taken off."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip().removeprefix("export ").strip(): value.strip().strip("'\"") for name, _, value in pairs}


def missing(variables: dict[str, str]) -> list[str]:
    """The secrets without which `docker compose` refuses to start, in the template's order."""
    template = (line.partition("=") for line in TEMPLATE.splitlines() if "={" in line)
    return [name for name, _, _ in template if name != "NANOCHAT_API_KEYS" and not variables.get(name)]


def main(path: Path) -> int:
    """0: the file is there and complete; 1: it lacks something, or cannot be written."""
    try:
        # Created for its owner alone: a moment in which others could read it would be enough.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content())
        print(f"{path} is written, with new secrets. It is the only copy: keep it with the volumes.")
    except FileExistsError:
        print(f"{path} is there already and stays as it is.")
    except OSError as exc:
        print(f"{path} cannot be written: {exc.strerror}. Run this where you may write.", file=sys.stderr)
        return 1
    try:
        variables = read(path)
    except OSError as exc:
        print(f"{path} cannot be read: {exc.strerror}. Run this as the file's owner.", file=sys.stderr)
        return 1
    lacking = missing(variables)
    if lacking:
        print(f"It lacks {', '.join(lacking)}: add a line NAME=value for each.", file=sys.stderr)
        return 1
    if path.stat().st_mode & 0o077:
        print(f"Others can read it: chmod 600 {path}", file=sys.stderr)
    admin_key = variables["NANOCHAT_ADMIN_KEYS"].split(",")[0].strip()
    gateway, grafana = variables.get("GATEWAY_PORT") or "8000", variables.get("GRAFANA_PORT") or "3000"
    print(f"""
Admin key, for the pages, the API and the command line:

    {admin_key}

Next: docker compose up --detach --wait               (builds the images the first time)
      docker compose run --rm demo                    trains a small model to chat with
      http://127.0.0.1:{gateway}    the pages ask for the key
      http://127.0.0.1:{grafana}    Grafana, as admin with GRAFANA_ADMIN_PASSWORD""")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".env")))
