"""The model and its optimizer once more, in float64, as plainly as they can be written: one query at a time.

Shares no code with the library, so that one mistake cannot be in both. Autograd gives the reference gradients.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nanochat.config import GPTConfig

Weights = Mapping[str, Tensor]

EPS = torch.finfo(torch.float32).eps  # what the library, computing in float32, adds to a mean square


def double(weights: Weights) -> dict[str, Tensor]:
    """Float64 leaves that gradients can be asked of."""
    return {name: tensor.double().requires_grad_() for name, tensor in weights.items()}


def logits(weights: Weights, config: GPTConfig, token_ids: list[int]) -> Tensor:
    """One row from position 0 -> (T, V)."""
    embedded = [norm(weights["embedding"][token]) for token in token_ids]
    x = list(embedded)
    if config.smear:
        for t in range(1, len(x)):
            gate = torch.sigmoid(weights["smear_gate"][0] @ embedded[t][: config.smear_channels])
            x[t] = embedded[t] + weights["smear_lambda"][0] * gate * embedded[t - 1]
    x0, middle = list(x), list(x)
    for layer in range(config.n_layer):
        resid, zero = weights["resid_lambdas"][layer], weights["x0_lambdas"][layer]
        x = [resid * now + zero * first for now, first in zip(x, x0, strict=True)]
        x = block(weights, config, layer, x, token_ids)
        if layer == config.n_layer // 2:
            middle = list(x)
    if config.backout:
        x = [now - weights["backout_lambda"][0] * then for now, then in zip(x, middle, strict=True)]
    rows = [weights["head"][: config.vocab_size] @ norm(now) for now in x]
    return config.softcap * torch.tanh(torch.stack(rows) / config.softcap)


def loss(weights: Weights, config: GPTConfig, rows: list[list[int]], targets: list[list[int]]) -> Tensor:
    """Mean cross entropy over the targets of all rows that are not -1."""
    losses = []
    for row, row_targets in zip(rows, targets, strict=True):
        for row_logits, target in zip(logits(weights, config, row), row_targets, strict=True):
            if target != -1:
                losses.append(torch.logsumexp(row_logits, 0) - row_logits[target])
    return torch.stack(losses).mean()


def block(weights: Weights, config: GPTConfig, layer: int, x: list[Tensor], token_ids: list[int]) -> list[Tensor]:
    attended = attention(weights, config, layer, [norm(now) for now in x], token_ids)
    x = [now + add for now, add in zip(x, attended, strict=True)]
    up, down = weights[f"layer.{layer}.mlp_up"], weights[f"layer.{layer}.mlp_down"]
    return [now + down @ torch.clamp(up @ norm(now), min=0) ** 2 for now in x]


def attention(weights: Weights, config: GPTConfig, layer: int, h: list[Tensor], token_ids: list[int]) -> list[Tensor]:
    D = config.n_embd // config.n_head
    queries, keys, values = [], [], []  # [token][head], (D,) each
    for t, (now, token) in enumerate(zip(h, token_ids, strict=True)):
        heads = [(weights[f"layer.{layer}.{name}"] @ now).split(D) for name in ("query", "key", "value")]
        queries.append([norm(rotate(q, t, config.rotary_base)) * config.qk_scale for q in heads[0]])
        keys.append([norm(rotate(k, t, config.rotary_base)) * config.qk_scale for k in heads[1]])
        values.append(list(heads[2]))
        if config.value_embeddings and (config.n_layer - 1 - layer) % 2 == 0:
            gates = weights[f"layer.{layer}.value_gate"] @ now[: config.value_gate_channels]
            extra = weights[f"layer.{layer}.value_embedding"][token].split(D)
            for head, gate in enumerate(gates):
                values[t][head] = values[t][head] + config.value_gate_range * torch.sigmoid(gate) * extra[head]
    window = window_of(config, layer)
    group = config.n_head // config.n_kv_head
    out = []
    for t in range(len(h)):
        seen = range(max(0, t - window), t + 1)
        heads_out = []
        for head in range(config.n_head):
            scores = torch.stack([queries[t][head] @ keys[s][head // group] for s in seen]) / math.sqrt(D)
            heads_out.append(torch.softmax(scores, 0) @ torch.stack([values[s][head // group] for s in seen]))
        out.append(weights[f"layer.{layer}.attention_out"] @ torch.cat(heads_out))
    return out


def window_of(config: GPTConfig, layer: int) -> int:
    pattern = config.window_pattern
    if layer == config.n_layer - 1 or pattern[layer % len(pattern)] == "L":
        return config.sequence_len
    multiple = config.short_window_multiple
    return -(-config.sequence_len // config.short_window_divisor // multiple) * multiple


def norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + EPS)


def rotate(x: Tensor, position: int, base: float) -> Tensor:
    x1, x2 = x.split(x.numel() // 2)
    angles = [position * base ** (-2 * i / x.numel()) for i in range(x1.numel())]
    cos = torch.tensor([math.cos(angle) for angle in angles], dtype=torch.float64)
    sin = torch.tensor([math.sin(angle) for angle in angles], dtype=torch.float64)
    return torch.cat([x1 * cos + x2 * sin, -x1 * sin + x2 * cos])


def muon_update(
    weight: Tensor,
    grad: Tensor,
    buffer: Tensor,
    second: Tensor,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One matrix (rows, cols), float64: the new weight, buffer and second moment (rows,) or (cols,)."""
    rows, cols = weight.shape
    buffer = momentum * buffer + (1 - momentum) * grad
    g = momentum * buffer + (1 - momentum) * grad
    mean_row = float((g**2).sum()) ** 0.5 / rows**0.5
    g = torch.stack([row * mean_row / max(float((row**2).sum()) ** 0.5, 1e-6) for row in g])
    g = orthogonal(g)
    g = g * min(rows, cols) ** 0.5 / max(float((g**2).sum()) ** 0.5, 1e-6)
    mean_square = (g**2).mean(1) if rows >= cols else (g**2).mean(0)
    second = beta2 * second + (1 - beta2) * mean_square
    factors = torch.clamp(second, min=1e-10) ** -0.5
    scaled = g * (factors[:, None] if rows >= cols else factors[None, :])
    g = scaled * float((g**2).sum()) ** 0.5 / max(float((scaled**2).sum()) ** 0.5, 1e-10)
    rate = lr * max(1.0, rows / cols) ** 0.5
    decay = torch.where(g * weight >= 0, weight_decay * weight, torch.zeros_like(weight))
    return weight - rate * (g + decay), buffer, second


def orthogonal(g: Tensor, num_steps: int = 5) -> Tensor:
    """What Polar Express steps do, through the singular values: each goes through the scalar polynomials."""
    left, values, right = torch.linalg.svd(g / (1.01 * float((g**2).sum()) ** 0.5 + 1e-6), full_matrices=False)
    for a, b, c in (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    )[:num_steps]:
        values = a * values + b * values**3 + c * values**5
    return left @ torch.diag(values) @ right
