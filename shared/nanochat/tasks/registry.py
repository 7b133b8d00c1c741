"""The tasks that a job can name. A new task is one file and one line here."""

from nanochat.tasks.arc import ARC
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import GeneratedTask
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.counting import Counting
from nanochat.tasks.dialogue import Dialogue
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.identity import Identity
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.smalltalk import Smalltalk
from nanochat.tasks.smoltalk import SmolTalk
from nanochat.tasks.spelling import Spelling
from nanochat.tasks.spelling_bee import SpellingBee

# Generated ones need no data. A benchmark's lies under $NANOCHAT_HOME/datasets by the same name (data/catalogue.json
# says where it can be downloaded).
TASKS: dict[str, type[GeneratedTask] | type[Benchmark]] = {
    "spelling": Spelling,
    "counting": Counting,
    "arithmetic": Arithmetic,
    "smalltalk": Smalltalk,
    "dialogue": Dialogue,
    "spelling_bee": SpellingBee,
    "identity": Identity,
    "mmlu": MMLU,
    "arc_easy": ARC,
    "arc_challenge": ARC,
    "gsm8k": GSM8K,
    "humaneval": HumanEval,
    "smoltalk": SmolTalk,
}
# Those whose answers can be checked, in the order in which reports show them.
CHECKABLE = tuple(name for name, task in TASKS.items() if task.is_checkable)
# What a chat model is asked where a job names no task: what every machine has, in its short form.
DEFAULT_EVALS = ("spelling", "counting", "arithmetic")
