"""The engine's benchmark at sizes that take no time: what it counts, and that the plain decoder is the same model."""

import pytest
import torch

from nanochat.bench.decoding import make_engine, measure
from nanochat.bench.plain import PlainDecoder, measure_plain
from nanochat.bench.random_model import random_model, random_tokenizer
from nanochat.bench.timing import Case, Timing, figures
from nanochat.bench.work import Work
from nanochat.config import GPTConfig
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.model.gpt import Linear

CONFIG = GPTConfig.from_depth(3, vocab_size=320, sequence_len=256, head_dim=32)
CASE = Case(prompt_tokens=8, new_tokens=4)


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.set_num_threads(1)
    return make_engine(CONFIG, "fp32", 3, 32)


def test_times_of_every_number_of_streams_are_taken(engine: Engine) -> None:
    found = measure(engine, CONFIG.vocab_size, [1, 3], CASE, num_rounds=2)
    assert [one.num_streams for one in found] == [1, 3]
    assert all(one.prefill_s > 0 and one.total_s > 0 for one in found)


def test_samples_of_one_prompt_are_a_case(engine: Engine) -> None:
    (found,) = measure(engine, CONFIG.vocab_size, [3], Case(prompt_tokens=8, new_tokens=4, is_shared=True), 1)
    assert found.total_s > 0


def test_decoding_is_what_further_tokens_add() -> None:
    timing, case = Timing(num_streams=4, prefill_s=1.0, total_s=3.0), Case(prompt_tokens=128, new_tokens=5)
    assert timing.tokens_per_second(case) == pytest.approx(20 / 3)
    assert timing.step_s(case) == pytest.approx(0.5)
    assert timing.decode_tokens_per_second(case) == pytest.approx(8)


def test_shares_are_work_over_time_and_peak() -> None:
    work = Work(config=CONFIG, weights="fp32")
    (found,) = figures(
        [Timing(num_streams=1, prefill_s=1.0, total_s=4.0)], CASE, work, product_flops=1e6, read_bytes_per_second=1e6
    )
    assert found.step_ms == pytest.approx(1000)
    assert found.read_ratio == pytest.approx(work.step_bytes(1, 10) / 1e6)
    assert found.product_ratio == pytest.approx(work.step_flops(1, 10) / 1e6)
    assert found.prefill_tokens_per_second == pytest.approx(8)


def test_the_matrices_counted_are_those_of_the_model() -> None:
    """Gates are left out: a few channels each."""
    model = random_model(CONFIG)
    matrices = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    counted = sum(module.weight.numel() for name, module in matrices.items() if "gate" not in name)
    work = Work(config=CONFIG, weights="fp32")
    assert work.layer_weights + work.head_weights == counted


def test_int8_weights_are_a_quarter_to_read_and_the_cache_is_half() -> None:
    full, small = Work(config=CONFIG, weights="fp32"), Work(config=CONFIG, weights="int8")
    assert small.step_bytes(0, 100) == full.step_bytes(0, 100) / 4
    rows = [work.step_bytes(2, 100) - work.step_bytes(0, 100) for work in (full, small)]
    assert rows[0] / 2 == rows[1] > 0


def test_a_window_bounds_what_is_read() -> None:
    work = Work(config=GPTConfig.from_depth(4, vocab_size=320, sequence_len=1024, head_dim=64), weights="fp32")
    assert work.config.windows == (256, 256, 256, 1024)
    per_key = 2 * work.config.n_embd * 4
    assert work.step_bytes(1, 1000) - work.step_bytes(1, 500) == 500 * per_key


def test_twelve_layers_have_the_weights_that_peers_are_given() -> None:
    work = Work(config=GPTConfig.from_depth(12, vocab_size=32768, head_dim=64), weights="fp32")
    assert work.layer_weights == 12 * 12 * 768**2 and work.head_weights == 32768 * 768  # 110M


@pytest.mark.usefixtures("kernels")
def test_int8_weights_are_measured_alike() -> None:
    (found,) = measure(make_engine(CONFIG, "int8", 2, 32), CONFIG.vocab_size, [2], CASE, num_rounds=1)
    assert found.total_s > 0


def test_the_plain_decoder_is_the_same_model(engine: Engine) -> None:
    """Greedy tokens are equal; sums in another order differ by less than such logits do."""
    prompt = torch.randint(CONFIG.vocab_size - 9, (20,), generator=torch.Generator().manual_seed(3)).tolist()
    params = SamplingParams(temperature=0, max_tokens=10, n=2)
    ours = [one.token_ids for one in engine.generate([prompt], params)[0]]
    assert PlainDecoder(random_model(CONFIG), 32).generate(prompt, 2, 10, 0.0).tolist() == ours


def test_the_plain_decoder_is_timed_alike() -> None:
    case = Case(prompt_tokens=8, new_tokens=4, temperature=1.0, is_shared=True)
    found = measure_plain(random_model(CONFIG), [1, 2], case, num_rounds=1)
    assert [one.num_streams for one in found] == [1, 2] and all(one.total_s > 0 for one in found)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_of_a_random_model_never_end_early(temperature: float) -> None:
    engine = make_engine(CONFIG, "fp32", 16, 256)
    found = engine.generate([[1, 2, 3]] * 16, SamplingParams(temperature=temperature, max_tokens=200, seed=4))
    assert [len(group[0].token_ids) for group in found] == [200] * 16


def test_a_random_tokenizer_has_the_size_that_was_asked_for() -> None:
    for size in (320, 4096, 32768):
        assert random_tokenizer(size).vocab_size == size
    assert len(random_tokenizer(32768).encode("abc def")) <= 3
