"""Writes dashboards/*.json, which Grafana loads, from boards/: a module a dashboard.

    python docker/grafana/make_dashboards.py            # after a change there
    python docker/grafana/make_dashboards.py --check    # exit status 1 where a file is not what this would write

Each query returns data wherever the stack has trained and answered; tests/e2e/test_dashboards.py runs them all.
"""

import json
import sys
from pathlib import Path

from boards.fleet import FLEET
from boards.service import SERVICE
from boards.training import TRAINING

FOLDER = Path(__file__).parent / "dashboards"


def main() -> int:
    stale = []
    for dashboard in (SERVICE, TRAINING, FLEET):
        file = FOLDER / f"{dashboard.name}.json"
        text = json.dumps(dashboard.json(), indent=2) + "\n"
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(file.name)
    if stale:
        print(f"not what {Path(__file__).name} writes: {', '.join(stale)}. Run it without --check.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
