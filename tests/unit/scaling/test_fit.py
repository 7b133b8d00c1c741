"""Fits against series made from laws that are known."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from nanochat.scaling.fit import fit_polynomial, fit_power_law, fit_scaling_laws
from nanochat.scaling.picture import draw
from nanochat.scaling.runs import SeriesRun

EXPONENT = 0.54
FACTOR = 0.9


def best_size(flops: float) -> float:
    return FACTOR * flops**EXPONENT


def run(flops: float, parameters: float, *, budget: bool = True) -> SeriesRun:
    """Of a world where loss is a parabola around the best size, and a token costs 6 FLOPs a parameter."""
    distance = math.log(parameters / best_size(flops))
    size = round(parameters)
    return SeriesRun(
        run=f"{flops:.3g}-{size}",
        depth=1,
        parameters=2 * size,
        scaling_parameters=size,
        tokens=round(flops / (6 * size)),
        flops=flops,
        val_bpb=1.5 - 0.02 * math.log(flops) + 0.03 * distance**2,
        budget=flops if budget else None,
    )


def series(budgets: tuple[float, ...] = (1e18, 2.15e18, 4.64e18, 1e19), *, budget: bool = True) -> list[SeriesRun]:
    around = (0.3, 0.6, 1.1, 2.0, 3.5)
    return [run(flops, factor * best_size(flops), budget=budget) for flops in budgets for factor in around]


def test_known_exponents_and_optima_are_found_again() -> None:
    laws = fit_scaling_laws(series())
    assert laws.parameters is not None and laws.tokens is not None
    # Sizes and tokens are whole numbers of at least nine digits; nothing else is rounded.
    assert laws.parameters.exponent == pytest.approx(EXPONENT, abs=1e-6)
    assert laws.parameters.factor == pytest.approx(FACTOR, rel=1e-4)
    assert laws.tokens.exponent == pytest.approx(1 - EXPONENT, abs=1e-6)
    for budget in laws.budgets:
        assert budget.best_parameters == pytest.approx(best_size(budget.flops), rel=1e-5)
        assert budget.best_loss == pytest.approx(1.5 - 0.02 * math.log(budget.flops), abs=1e-8)
        assert budget.note == ""


def test_runs_without_a_budget_go_by_what_they_spent() -> None:
    runs = series(budget=False)
    moved = [SeriesRun(**{**vars(one), "flops": one.flops * (1 + 0.004 * (-1) ** i)}) for i, one in enumerate(runs)]
    assert [len(budget.runs) for budget in fit_scaling_laws(moved).budgets] == [5, 5, 5, 5]


def test_an_unfinished_series_is_fitted_as_far_as_it_goes() -> None:
    laws = fit_scaling_laws([*series((1e18, 2e18)), run(4e18, 1e9), run(4e18, 2e9)])
    assert laws.parameters is not None
    assert laws.parameters.exponent == pytest.approx(EXPONENT, abs=1e-6)
    assert laws.budgets[2].best_parameters is None
    assert laws.budgets[2].note == "2 of the 3 sizes that a parabola needs"
    assert fit_scaling_laws(series((1e18,))).parameters is None


def test_an_optimum_that_was_not_reached_is_said_and_one_far_off_is_not_used() -> None:
    size = best_size(1e18)
    outside = fit_scaling_laws([run(1e18, factor * size) for factor in (1.5, 2.0, 3.0)]).budgets[0]
    assert outside.note == "its lowest point lies outside the sizes tried"
    assert outside.best_parameters == pytest.approx(size, rel=1e-4)
    far = fit_scaling_laws([run(1e18, factor * size) for factor in (5.0, 6.0, 7.0)]).budgets[0]
    assert far.best_parameters is None
    flat = [SeriesRun(**{**vars(one), "val_bpb": -one.val_bpb}) for one in series((1e18,))]
    assert fit_scaling_laws(flat).budgets[0].note == "its losses have no lowest point"


def test_a_polynomial_through_its_own_points_is_exact_far_from_zero() -> None:
    xs = [40.0, 41.0, 42.5, 44.0]
    found = fit_polynomial(xs, [0.5 * x * x - 3 * x + 2 for x in xs], degree=2)
    assert found == pytest.approx([0.5, -3.0, 2.0], rel=1e-6)
    law = fit_power_law([1e18, 1e19, 1e20], [2e9, 2e10, 2e11])
    assert (law.exponent, law.at(1e21)) == (pytest.approx(1.0), pytest.approx(2e12))


@pytest.mark.parametrize("runs", [series(), series((1e18,)), [run(1e18, 1e9)]], ids=["whole", "one budget", "one run"])
def test_the_picture_shows_every_run(runs: list[SeriesRun]) -> None:
    laws = fit_scaling_laws(runs)
    picture = ElementTree.fromstring(draw("a < b", laws))
    dots = [element for element in picture.iter() if element.tag.endswith("circle") and element.get("r") == "3"]
    num_best = sum(budget.best_parameters is not None for budget in laws.budgets)
    assert len(dots) == len(runs) + 2 * num_best
    assert any(text.text == "a < b" for text in picture.iter() if text.tag.endswith("text"))
