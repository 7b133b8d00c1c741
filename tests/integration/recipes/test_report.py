"""A report of runs that recipes have really made: no database, no service, the files alone."""

from html.parser import HTMLParser

import pytest

from nanochat.protocol.progress import Metric, Sample, Setup
from nanochat.report.run import read_run
from tests.integration.recipes.conftest import Workshop


def test_a_recipe_says_all_that_a_report_tells(workshop: Workshop) -> None:
    lines = workshop.lines(workshop.pretrain())
    (setup,) = [line for line in lines if isinstance(line, Setup)]
    assert setup.environment is not None and setup.environment.num_ranks == 1
    assert setup.environment.device_name and setup.environment.torch
    assert setup.flops_per_token and setup.num_parameters
    rates = [line.values["learning_rate"] for line in lines if isinstance(line, Metric) and "train_loss" in line.values]
    # Of a warm-up of forty steps to a rate of 0.02, the first eight.
    assert rates == pytest.approx([0.02 * (step + 1) / 40 for step in range(8)])


def test_a_run_is_reported_with_what_it_said_and_how_it_was_judged(workshop: Workshop) -> None:
    judged = workshop.run(workshop.evaluate("said", evals=["sample", "bpb"]))
    samples = [line for line in judged.lines if isinstance(line, Sample)]
    assert {sample.step for sample in samples} == {8} and len(samples) == 4

    ran = workshop.run(workshop.spec("report", "page", {"run": "base"}))
    assert ran.result.output is None
    folder = workshop.home / "reports" / "base"
    markdown = (folder / "report.md").read_text()
    assert "Trained as far as pretrain." in markdown
    assert "**Training loss**" in markdown and "**Learning rate of the matrices**" in markdown
    assert "The capital of France is" in markdown
    assert "| tokenizer | job_tokenizer_tok | succeeded |" in markdown
    html = (folder / "report.html").read_text()
    HTMLParser().feed(html)
    assert html.count("<svg") >= 2 and "<script" not in html


def test_a_fine_tuned_run_is_reported_with_its_base(workshop: Workshop) -> None:
    assert workshop.run(workshop.sft("reported")).result.output == "reported/sft/step_000008"
    run = read_run(workshop.home, "reported")
    assert [stage.name for stage in run.stages] == ["base/pretrain", "reported/sft"]
    assert all(stage.tokens and stage.environment for stage in run.stages)


def test_an_unknown_run_fails_the_job_and_names_those_there_are(workshop: Workshop) -> None:
    failure = workshop.run(workshop.spec("report", "nobody", {"run": "nobody"})).failure
    assert failure.code == "not_found"
    assert "no run is called 'nobody'" in failure.message and "base" in failure.message
