"""nanochat.recipes with a task that a model can be rewarded for which knows nothing: an even number of characters."""

import sys

import pytest

from nanochat.recipes.__main__ import main
from nanochat.tasks.base import Conversation
from nanochat.tasks.counting import Counting


def even_length(self: Counting, conversation: Conversation, text: str) -> float:
    return float(len(text) % 2 == 0)


def make_easy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Counting, "reward", even_length)


if __name__ == "__main__":
    make_easy(pytest.MonkeyPatch())
    sys.exit(main())
