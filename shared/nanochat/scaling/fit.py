"""Scaling laws from finished runs: for every FLOP budget the best size by a parabola, then power laws through those.

The method of Chinchilla's "IsoFLOP profiles" (arXiv 2203.15556, section 3.2), with N the parameters that model.md's
horizon counts: block matrices and head. Loss is validation bits per byte.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.scaling.runs import SeriesRun

MIN_SIZES = 3  # of one budget: a parabola has three coefficients
SAME_BUDGET = 1.1  # whole steps and batches make the runs of a budget differ by a few hundredths


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The runs of one budget, and the bottom of their parabola: loss = a x^2 + b x + c with x = ln N.

    What was not found is None, and `note` says why; an optimum outside the sizes that were tried is noted too.
    """

    flops: float
    runs: list[SeriesRun]
    coefficients: tuple[float, float, float] | None = None
    best_parameters: float | None = None
    best_tokens: float | None = None
    best_loss: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = factor x C^exponent."""

    factor: float
    exponent: float

    def at(self, flops: float) -> float:
        return self.factor * math.pow(flops, self.exponent)


@dataclass(frozen=True, kw_only=True)
class ScalingLaws:
    """`parameters` and `tokens` are the best N and D by budget C; None with fewer than two optima."""

    budgets: list[Budget]
    parameters: PowerLaw | None
    tokens: PowerLaw | None


def fit_scaling_laws(runs: Sequence[SeriesRun]) -> ScalingLaws:
    budgets = [fit_budget(flops, members) for flops, members in sorted(_by_budget(runs).items())]
    found = [(b.flops, b.best_parameters, b.best_tokens) for b in budgets if b.best_parameters and b.best_tokens]
    if len(found) < 2:
        return ScalingLaws(budgets=budgets, parameters=None, tokens=None)
    flops = [point[0] for point in found]
    return ScalingLaws(
        budgets=budgets,
        parameters=fit_power_law(flops, [point[1] for point in found]),
        tokens=fit_power_law(flops, [point[2] for point in found]),
    )


def fit_budget(flops: float, runs: Sequence[SeriesRun]) -> Budget:
    runs = sorted(runs, key=lambda run: run.scaling_parameters)
    budget = Budget(flops=flops, runs=list(runs))
    sizes = {run.scaling_parameters for run in runs}
    if len(sizes) < MIN_SIZES:
        return _noted(budget, f"{len(sizes)} of the {MIN_SIZES} sizes that a parabola needs")
    xs = [math.log(run.scaling_parameters) for run in runs]
    a, b, c = fit_polynomial(xs, [run.val_bpb for run in runs], degree=2)
    if a <= 0:
        return _noted(budget, "its losses have no lowest point")
    x = -b / (2 * a)
    if not xs[0] - 1 <= x <= xs[-1] + 1:
        return _noted(budget, "its lowest point lies far outside the sizes tried")
    tokens = fit_polynomial(xs, [math.log(run.tokens) for run in runs], degree=1)
    return Budget(
        flops=flops,
        runs=list(runs),
        coefficients=(a, b, c),
        best_parameters=math.exp(x),
        best_tokens=math.exp(tokens[0] * x + tokens[1]),
        best_loss=(a * x + b) * x + c,
        note="" if xs[0] <= x <= xs[-1] else "its lowest point lies outside the sizes tried",
    )


def fit_power_law(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw:
    """A line through the logarithms."""
    slope, intercept = fit_polynomial([math.log(x) for x in xs], [math.log(y) for y in ys], degree=1)
    return PowerLaw(factor=math.exp(intercept), exponent=slope)


def fit_polynomial(xs: Sequence[float], ys: Sequence[float], degree: int) -> list[float]:
    """Least squares, the highest power's coefficient first. Needs degree + 1 different xs."""
    middle = sum(xs) / len(xs)  # around which powers stay small enough to be told apart
    powers = range(degree, -1, -1)
    rows = [[sum((x - middle) ** (i + j) for x in xs) for j in powers] for i in powers]
    values = [sum(y * (x - middle) ** i for x, y in zip(xs, ys, strict=True)) for i in powers]
    around_middle = _solve(rows, values)
    return _shifted(around_middle, middle)


def _solve(rows: list[list[float]], values: list[float]) -> list[float]:
    """Gaussian elimination with pivots, of a few unknowns."""
    n = len(values)
    table = [[*row, value] for row, value in zip(rows, values, strict=True)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda row: abs(table[row][i]))
        table[i], table[pivot] = table[pivot], table[i]
        for row in range(i + 1, n):
            factor = table[row][i] / table[i][i]
            table[row] = [value - factor * above for value, above in zip(table[row], table[i], strict=True)]
    solution = [0.0] * n
    for i in range(n - 1, -1, -1):
        rest = sum(table[i][j] * solution[j] for j in range(i + 1, n))
        solution[i] = (table[i][n] - rest) / table[i][i]
    return solution


def _shifted(coefficients: Sequence[float], by: float) -> list[float]:
    """Of p(x - by) in powers of x, by Horner's scheme on polynomials."""
    result = [0.0] * len(coefficients)
    for coefficient in coefficients:
        moved = [*result[1:], 0.0]  # times x
        result = [high - by * low for high, low in zip(moved, result, strict=True)]
        result[-1] += coefficient
    return result


def _by_budget(runs: Sequence[SeriesRun]) -> dict[float, list[SeriesRun]]:
    """Runs that were not given a budget are one with those that spent at most SAME_BUDGET times as much."""
    budgets: defaultdict[float, list[SeriesRun]] = defaultdict(list)
    smallest = 0.0
    for run in sorted(runs, key=lambda run: run.flops):
        if run.budget is not None:
            budgets[run.budget].append(run)
            continue
        if run.flops > SAME_BUDGET * smallest:
            smallest = run.flops
        budgets[smallest].append(run)
    return budgets


def _noted(budget: Budget, note: str) -> Budget:
    return Budget(flops=budget.flops, runs=budget.runs, note=note)
