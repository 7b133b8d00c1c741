"""`nanochat export` and `nanochat import`: models for other libraries, and from elsewhere. Neither needs a service.

What the folders hold is checkpoint/'s business, which is loaded only when it is asked for: it needs torch.
"""

from pathlib import Path
from typing import Annotated

import typer

from nanochat.cli.jobs import parse_values
from nanochat.cli.settings import CliSettings
from nanochat.cli.terminal import say
from nanochat.config import GPTConfig


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's id, a run's name, or a checkpoint's folder.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make, in Hugging Face's layout.")],
    dtype: Annotated[str, typer.Option(help="Of all weights: fp32, bf16 or fp16.")] = "fp32",
) -> None:
    """Write a checkpoint as a folder that transformers loads."""
    from nanochat.checkpoint import store
    from nanochat.checkpoint.huggingface import exporter
    from nanochat.cli.local import checkpoint_folder

    source = store.load(checkpoint_folder(CliSettings.load(), checkpoint))
    exported = exporter.write(source, folder.expanduser(), precision=dtype)
    options = ""
    if exported.beyond_nanochat:
        say(f"transformers' own class lacks {', '.join(exported.beyond_nanochat)}: the folder brings a class along")
        options = ", trust_remote_code=True"
    say(f"exported {source.info.id} to {exported.folder}")
    say(f'load it with AutoModelForCausalLM.from_pretrained("{exported.folder}"{options})')


def import_(
    folder: Annotated[
        Path, typer.Argument(help="nanochat's published files (model_*.pt, meta_*.json) or Hugging Face's layout.")
    ],
    run: Annotated[str, typer.Option(help="The run that the checkpoint will belong to.")],
    stage: Annotated[str, typer.Option(help="Its stage.")] = "imported",
    step: Annotated[int | None, typer.Option(help="Which of several; default: the last.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="The tokenizer's folder, if it is another.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the model's config that the files do not tell, such as softcap=20."),
    ] = None,
) -> None:
    """Take up a model from elsewhere as a checkpoint. Nothing in the folder is run."""
    from nanochat.checkpoint import imports

    settings = CliSettings.load()
    imported = imports.read(
        folder.expanduser(),
        step=step,
        tokenizer_folder=tokenizer.expanduser() if tokenizer else None,
        constants=parse_values(values),
    )
    identity = imports.save(settings.home_dir, run, stage, imported)
    say(f"imported {folder} as {identity}")
    if differing := _differing(imported.config):
        say(f"its constants, as its files show: {differing}")
    say(f"chat with it: nanochat chat --local {identity}; serve it: nanochat models promote {identity}")


def _differing(config: GPTConfig) -> str:
    """What is not as in models of ours, sizes left out."""
    sizes = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
    ours = GPTConfig().to_dict()
    found = {name: value for name, value in config.to_dict().items() if name not in sizes and value != ours[name]}
    return ", ".join(f"{name}={value}" for name, value in found.items())
