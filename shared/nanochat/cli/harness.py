"""`nanochat harness`: EleutherAI's lm-evaluation-harness, with checkpoints as its model `nanochat`.

Needs the extra `harness`; nothing of it is imported before it is asked for. The model itself is evals/harness.py.
"""

import sys
from typing import Any

import typer

from nanochat.cli.settings import CliSettings
from nanochat.errors import InvalidConfig, Unavailable


def harness(context: typer.Context) -> None:
    """Run lm-evaluation-harness: nanochat harness run --model nanochat --model_args checkpoint=ID --tasks arc_easy

    Everything after `harness` is its own command line (`nanochat harness run -h`).
    """
    register()
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["nanochat harness", *context.args]
    cli_evaluate()


def register() -> None:
    """Make the harness know the model `nanochat`. Raises Unavailable where it is not installed."""
    try:
        from lm_eval.api.registry import register_model
    except ImportError as exc:
        raise Unavailable("lm-evaluation-harness is not installed; pip install 'nanochat-shared[harness]'.") from exc
    from nanochat.checkpoint import store
    from nanochat.cli.local import checkpoint_folder
    from nanochat.evals.harness import HarnessModel
    from nanochat.model.gpt import GPT
    from nanochat.model.names import load_tensors
    from nanochat.recipes.device import choose_device

    @register_model("nanochat")
    class NanochatModel(HarnessModel):
        """checkpoint: an id under $NANOCHAT_HOME, or a folder.

        What the harness gives of itself does not count here: how much runs at once is the scorer's business, and
        NANOCHAT_DEVICE says where.
        """

        def __init__(
            self,
            checkpoint: str = "",
            batch_size: object = None,
            max_batch_size: object = None,
            device: object = None,
            **others: Any,
        ) -> None:
            if not checkpoint:
                raise InvalidConfig("no checkpoint is named; give --model_args checkpoint=RUN/sft/step_000500.")
            if others:
                raise InvalidConfig(f"model_args has {', '.join(others)}; the model nanochat takes checkpoint alone.")
            chosen = choose_device()
            loaded = store.load(checkpoint_folder(CliSettings.load(), checkpoint), chosen.device)
            model = GPT(loaded.config, chosen.dtype).to(chosen.device)
            load_tensors(model, loaded.model_tensors)
            super().__init__(model.eval(), loaded.tokenizer)
