"""Scaling laws as one SVG: the parabola of every budget, and the power laws through their lowest points.

Written by hand, as bench/serving/plot.py is and for its reasons; axes here are logarithmic, and points lie anywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nanochat.scaling.fit import Budget, PowerLaw, ScalingLaws

_WIDTH, _HEIGHT, _GAP, _TOP, _LEFT = 380, 280, 90, 60, 70
_COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37", "#bf8700", "#0a6c74")
_CURVE_POINTS = 40

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """From values to pixels; `low` and `high` are the data's ends."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def around(cls, values: Sequence[float], *, is_log: bool) -> "_Axis":
        low, high = min(values), max(values)
        if is_log:
            return cls(low=low / 1.15, high=high * 1.15, is_log=True)
        margin = (high - low) * 0.08 or 0.01
        return cls(low=low - margin, high=high + margin, is_log=False)

    def share(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        shares = (0, 0.25, 0.5, 0.75, 1)
        if self.is_log:
            return [self.low * (self.high / self.low) ** share for share in shares]
        return [self.low + (self.high - self.low) * share for share in shares]


def draw(title: str, laws: ScalingLaws) -> str:
    """Needs at least one run. Curves are drawn where there is a fit."""
    width, height = _LEFT + 3 * (_WIDTH + _GAP), _TOP + _HEIGHT + 60 + 18 * len(laws.budgets)
    charts = [_losses(laws.budgets), *_laws(laws)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, chart in enumerate(charts):
        parts += [f'<g transform="translate({_LEFT + number * (_WIDTH + _GAP)} {_TOP})">', *chart, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _losses(budgets: Sequence[Budget]) -> list[str]:
    runs = [run for budget in budgets for run in budget.runs]
    x = _Axis.around([run.scaling_parameters for run in runs], is_log=True)
    y = _Axis.around([run.val_bpb for run in runs], is_log=False)
    parts = _frame("Validation bits per byte", "parameters (matrices and head)", x, y)
    for number, budget in enumerate(budgets):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(float(run.scaling_parameters), run.val_bpb) for run in budget.runs]
        parts += [_dot(x, y, point, colour) for point in points]
        if budget.coefficients and budget.best_parameters and budget.best_loss is not None:
            parts.append(_curve(x, y, _parabola(budget, points), colour))
            parts.append(_dot(x, y, (budget.best_parameters, budget.best_loss), colour, is_best=True))
        label = f"{budget.flops:.3g} FLOPs" + (f": {budget.note}" if budget.note else "")
        parts.append(f'<text x="0" y="{_HEIGHT + 62 + 18 * number}" fill="{colour}">{escape(label)}</text>')
    return parts


def _parabola(budget: Budget, points: Sequence[Point]) -> list[Point]:
    """From the smallest size to the largest."""
    assert budget.coefficients is not None
    a, b, c = budget.coefficients
    low, high = math.log(points[0][0]), math.log(points[-1][0])
    xs = [low + (high - low) * i / _CURVE_POINTS for i in range(_CURVE_POINTS + 1)]
    return [(math.exp(x), (a * x + b) * x + c) for x in xs]


def _laws(laws: ScalingLaws) -> list[list[str]]:
    """Two charts: the best size and the tokens for it, by budget. None without an optimum."""
    best = [budget for budget in laws.budgets if budget.best_parameters and budget.best_tokens]
    if not best:
        return []
    flops = [budget.flops for budget in best]
    sizes = [budget.best_parameters or 0.0 for budget in best]
    tokens = [budget.best_tokens or 0.0 for budget in best]
    return [
        _law("Best size", "parameters", flops, sizes, laws.parameters),
        _law("Tokens at the best size", "tokens", flops, tokens, laws.tokens),
    ]


def _law(title: str, unit: str, flops: Sequence[float], values: Sequence[float], law: PowerLaw | None) -> list[str]:
    x, y = _Axis.around(flops, is_log=True), _Axis.around(values, is_log=True)
    parts = _frame(f"{title}, {unit}", "FLOPs", x, y)
    parts += [_dot(x, y, point, _COLOURS[0]) for point in zip(flops, values, strict=True)]
    if law:
        parts.append(_curve(x, y, [(c, law.at(c)) for c in (min(flops), max(flops))], _COLOURS[1]))
        label = f"{law.factor:.3g} x C^{law.exponent:.3f}"
        parts.append(f'<text x="8" y="16" fill="{_COLOURS[1]}">{escape(label)}</text>')
    return parts


def _frame(title: str, x_name: str, x: _Axis, y: _Axis) -> list[str]:
    parts = [f'<text x="0" y="-12" font-weight="bold">{escape(title)}</text>']
    for value in y.ticks():
        height = _HEIGHT * (1 - y.share(value))
        parts.append(f'<line x1="0" x2="{_WIDTH}" y1="{height:.1f}" y2="{height:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="-6" y="{height + 4:.1f}" text-anchor="end" fill="#555">{value:.3g}</text>')
    for value in x.ticks():
        left = _WIDTH * x.share(value)
        parts.append(f'<text x="{left:.1f}" y="{_HEIGHT + 18}" text-anchor="middle" fill="#555">{value:.2g}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 38}" text-anchor="middle" fill="#555">{escape(x_name)}</text>')
    return parts


def _dot(x: _Axis, y: _Axis, point: Point, colour: str, *, is_best: bool = False) -> str:
    left, top = _WIDTH * x.share(point[0]), _HEIGHT * (1 - y.share(point[1]))
    fill = "white" if is_best else colour
    return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{5 if is_best else 3}" fill="{fill}" stroke="{colour}"/>'


def _curve(x: _Axis, y: _Axis, points: Sequence[Point], colour: str) -> str:
    path = " ".join(f"{_WIDTH * x.share(px):.1f},{_HEIGHT * (1 - y.share(py)):.1f}" for px, py in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
