"""Every path of attention against a masked softmax written out."""

import pytest
import torch
from torch import Tensor

from nanochat.model.attention import CPU_BLOCK, cached_attention, causal_attention, visible_keys

SCALE = 0.3


def written_out(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    group = q.size(2) // k.size(2)
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    distance = torch.arange(q.size(1))[:, None] - torch.arange(q.size(1))
    scores = torch.einsum("bthd,bshd->bhts", q, k) * SCALE
    scores = scores.masked_fill((distance < 0) | (distance > window), float("-inf"))
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("length", "window"),
    [(5, 2), (5, 4), (5, 99), (CPU_BLOCK, 7), (3 * CPU_BLOCK + 1, 1), (3 * CPU_BLOCK - 1, 128), (300, 298), (300, 299)],
)
def test_rows_from_the_start_see_their_window(length: int, window: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, length, 4, 16, generator=generator)
    k, v = torch.randn(2, 2, length, kv_heads, 16, generator=generator).unbind()
    found = causal_attention(q, k, v, window, SCALE)
    torch.testing.assert_close(found, written_out(q, k, v, window), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_cached_queries_see_what_their_mask_allows(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 20, 4, 16, generator=generator)
    k, v = torch.randn(2, 2, 20, kv_heads, 16, generator=generator).unbind()
    positions = torch.arange(17, 20).expand(2, 3)
    mask = torch.zeros(2, 3, 20).masked_fill_(~visible_keys(positions, 20, 6), float("-inf"))
    found = cached_attention(q[:, 17:], k, v, mask, SCALE)
    torch.testing.assert_close(found, written_out(q, k, v, 6)[:, 17:], rtol=0, atol=1e-5)


def test_a_query_sees_itself_and_a_window_of_keys_to_its_left() -> None:
    seen = visible_keys(torch.tensor([[0, 3, 5]]), 4, window=2, first_key=2)
    assert seen.int().tolist() == [[[0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]]]
