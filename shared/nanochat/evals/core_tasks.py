"""The 22 tasks of CORE (DCLM, arXiv 2406.11794): their files, shots, delimiters and what a guess would score.

How a prompt is written and an answer judged is core.py.
"""

from dataclasses import dataclass
from typing import Literal

CoreKind = Literal["multiple_choice", "schema", "language_modeling"]


@dataclass(frozen=True, kw_only=True)
class CoreTask:
    """`file` is relative to the folder of the benchmark's data; `delimiter` stands between prompt and continuation."""

    label: str
    file: str
    kind: CoreKind
    num_shots: int = 10
    delimiter: str = " "
    random_accuracy: float = 0.0


CORE_TASKS = (
    CoreTask(
        label="hellaswag_zeroshot",
        file="language_understanding/hellaswag.jsonl",
        kind="multiple_choice",
        num_shots=0,
        random_accuracy=0.25,
    ),
    CoreTask(
        label="jeopardy", file="world_knowledge/jeopardy_all.jsonl", kind="language_modeling", delimiter="\nAnswer: "
    ),
    CoreTask(label="bigbench_qa_wikidata", file="world_knowledge/bigbench_qa_wikidata.jsonl", kind="language_modeling"),
    CoreTask(
        label="arc_easy",
        file="world_knowledge/arc_easy.jsonl",
        kind="multiple_choice",
        delimiter="\nAnswer: ",
        random_accuracy=0.25,
    ),
    CoreTask(
        label="arc_challenge",
        file="world_knowledge/arc_challenge.jsonl",
        kind="multiple_choice",
        delimiter="\nAnswer: ",
        random_accuracy=0.25,
    ),
    CoreTask(
        label="copa", file="commonsense_reasoning/copa.jsonl", kind="multiple_choice", num_shots=0, random_accuracy=0.5
    ),
    CoreTask(
        label="commonsense_qa",
        file="commonsense_reasoning/commonsense_qa.jsonl",
        kind="multiple_choice",
        random_accuracy=0.403,
    ),
    CoreTask(
        label="piqa",
        file="commonsense_reasoning/piqa.jsonl",
        kind="multiple_choice",
        delimiter="\nAnswer: ",
        random_accuracy=0.5,
    ),
    CoreTask(
        label="openbook_qa",
        file="commonsense_reasoning/openbook_qa.jsonl",
        kind="multiple_choice",
        num_shots=0,
        random_accuracy=0.25,
    ),
    CoreTask(
        label="lambada_openai",
        file="language_understanding/lambada_openai.jsonl",
        kind="language_modeling",
        num_shots=0,
    ),
    CoreTask(
        label="hellaswag", file="language_understanding/hellaswag.jsonl", kind="multiple_choice", random_accuracy=0.25
    ),
    CoreTask(
        label="winograd",
        file="language_understanding/winograd_wsc.jsonl",
        kind="schema",
        num_shots=0,
        random_accuracy=0.5,
    ),
    CoreTask(
        label="winogrande",
        file="language_understanding/winogrande.jsonl",
        kind="schema",
        num_shots=0,
        random_accuracy=0.5,
    ),
    CoreTask(
        label="bigbench_dyck_languages",
        file="symbolic_problem_solving/bigbench_dyck_languages.jsonl",
        kind="language_modeling",
    ),
    CoreTask(
        label="agi_eval_lsat_ar",
        file="symbolic_problem_solving/agi_eval_lsat_ar.jsonl",
        kind="multiple_choice",
        num_shots=3,
        random_accuracy=0.25,
    ),
    CoreTask(
        label="bigbench_cs_algorithms",
        file="symbolic_problem_solving/bigbench_cs_algorithms.jsonl",
        kind="language_modeling",
    ),
    CoreTask(
        label="bigbench_operators", file="symbolic_problem_solving/bigbench_operators.jsonl", kind="language_modeling"
    ),
    CoreTask(
        label="bigbench_repeat_copy_logic",
        file="symbolic_problem_solving/bigbench_repeat_copy_logic.jsonl",
        kind="language_modeling",
    ),
    CoreTask(label="squad", file="reading_comprehension/squad.jsonl", kind="language_modeling"),
    CoreTask(
        label="boolq",
        file="reading_comprehension/boolq.jsonl",
        kind="multiple_choice",
        delimiter="\nAnswer: ",
        random_accuracy=0.62,
    ),
    CoreTask(
        label="bigbench_language_identification",
        file="language_understanding/bigbench_language_identification.jsonl",
        kind="multiple_choice",
        random_accuracy=0.25,
    ),
    CoreTask(label="coqa", file="reading_comprehension/coqa.jsonl", kind="language_modeling", num_shots=0),
)
