"""`nanochat bench`: training, loading, decoding and evaluation of small models on a CPU; a table and a JSON file.

In the repository's root: python -m tests.bench.run FOLDER [DATASET]. Meant for idle cores: other work spoils every
figure, and makes the run itself several times as long.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from nanochat.bench import report as files
from nanochat.bench.decoding import make_engine
from nanochat.bench.decoding import measure as measure_decoding
from nanochat.bench.machine import READ_SIZE_BYTES, Machine, OthersWork, describe, product_flops, read_bytes_per_second
from nanochat.bench.random_model import random_tokenizer
from nanochat.bench.timing import Case, DecodingFigures, figures
from nanochat.bench.work import Work
from nanochat.config import GPTConfig
from nanochat.cores import usable_cores
from tests.bench.evaluation import EvaluationFigures, add_rows, made_up, measure_evaluation
from tests.bench.loading import LoadingFigures, dataset_folder, measure_loading
from tests.bench.tokenizing import TokenizingFigures, measure_tokenizing
from tests.bench.training import TrainingFigures, measure_training, peak_memory_ratio

TEMPERATURE = 0.3  # of chats that name none


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The demo's model and batch for decoding, whose prompts are half the context; training's are larger.

    `trained` are depths and vocabularies; the last is trained with `window_pattern` too. A step is num_micro_steps of
    batch_size rows.
    """

    depth: int = 4
    head_dim: int = 64
    sequence_len: int = 512
    vocab_size: int = 512
    batch_size: int = 8
    window_pattern: str = "SSSL"
    trained: Sequence[tuple[int, int]] = ((6, 32768), (4, 4096))
    num_micro_steps: int = 8
    is_compiled: bool = True
    num_rows: Sequence[int] = (1, 8, 64)
    num_new: int = 64
    num_training_rounds: int = 4
    num_decoding_rounds: int = 5
    loading_vocab_size: int = 4096  # the loader's is a larger one: the longer its tokens are, the fewer a second
    num_loading_rounds: int = 7
    loading_window_s: float = 1.0
    num_packed_rows: int = 2000
    tokenizing_vocab_size: int = 8192
    num_tokenizing_chars: int = 10_000_000
    num_tokenizing_rounds: int = 3
    read_size_bytes: int = READ_SIZE_BYTES
    evaluated_vocab_size: int = 4096
    num_evaluated: int = 32
    num_evaluated_singly: int = 4

    def trained_configs(self) -> dict[str, GPTConfig]:
        """By what the table calls them."""
        configs = {
            f"depth {depth}, vocabulary {vocab_size}": self.config("L", depth, vocab_size)
            for depth, vocab_size in self.trained
        }
        depth, vocab_size = self.trained[-1]
        windowed = self.config(self.window_pattern, depth, vocab_size)
        return {**configs, f"  with windows {self.window_pattern}": windowed}

    def config(self, window_pattern: str, depth: int = 0, vocab_size: int = 0) -> GPTConfig:
        return GPTConfig.from_depth(
            depth or self.depth,
            vocab_size=vocab_size or self.vocab_size,
            sequence_len=self.sequence_len,
            head_dim=self.head_dim,
            window_pattern=window_pattern,
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the JSON file holds. load_average is of the minute before; others_cores what others took meanwhile."""

    date: str
    machine: Machine
    load_average: float
    others_cores: float
    sizes: Sizes
    training: list[TrainingFigures]
    memory_ratio: float | None  # of a training step of the first model to one with whole logits; None: not measured
    loading: LoadingFigures
    tokenizing: TokenizingFigures
    decoding: list[DecodingFigures]
    evaluation: EvaluationFigures


def measure(sizes: Sizes, data: Path | None = None) -> Report:
    """With as many threads as torch is set to. The loader reads the dataset in folder `data`, or the built-in one."""
    others, full = OthersWork(), sizes.config("L")
    trained = sizes.trained_configs()
    training = measure_training(
        trained,
        batch_size=sizes.batch_size,
        num_micro_steps=sizes.num_micro_steps,
        num_rounds=sizes.num_training_rounds,
        is_compiled=sizes.is_compiled,
    )
    largest = next(iter(trained.values()))
    memory_ratio = peak_memory_ratio(largest, sizes.batch_size) if sizes.is_compiled else None
    loading = measure_loading(
        replace(full, vocab_size=sizes.loading_vocab_size),
        data,
        batch_size=sizes.batch_size,
        is_compiled=sizes.is_compiled,
        num_rounds=sizes.num_loading_rounds,
        window_s=sizes.loading_window_s,
        num_rows=sizes.num_packed_rows,
    )
    with dataset_folder(data) as folder:
        tokenizing = measure_tokenizing(
            folder,
            vocab_size=sizes.tokenizing_vocab_size,
            num_chars=sizes.num_tokenizing_chars,
            num_rounds=sizes.num_tokenizing_rounds,
        )
    decoding = _decoding(sizes, full, training[0].peak_gflops * 1e9)
    return Report(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe(),
        load_average=others.load_average,
        others_cores=others.cores,
        sizes=sizes,
        training=training,
        memory_ratio=memory_ratio,
        loading=loading,
        tokenizing=tokenizing,
        decoding=decoding,
        evaluation=measure_evaluation(
            replace(full, vocab_size=sizes.evaluated_vocab_size, sequence_len=4 * sizes.sequence_len),
            made_up(sizes.num_evaluated),
            random_tokenizer(sizes.evaluated_vocab_size),
            num_plain=sizes.num_evaluated_singly,
            num_answers=2 * sizes.num_evaluated,
        ),
    )


def _decoding(sizes: Sizes, config: GPTConfig, peak_flops: float) -> list[DecodingFigures]:
    case = Case(prompt_tokens=sizes.sequence_len // 2, new_tokens=sizes.num_new, temperature=TEMPERATURE)
    engine = make_engine(config, "fp32", max(sizes.num_rows), config.sequence_len)
    timings = measure_decoding(engine, config.vocab_size, sizes.num_rows, case, sizes.num_decoding_rounds)
    return figures(
        timings,
        case,
        Work(config=config, weights="fp32"),
        product_flops=max(peak_flops, product_flops()),
        read_bytes_per_second=read_bytes_per_second(sizes.read_size_bytes),
    )


def table(report: Report) -> Table:
    sizes, machine = report.sizes, report.machine
    shown = Table(title=f"{machine.cpu}, {machine.num_threads} threads, float32, torch {machine.torch}")
    shown.add_column(f"heads of {sizes.head_dim}")
    shown.add_column(justify="right")
    shown.add_row("matrix products, the peak", f"{report.training[0].peak_gflops:,.0f} GFLOP/s")
    shown.add_row(f"training, steps of {sizes.num_micro_steps} x {sizes.batch_size} x {sizes.sequence_len}", "")
    for one in report.training:
        shown.add_row(f"[bold]{one.name}: share of the peak (MFU)", f"[bold]{one.mfu_ratio:.3f}")
        shown.add_row("    forward, backward, optimizer", f"{one.tokens_per_second:,.0f} tokens/s")
        shown.add_row("    optimizer's share of the step", f"{one.optimizer_ratio:.3f}")
    if report.memory_ratio is not None:
        shown.add_row("  peak memory, to that with whole logits", f"{report.memory_ratio:.2f}")
    loading = report.loading
    shown.add_section()
    shown.add_row(
        f"[bold]loader, vocabulary {loading.vocab_size}: to a step's speed", f"[bold]{loading.step_ratio:,.0f} x"
    )
    shown.add_row(f"  packed batches of {loading.dataset}", f"{loading.tokens_per_second:,.0f} tokens/s")
    shown.add_row("  the step beside it", f"{loading.step_tokens_per_second:,.0f} tokens/s")
    waste = f"{loading.discarded_ratio:.4f}, {loading.plain_discarded_ratio:.4f}"
    shown.add_row("  share thrown away, and by the plain algorithm", waste)
    tokenizing = report.tokenizing
    shown.add_section()
    shown.add_row(
        f"[bold]tokenizer, vocabulary {tokenizing.vocab_size}: encoding to bare tiktoken's speed",
        f"[bold]{tokenizing.encode_ratio:.2f} x",
    )
    shown.add_row(
        "  to arrays; two threads", f"{tokenizing.encode_array_ratio:.2f}, {tokenizing.encode_threads_ratio:.2f} x"
    )
    shown.add_row("  training, to bare rustbpe's time", f"{tokenizing.train_ratio:.2f} x")
    for one in report.decoding:
        shown.add_section()
        rows = f"{one.num_streams} row{'s'[: one.num_streams > 1]}"
        shown.add_row(f"decoding, {rows}", f"{one.decode_tokens_per_second:,.0f} tokens/s")
        shown.add_row("  share of the read bandwidth", f"{one.read_ratio:.2f}")
        shown.add_row(f"prefill, {rows} of {sizes.sequence_len // 2}", f"{one.prefill_tokens_per_second:,.0f} tokens/s")
    shown.add_section()
    add_rows(shown, report.evaluation)
    shown.caption = f"Others took {report.others_cores:.2f} of {machine.cores} cores meanwhile."
    return shown


def main() -> None:
    torch.set_num_threads(usable_cores())  # whatever OMP_NUM_THREADS says: the machine is measured, not a setting
    console = Console()
    # A line, not a spinner: drawing one takes time from what is measured.
    console.print("Measuring: minutes, and many where other work wants the cores, which spoils the figures too.")
    report = measure(Sizes(), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    console.print(table(report))
    for path in files.write(Path(sys.argv[1]), "training", report):
        console.print(f"Written to {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
