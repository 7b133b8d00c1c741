"""`nanochat tokenizer`: trained as a job, and looked at right here: how well it packs text, and what its tokens are."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from nanochat.cli.jobs import Follow, KeyValues, Name, parse_values, submit
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import console, print_table, say
from nanochat.protocol.jobs import JobSpec
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.compression import Compression, Encodes, measure, sample_texts, well_known
from nanochat.tokenizer.origin import load_origin
from nanochat.tokenizer.special import SPECIAL_TOKENS

app = typer.Typer(help="Tokenizers: train, eval, show.", no_args_is_help=True)

_NUM_DOCUMENTS = 200  # of a dataset's split, or as many as make up
_NUM_CHARS = 2_000_000
_NUM_LONGEST = 20
_COLOURS = ("cyan", "green", "yellow", "magenta")  # of neighbouring pieces, in turn

Which = Annotated[str, typer.Argument(help="A name under $NANOCHAT_HOME/tokenizers, or a path.")]


@app.command()
def train(values: KeyValues = None, name: Name = None, follow: Follow = True) -> None:
    """Train a tokenizer, such as: nanochat tokenizer train dataset=python-docs vocab_size=4096 --name mine"""
    submit(JobSpec(kind="tokenizer", name=name, config=parse_values(values)), follow)


@app.command("eval")
def evaluate(
    tokenizer: Which,
    dataset: Annotated[
        str | None, typer.Option(help="A dataset's name or folder: its train and validation splits count too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bytes that a token stands for, by kind of text, beside GPT-2's and GPT-4's where tiktoken has their files."""
    loaded = _load(tokenizer)
    others, missing = well_known()
    found = [one for one in _measured(loaded, others, dataset) if one is not None]
    if as_json:
        rows = [asdict(one) | {"bytes_per_token": one.bytes_per_token} for one in found]
        console.print_json(json.dumps({"tokenizer": tokenizer, "kinds": rows, "missing": missing}))
        return
    print_table(
        ("text", "bytes", "tokens", "bytes/token", *(f"tokens to {name}'s" for name in others)),
        [
            (
                one.kind,
                f"{one.num_bytes:,}",
                f"{one.num_tokens:,}",
                f"{one.bytes_per_token:.2f}",
                *(f"{one.ratio_to(name):.2f} x" for name in others),
            )
            for one in found
        ],
        empty="nothing to measure",
    )
    for name, reason in missing.items():
        say(f"{name} is left out: {reason}")


@app.command()
def show(
    tokenizer: Which,
    text: Annotated[str | None, typer.Option(help="Show the tokens of a text instead.")] = None,
) -> None:
    """What a tokenizer holds, or the tokens of a text."""
    loaded = _load(tokenizer)
    if text is not None:
        _show_pieces(loaded, text)
        return
    say(f"{loaded.vocab_size:,} tokens, {len(SPECIAL_TOKENS)} of them special; split by {loaded.pattern}")
    if origin := load_origin(_path(tokenizer).parent):
        say(f"trained by {origin.job_id} on {origin.num_chars:,} characters, of {origin.dataset} first")
    print_table(("id", "special token"), [(str(loaded.special_id(name)), name) for name in SPECIAL_TOKENS], empty="")
    ids = sorted(range(loaded.vocab_size), key=lambda token: -len(loaded.token_bytes(token)))[:_NUM_LONGEST]
    longest = [(str(token), f"{len(loaded.token_bytes(token))}", printable(loaded.token_bytes(token))) for token in ids]
    print_table(("id", "bytes", "the longest tokens"), longest, empty="")


def printable(piece: bytes) -> str:
    """A token as one line of text: what is no whole character, or moves a terminal's cursor, is escaped."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in piece)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _show_pieces(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    for index, token in enumerate(ids):
        shown = printable(tokenizer.token_bytes(token))
        console.print(shown, style=f"black on {_COLOURS[index % len(_COLOURS)]}", end="", markup=False, highlight=False)
    console.print()
    print_table(("id", "token"), [(str(token), printable(tokenizer.token_bytes(token))) for token in ids], empty="")
    say(f"{len(ids)} tokens for {len(text.encode())} bytes")


def _measured(tokenizer: Tokenizer, others: Mapping[str, Encodes], dataset: str | None) -> Iterator[Compression | None]:
    for kind, text in sample_texts().items():
        yield measure(kind, [text], tokenizer, others)
    if dataset is not None:
        yield from _of_dataset(tokenizer, others, dataset)


def _of_dataset(tokenizer: Tokenizer, others: Mapping[str, Encodes], reference: str) -> Iterator[Compression | None]:
    from nanochat.data.builtin import prepare
    from nanochat.data.registry import datasets_dir, resolve_dataset
    from nanochat.data.shards import Shards

    home = CliSettings.load().home_dir
    folder = Path(reference).expanduser()
    roots = [datasets_dir(home), folder] if folder.is_absolute() else [datasets_dir(home)]
    found = prepare(resolve_dataset(str(folder) if folder.is_absolute() else reference, home, roots))
    with Shards(found.folder) as shards:
        yield measure("train", _some(shards.documents("train")), tokenizer, others)
        yield measure("validation", _some(shards.documents("val")), tokenizer, others)


def _some(documents: Iterator[str]) -> Iterator[str]:
    num_chars = 0
    for text in islice(documents, _NUM_DOCUMENTS):
        yield text
        num_chars += len(text)
        if num_chars >= _NUM_CHARS:
            break


def _load(reference: str) -> Tokenizer:
    return Tokenizer.load(_path(reference))


def _path(reference: str) -> Path:
    """Of the tokenizer's file."""
    if "/" in reference or Path(reference).is_file():
        path = Path(reference).expanduser()
        return path / "tokenizer.json" if path.is_dir() else path
    return CliSettings.load().home_dir / "tokenizers" / reference / "tokenizer.json"
