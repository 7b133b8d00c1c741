"""Orthogonalises stacks of matrices: every singular value goes near 1, singular vectors stay.

Five steps of an odd polynomial whose coefficients change from step to step, from arXiv 2505.16932 (Polar Express); only
matrix products, so it runs in low precision on any device. What is orthogonalised, and why, is muon.py's.
"""

import torch
from torch import Tensor

# (a, b, c) of X <- aX + (bA + cA^2)X with A = XX^T, for five steps and a safety factor of 1.01 on the first norm.
COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
NORM_FACTOR = 1.01
NORM_EPS = 1e-6
NUM_STEPS = len(COEFFICIENTS)


def polar_express(g: Tensor, num_steps: int = NUM_STEPS) -> Tensor:
    """(n, rows, cols) in any float dtype -> the same shape, each matrix near orthogonal (zero matrices stay zero)."""
    x = _scaled(g)
    is_tall = g.size(-2) > g.size(-1)
    if is_tall:
        x = x.mT.contiguous()
    for a, b, c in COEFFICIENTS[:num_steps]:
        gram = x @ x.mT  # (n, m, m), m the smaller side
        x = x.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def polar_express_by_gram(g: Tensor, num_steps: int = NUM_STEPS) -> Tensor:
    """The same up to rounding, float32, for matrices much longer than wide: half the time at four times as long.

    The long side is multiplied twice in all: X_k is a polynomial of the first A = XX^T times X, and A of step k + 1 is
    pAp, where p = aI + bA + cA^2 is that of step k. Rounding hurts most where there is least to gain: square matrices.
    """
    x = _scaled(g)
    is_tall = g.size(-2) > g.size(-1)
    gram = x.mT @ x if is_tall else x @ x.mT  # (n, m, m)
    product = factor = _factor(gram, COEFFICIENTS[0])
    for coefficients in COEFFICIENTS[1:num_steps]:
        gram = factor @ gram @ factor
        factor = _factor(gram, coefficients)
        product = factor @ product
    return x @ product if is_tall else product @ x


def _factor(gram: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """aI + bA + cA^2, (n, m, m)."""
    a, b, c = coefficients
    factor = gram.baddbmm(gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


def _scaled(g: Tensor) -> Tensor:
    """With singular values of at most 1, as the polynomials want them."""
    scaled: Tensor = g / (NORM_FACTOR * torch.linalg.matrix_norm(g, keepdim=True) + NORM_EPS)
    return scaled
