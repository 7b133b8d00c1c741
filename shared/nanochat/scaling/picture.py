"""Scaling laws as one SVG: the parabola of every budget, and the power laws through their lowest points."""

import math
from collections.abc import Sequence

from nanochat.charts import Axis, Frame, Point, legend, picture
from nanochat.scaling.fit import Budget, PowerLaw, ScalingLaws

_WIDTH, _HEIGHT, _GAP, _TOP, _LEFT = 380, 280, 90, 60, 70
_CURVE_POINTS = 40


def draw(title: str, laws: ScalingLaws) -> str:
    """Needs at least one run. Curves are drawn where there is a fit."""
    width, height = _LEFT + 3 * (_WIDTH + _GAP), _TOP + _HEIGHT + 60 + 18 * len(laws.budgets)
    charts = [_losses(laws.budgets), *_laws(laws)]
    places = [_LEFT + number * (_WIDTH + _GAP) for number in range(len(charts))]
    return picture(title, width, height, [(x, _TOP, chart) for x, chart in zip(places, charts, strict=True)])


def _losses(budgets: Sequence[Budget]) -> list[str]:
    runs = [run for budget in budgets for run in budget.runs]
    frame = Frame(
        x=Axis.around([run.scaling_parameters for run in runs], is_log=True),
        y=Axis.around([run.val_bpb for run in runs]),
        width=_WIDTH,
        height=_HEIGHT,
    )
    parts = _draw(frame, "Validation bits per byte", "parameters (matrices and head)")
    for number, budget in enumerate(budgets):
        points = [(float(run.scaling_parameters), run.val_bpb) for run in budget.runs]
        parts += [frame.dot(point, number) for point in points]
        if budget.coefficients and budget.best_parameters and budget.best_loss is not None:
            parts.append(frame.curve(_parabola(budget, points), number))
            parts.append(frame.dot((budget.best_parameters, budget.best_loss), number, radius=5, is_hollow=True))
        label = f"{budget.flops:.3g} FLOPs" + (f": {budget.note}" if budget.note else "")
        parts.append(legend(0, _HEIGHT + 62 + 18 * number, label, number))
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
    x, y = Axis.around(flops, is_log=True), Axis.around(values, is_log=True)
    frame = Frame(x=x, y=y, width=_WIDTH, height=_HEIGHT)
    parts = _draw(frame, f"{title}, {unit}", "FLOPs")
    parts += [frame.dot(point, 0) for point in zip(flops, values, strict=True)]
    if law:
        parts.append(frame.curve([(c, law.at(c)) for c in (min(flops), max(flops))], 1))
        parts.append(legend(8, 16, f"{law.factor:.3g} x C^{law.exponent:.3f}", 1))
    return parts


def _draw(frame: Frame, title: str, x_name: str) -> list[str]:
    return frame.draw(title, x_name, frame.x.ticks(), frame.y.ticks())
