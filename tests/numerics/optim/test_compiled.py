"""Training through torch.compile, as jobs do it, beside training without: the same losses from the same rows."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config

from nanochat.config import GPTConfig
from nanochat.data.loader import Batch
from nanochat.model.gpt import GPT
from nanochat.optim.groups import LearningRates, param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.recipes import device as device_module
from nanochat.recipes.device import Device, compile_model
from nanochat.recipes.next_token import accumulate

CPU = Device(device=torch.device("cpu"), dtype=torch.float32, num_threads=1)
NUM_STEPS = 6
# A window shorter than the rows, then a layer without; fewer key/value heads than query heads.
CONFIG = GPTConfig(sequence_len=160, vocab_size=200, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, window_pattern="SL")


def rows(seed: int) -> Batch:
    ids = torch.randint(CONFIG.vocab_size, (2, CONFIG.sequence_len + 1), generator=torch.Generator().manual_seed(seed))
    targets = ids[:, 1:].clone()
    targets[0, : 5 + seed] = -1
    return Batch(ids[:, :-1].contiguous(), targets, {})


def losses(model: GPT) -> list[float]:
    """Of some steps of two micro-batches, the same in each step, so that it shows what is learnt."""
    optimizer = MuonAdamW(param_groups(model, LearningRates(batch_factor=0.03)))
    found = []
    for _ in range(NUM_STEPS):
        found.append(accumulate(model, [rows(1), rows(2)]))
        optimizer.step()
        optimizer.zero_grad()
    return found


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """What was compiled before changes what is compiled: a size that has had two values becomes a variable."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of what its compiler itself does
def test_a_compiled_model_trains_as_a_plain_one(random_model: Callable[[GPTConfig], GPT]) -> None:
    """In float32, with sums in another order: losses of about 5 agree to five digits."""
    obstacle = device_module._obstacle_to_compiling(CPU.device)
    if obstacle is not None:
        pytest.skip(obstacle)
    assert CONFIG.windows[0] < CONFIG.sequence_len == CONFIG.windows[1]
    plain = losses(random_model(CONFIG))
    model = random_model(CONFIG)
    compile_model(model, True, CPU)
    with inductor_config.patch(compile_threads=1):  # no processes that outlive the test
        found = losses(model)
    assert found == pytest.approx(plain, rel=1e-5)
    assert plain[-1] < 0.95 * plain[0]
    # All before the loss in one graph, compiled once for all steps.
    assert counters["stats"]["unique_graphs"] == counters["aot_autograd"]["ok"] == 1
