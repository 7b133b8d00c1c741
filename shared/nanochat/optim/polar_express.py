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


def polar_express(g: Tensor) -> Tensor:
    """(n, rows, cols) in any float dtype -> the same shape, each matrix near orthogonal (zero matrices stay zero)."""
    x: Tensor = g / (NORM_FACTOR * torch.linalg.matrix_norm(g, keepdim=True) + NORM_EPS)
    is_tall = g.size(-2) > g.size(-1)
    if is_tall:
        x = x.mT.contiguous()
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT  # (n, m, m), m the smaller side
        x = x.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
