"""A prompt comes in beside rows that decode, at a pace that their readers hardly notice."""

from nanochat.engine.pace import MAX_ADDED_RATIO, MIN_PROMPT_TOKENS, Pace


def _after_steps(decode_s: float, token_s: float) -> Pace:
    """What it has learnt from a machine that takes so long."""
    pace = Pace(1000)
    for _ in range(50):
        pace.observe(decode_s, 8, 0)
        pace.observe(decode_s + 64 * token_s, 8, 64)
    return pace


def test_where_nobody_waits_a_step_takes_all_it_may() -> None:
    assert Pace(1000).budget(0) == 1000
    assert _after_steps(0.01, 0.001).budget(0) == 1000


def test_a_prompt_adds_to_a_step_no_more_than_its_share() -> None:
    prompt_tokens = _after_steps(0.020, 0.0004).budget(8) - 8
    assert 0.8 * MAX_ADDED_RATIO * 0.020 <= prompt_tokens * 0.0004 <= MAX_ADDED_RATIO * 0.020


def test_a_prompt_comes_in_however_slow_the_machine() -> None:
    assert _after_steps(0.001, 0.1).budget(3) == 3 + MIN_PROMPT_TOKENS


def test_a_step_stays_within_its_bound_however_fast_the_machine() -> None:
    assert _after_steps(1.0, 1e-6).budget(3) == 1003


def test_it_follows_a_machine_that_becomes_slower() -> None:
    pace = _after_steps(0.020, 0.0004)
    for _ in range(50):
        pace.observe(0.020 + 64 * 0.004, 8, 64)
    assert pace.budget(8) == 8 + MIN_PROMPT_TOKENS


def test_before_anything_is_known_a_prompt_gets_a_little() -> None:
    assert 8 + MIN_PROMPT_TOKENS < Pace(1000).budget(8) < 200


def test_rows_that_were_never_alone_count_by_those_that_were() -> None:
    pace = Pace(1000)
    for rows in (*range(1, 9), *range(8, 0, -1)):
        pace.observe(0.004 + 0.001 * rows, rows, 0)
    for _ in range(50):
        pace.observe(0.004 + 0.001 * 28 + 64 * 0.0004, 28, 64)
    assert (pace.budget(28) - 28) * 0.0004 >= 0.8 * MAX_ADDED_RATIO * (0.004 + 0.001 * 28)
    assert (pace.budget(2) - 2) * 0.0004 <= MAX_ADDED_RATIO * (0.004 + 0.001 * 2) * 1.3


def test_the_first_step_of_a_cold_machine_is_forgotten() -> None:
    pace = Pace(1000)
    pace.observe(1.0, 0, 8)
    for _ in range(3):
        pace.observe(0.020, 8, 0)
        pace.observe(0.020 + 40 * 0.0004, 8, 40)
    assert (pace.budget(8) - 8) * 0.0004 >= 0.8 * MAX_ADDED_RATIO * 0.020
