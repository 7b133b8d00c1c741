"""PromQL that the dashboards share. $__rate_interval is Grafana's: long enough for four scrapes."""

from boards.panels import Query

SERVICES = 'job=~"gateway|trainer|inference|worker"'
BY_INSTANCE = "{{job}} {{instance}}"


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """The sum of a counter's rates."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{{labels}}}[$__rate_interval]))"


def increase(metric: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (increase({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(histogram: str, labels: str = "") -> list[Query]:
    """Half, 95 and 99 of a hundred."""
    buckets = rate(f"{histogram}_bucket", "le", labels)
    return [Query(f"histogram_quantile({q / 100}, {buckets})", f"p{q}") for q in (50, 95, 99)]


def buckets(histogram: str, labels: str = "") -> list[Query]:
    return [Query(increase(f"{histogram}_bucket", "le", labels), "{{le}}")]


def mean(histogram: str) -> str:
    """Nothing while nothing is observed."""
    return f"{rate(f'{histogram}_sum')} / ({rate(f'{histogram}_count')} > 0)"
