"""Writes components/service-monitor/prometheus-rule.yaml, which carries the rules of docker/prometheus as they are.

    python k8s/prometheus_rule.py

kustomize reads no file outside its own folder, hence the copy; tests hold it equal.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RULES = ROOT / "docker" / "prometheus" / "rules"
COPY = ROOT / "k8s" / "components" / "service-monitor" / "prometheus-rule.yaml"
HEAD = """\
# Written by k8s/prometheus_rule.py from docker/prometheus/rules; change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: nanochat
spec:
  groups:
"""


def prometheus_rule(files: list[Path]) -> str:
    """The groups of all files in one object; group names must be unique in it, hence the file's name before each."""
    return HEAD + "".join(_groups(file) for file in files)


def _groups(file: Path) -> str:
    _, _, groups = file.read_text().partition("\ngroups:\n")
    lines = groups.replace("  - name: ", f"  - name: {file.stem}-").splitlines()
    return f"    # {file.name}\n" + "".join(f"  {line}\n" if line else "\n" for line in lines)


def main() -> int:
    COPY.write_text(prometheus_rule(sorted(RULES.glob("*.yml"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
