"""`nanochat bench`: training, loading and decoding for the demo's model on this machine's CPU; a table and a JSON file.

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
from nanochat.bench.timing import Case, DecodingFigures, figures
from nanochat.bench.work import Work
from nanochat.config import GPTConfig
from nanochat.cores import usable_cores
from tests.bench.loading import LoadingFigures, measure_loading
from tests.bench.training import TrainingFigures, measure_training

TEMPERATURE = 0.3  # of chats that name none


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The demo's model and batch. Prompts are half the context."""

    depth: int = 4
    head_dim: int = 64
    sequence_len: int = 512
    vocab_size: int = 512
    batch_size: int = 8
    window_pattern: str = "SSSL"
    num_rows: Sequence[int] = (1, 8, 64)
    num_new: int = 64
    num_training_rounds: int = 12
    num_decoding_rounds: int = 5
    loading_vocab_size: int = 4096  # the loader's is a larger one: the longer its tokens are, the fewer a second
    num_loading_rounds: int = 7
    loading_window_s: float = 1.0
    num_packed_rows: int = 2000
    read_size_bytes: int = READ_SIZE_BYTES

    def config(self, window_pattern: str) -> GPTConfig:
        return GPTConfig.from_depth(
            self.depth,
            vocab_size=self.vocab_size,
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
    training: TrainingFigures
    loading: LoadingFigures
    decoding: list[DecodingFigures]


def measure(sizes: Sizes, data: Path | None = None) -> Report:
    """With as many threads as torch is set to. The loader reads the dataset in folder `data`, or the built-in one."""
    others, full = OthersWork(), sizes.config("L")
    training = measure_training(
        full, sizes.config(sizes.window_pattern), batch_size=sizes.batch_size, num_rounds=sizes.num_training_rounds
    )
    loading = measure_loading(
        replace(full, vocab_size=sizes.loading_vocab_size),
        data,
        batch_size=sizes.batch_size,
        num_rounds=sizes.num_loading_rounds,
        window_s=sizes.loading_window_s,
        num_rows=sizes.num_packed_rows,
    )
    decoding = _decoding(sizes, full, training.peak_gflops * 1e9)
    return Report(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe(),
        load_average=others.load_average,
        others_cores=others.cores,
        sizes=sizes,
        training=training,
        loading=loading,
        decoding=decoding,
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
    sizes, training, machine = report.sizes, report.training, report.machine
    shown = Table(title=f"{machine.cpu}, {machine.num_threads} threads, float32, torch {machine.torch}")
    shown.add_column(f"depth {sizes.depth}, head_dim {sizes.head_dim}, vocabulary {sizes.vocab_size}")
    shown.add_column(justify="right")
    shown.add_row("matrix products, the peak", f"{training.peak_gflops:,.0f} GFLOP/s")
    batch = f"{sizes.batch_size} x {sizes.sequence_len}"
    shown.add_row(f"[bold]training, {batch}: share of the peak (MFU)", f"[bold]{training.mfu_ratio:.3f}")
    shown.add_row("  forward, backward, optimizer", f"{training.tokens_per_second:,.0f} tokens/s")
    shown.add_row("  optimizer's share of the step", f"{training.optimizer_ratio:.3f}")
    shown.add_row(f"  windows {sizes.window_pattern} to full attention", f"{training.windowed_speedup:.2f} x")
    loading = report.loading
    shown.add_section()
    shown.add_row(
        f"[bold]loader, vocabulary {loading.vocab_size}: to a step's speed", f"[bold]{loading.step_ratio:,.0f} x"
    )
    shown.add_row(f"  packed batches of {loading.dataset}", f"{loading.tokens_per_second:,.0f} tokens/s")
    shown.add_row("  the step beside it", f"{loading.step_tokens_per_second:,.0f} tokens/s")
    waste = f"{loading.discarded_ratio:.4f}, {loading.plain_discarded_ratio:.4f}"
    shown.add_row("  share thrown away, and by the plain algorithm", waste)
    for one in report.decoding:
        shown.add_section()
        rows = f"{one.num_streams} row{'s'[: one.num_streams > 1]}"
        shown.add_row(f"decoding, {rows}", f"{one.decode_tokens_per_second:,.0f} tokens/s")
        shown.add_row("  share of the read bandwidth", f"{one.read_ratio:.2f}")
        shown.add_row(f"prefill, {rows} of {sizes.sequence_len // 2}", f"{one.prefill_tokens_per_second:,.0f} tokens/s")
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
