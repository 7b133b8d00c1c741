"""Threads are chosen by the times that steps take: here those of made up machines, so that no clock is asked."""

import ctypes
from collections.abc import Callable, Iterator

import pytest

from nanochat.native import build

HARNESS = """
#include "thread_choice.h"
using nanochat::ThreadChoice;
extern "C" {
void* make(int most) { return new ThreadChoice(most); }
void drop(ThreadChoice* choice) { delete choice; }
int choose(ThreadChoice* choice, int M) { return choice->choose(M); }
void observe(ThreadChoice* choice, int M, double seconds) { choice->observe(M, seconds); }
}
"""
# How long a step takes with a number of threads.
Machine = Callable[[int], float]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler is here")
    folder = tmp_path_factory.mktemp("choice")
    (folder / "choice.cpp").write_text(HARNESS)
    kernels = build.Kernels("choice", str(folder / "choice.cpp"), "", (f"-I{build.SOURCES}",))
    loaded = ctypes.CDLL(str(build.compile_variant(build.Variant("baseline", (), frozenset()), folder, kernels)))
    loaded.make.restype = ctypes.c_void_p
    loaded.drop.argtypes = [ctypes.c_void_p]
    loaded.choose.argtypes = [ctypes.c_void_p, ctypes.c_int]
    loaded.observe.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_double]
    return loaded


class Choice:
    def __init__(self, library: ctypes.CDLL, most: int) -> None:
        self._library, self.handle = library, library.make(most)

    def run(self, machine: Machine, num_steps: int, num_tokens: int = 1) -> list[int]:
        """How many threads each step of num_tokens took."""
        counts = []
        for _ in range(num_steps):
            counts.append(self._library.choose(self.handle, num_tokens))
            self._library.observe(self.handle, num_tokens, machine(counts[-1]))
        return counts


@pytest.fixture
def choice_of(library: ctypes.CDLL) -> Iterator[Callable[[int], Choice]]:
    made: list[Choice] = []

    def make(most: int) -> Choice:
        made.append(Choice(library, most))
        return made[-1]

    yield make
    for choice in made:
        library.drop(choice.handle)


def ideal(num_threads: int) -> float:
    return 0.02 / num_threads


def idle(num_threads: int) -> float:
    """Two threads share memory, and are not twice as fast."""
    return {1: 0.008, 2: 0.005}[num_threads]


def busy(num_threads: int) -> float:
    """Another process has one of two cores: the phases of two threads wait for it."""
    return {1: 0.009, 2: 0.020}[num_threads]


def share(counts: list[int], num_threads: int) -> float:
    return counts.count(num_threads) / len(counts)


def test_on_an_idle_machine_steps_take_all_threads(choice_of: Callable[[int], Choice]) -> None:
    for most in (1, 2, 6, 8):
        counts = choice_of(most).run(ideal, 1000)
        assert counts[:64] == [most] * 64
        assert share(counts, most) > 0.99


def test_a_step_that_is_over_in_no_time_tries_each_number_at_once_and_keeps_the_fastest(
    choice_of: Callable[[int], Choice],
) -> None:
    """Of six: all, then halves. Beyond one thread it waits longer for the others than they help."""
    counts = choice_of(6).run(lambda num_threads: 1e-5 * num_threads, 1000)
    assert counts[:12] == [6] * 3 + [4] * 3 + [2] * 3 + [1] * 3
    assert share(counts[12:], 1) > 0.98


def test_where_others_want_a_core_steps_soon_take_fewer_threads(choice_of: Callable[[int], Choice]) -> None:
    choice = choice_of(2)
    assert share(choice.run(idle, 500), 2) > 0.99
    assert share(choice.run(busy, 8), 2) <= 0.5  # of one thread the time is known by then
    assert share(choice.run(busy, 1000), 1) > 0.98


def test_a_model_that_has_known_no_other_machine_learns_it_too(choice_of: Callable[[int], Choice]) -> None:
    counts = choice_of(2).run(busy, 1000)
    assert counts[:64] == [2] * 64
    assert share(counts[65:], 1) > 0.98


def test_when_the_core_is_free_again_the_first_try_tells(choice_of: Callable[[int], Choice]) -> None:
    choice = choice_of(2)
    choice.run(idle, 500)
    choice.run(busy, 1000)
    choice.run(idle, 128)  # every 64th step tries a neighbour, in turn fewer and more
    assert share(choice.run(idle, 1000), 2) > 0.98


def test_one_step_far_off_is_an_accident(choice_of: Callable[[int], Choice]) -> None:
    choice = choice_of(2)
    choice.run(idle, 500)
    assert choice.run(lambda _: 3.0, 1) == [2]
    assert choice.run(idle, 40) == [2] * 40


def test_each_size_of_step_has_times_of_its_own(choice_of: Callable[[int], Choice]) -> None:
    """Those from one power of two up to the next share them."""
    choice = choice_of(2)
    choice.run(busy, 500)
    assert choice.run(ideal, 3, num_tokens=16) == [2] * 3
    assert choice.run(ideal, 40, num_tokens=31) == [2] * 40
    assert share(choice.run(busy, 500), 1) > 0.98
