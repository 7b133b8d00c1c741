"""Muon against an SVD, the plain float64 reference and golden numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nanochat.optim.muon import equilibrate_rows, muon_step, orthogonalise_lightly, second_shape
from nanochat.optim.polar_express import COEFFICIENTS, NORM_EPS, NORM_FACTOR, polar_express, polar_express_by_gram
from tests.numerics import reference

SHAPES = [(24, 96), (96, 24), (48, 48)]
RATES = {"lr": 0.02, "momentum": 0.95, "beta2": 0.9, "weight_decay": 0.1}


def random_stack(n: int, rows: int, cols: int, seed: int = 0) -> Tensor:
    return torch.randn(n, rows, cols, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_polar_express_brings_singular_values_near_one_and_keeps_the_vectors(rows: int, cols: int) -> None:
    g = random_stack(3, rows, cols)
    found = polar_express(g)
    left, _, right = torch.linalg.svd(g.double(), full_matrices=False)
    values = (left.mT @ found.double() @ right.mT).diagonal(dim1=-2, dim2=-1)
    # Five steps end between 0.7 and 1.2 wherever the singular values began above a few thousandths of the norm.
    assert 0.65 < values.min() < values.max() < 1.25
    rebuilt = left @ torch.diag_embed(values) @ right
    torch.testing.assert_close(found.double(), rebuilt, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_polar_express_equals_its_polynomials_of_the_singular_values(rows: int, cols: int) -> None:
    g = random_stack(2, rows, cols)
    expected = torch.stack([reference.orthogonal(matrix.double()) for matrix in g])
    torch.testing.assert_close(polar_express(g).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 3, 5])
@pytest.mark.parametrize(("rows", "cols"), [(24, 96), (96, 24)])
def test_the_gram_matrix_gives_what_the_whole_matrix_does(rows: int, cols: int, num_steps: int) -> None:
    g = random_stack(2, rows, cols)
    expected = torch.stack([reference.orthogonal(matrix.double(), num_steps) for matrix in g])
    torch.testing.assert_close(polar_express_by_gram(g, num_steps).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_a_light_orthogonalisation_is_the_first_three_steps(rows: int, cols: int) -> None:
    g = random_stack(2, rows, cols)
    expected = torch.stack([reference.orthogonal(matrix.double(), 3) for matrix in g])
    torch.testing.assert_close(orthogonalise_lightly(g).double(), expected, rtol=0, atol=1e-5)
    assert not orthogonalise_lightly(torch.zeros(1, rows, cols)).any()


def test_narrow_numbers_are_orthogonalised_without_the_gram_matrix() -> None:
    g = random_stack(1, 24, 96).bfloat16()
    assert torch.equal(orthogonalise_lightly(g), polar_express(g, 3))


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_a_step_that_is_not_light_has_the_bits_of_the_plain_recipe(rows: int, cols: int) -> None:
    """The operations of the reference recipe in their order: what is made cheaper must not move it."""
    weights, buffer, second = random_stack(3, rows, cols, seed=1), torch.zeros(3, rows, cols), None
    found = weights.clone(), buffer.clone(), torch.zeros(3, *second_shape(rows, cols))
    for step in range(3):
        grads = random_stack(3, rows, cols, seed=10 + step)
        muon_step(found[0], grads.clone(), found[1], found[2], **RATES, dtype=torch.float32)
        buffer = buffer.lerp(grads, 0.05)
        g = plain_rows(grads.lerp(buffer, 0.95))
        x = g / (NORM_FACTOR * torch.linalg.matrix_norm(g, keepdim=True) + NORM_EPS)
        x = x.mT.contiguous() if rows > cols else x
        for a, b, c in COEFFICIENTS:
            gram = x @ x.mT
            x = x.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), x, beta=a)
        g = x.mT if rows > cols else x
        g = g * (min(rows, cols) ** 0.5 / torch.linalg.matrix_norm(g, keepdim=True))
        mean = g.square().mean(dim=-1 if rows >= cols else -2, keepdim=True)
        second = torch.zeros_like(mean) if second is None else second
        second = second.lerp(mean, 1 - RATES["beta2"])
        scaled = g * second.rsqrt()
        g = scaled * (torch.linalg.matrix_norm(g, keepdim=True) / torch.linalg.matrix_norm(scaled, keepdim=True))
        decay = weights * (g * weights >= 0).to(weights.dtype)
        weights = weights.sub(g.add(decay, alpha=0.1), alpha=0.02 * max(1.0, rows / cols) ** 0.5)
    assert torch.equal(found[0], weights)
    assert torch.equal(found[1], buffer)


def plain_rows(g: Tensor) -> Tensor:
    mean: Tensor = torch.linalg.matrix_norm(g, keepdim=True) / g.size(-2) ** 0.5
    return g * (mean / torch.linalg.vector_norm(g, dim=-1, keepdim=True))


def test_equilibrated_rows_have_one_norm_and_the_matrix_keeps_its_own() -> None:
    g = random_stack(2, 6, 10) * torch.arange(1, 7)[:, None]
    found = equilibrate_rows(g)
    norms = found.norm(dim=-1)
    torch.testing.assert_close(norms, norms.mean(-1, keepdim=True).expand_as(norms))
    torch.testing.assert_close(found.norm(dim=(-2, -1)), g.norm(dim=(-2, -1)))


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_steps_equal_the_reference(rows: int, cols: int) -> None:
    weights, buffer = random_stack(3, rows, cols, seed=1), torch.zeros(3, rows, cols)
    second = torch.zeros(3, *second_shape(rows, cols))
    expected = [(w.double(), b.double(), s.double().flatten()) for w, b, s in zip(weights, buffer, second, strict=True)]
    for step in range(4):
        grads = random_stack(3, rows, cols, seed=10 + step) * 10.0 ** (step - 2)
        expected = [
            reference.muon_update(w, grad.double(), b, s, **RATES)
            for (w, b, s), grad in zip(expected, grads, strict=True)
        ]
        muon_step(weights, grads.clone(), buffer, second, **RATES, dtype=torch.float32)
        for i, (w, b, s) in enumerate(expected):
            torch.testing.assert_close(weights[i].double(), w, rtol=0, atol=1e-5)
            torch.testing.assert_close(buffer[i].double(), b, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(second[i].double().flatten(), s, rtol=1e-4, atol=1e-7)


def test_a_zero_gradient_moves_nothing_and_stays_finite() -> None:
    weights = random_stack(1, 8, 4)
    before = weights.clone()
    buffer, second = torch.zeros(1, 8, 4), torch.zeros(1, 8, 1)
    muon_step(weights, torch.zeros(1, 8, 4), buffer, second, **(RATES | {"weight_decay": 0.0}), dtype=torch.float32)
    assert torch.equal(weights, before)


def test_decay_pulls_only_where_the_step_does_too() -> None:
    """Each weight moves further with decay where step and weight agree in sign, and the same without where not."""
    ends = []
    for decay in (0.0, 1.0):
        weights = random_stack(1, 8, 8, seed=1)
        muon_step(
            weights,
            random_stack(1, 8, 8, seed=2),
            torch.zeros(1, 8, 8),
            torch.zeros(1, 8, 1),
            **(RATES | {"weight_decay": decay}),
            dtype=torch.float32,
        )
        ends.append(weights)
    before = random_stack(1, 8, 8, seed=1)
    agrees = (before - ends[0]) * before >= 0
    assert agrees.any()
    assert not agrees.all()
    torch.testing.assert_close(ends[0] - ends[1], torch.where(agrees, 0.02 * before, 0.0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", ["wide", "tall", "square"])
def test_two_steps_are_the_golden_ones(golden: Path, shape: str) -> None:
    with np.load(golden / "muon.npz") as arrays:
        stack = {
            key.removeprefix(f"{shape}/"): torch.from_numpy(arrays[key])
            for key in arrays.files
            if key.startswith(f"{shape}/")
        }
    weights = stack["before"]
    buffer = torch.zeros_like(weights)
    second = torch.zeros(weights.size(0), *second_shape(weights.size(1), weights.size(2)))
    for step in range(2):
        muon_step(weights, stack[f"gradient_{step}"], buffer, second, **RATES, dtype=torch.float32)
        torch.testing.assert_close(weights, stack[f"after_{step}"], rtol=0, atol=1e-5)
