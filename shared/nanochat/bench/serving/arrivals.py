"""When requests come and how long they are: at random times with drawn lengths, or as a trace file says."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from nanochat.errors import DataError, InvalidConfig
from nanochat.protocol import Strict

Draw = Callable[[random.Random], int]


class Arrival(Strict):
    """A request: when it comes, in seconds from the start, and how many tokens go in and come out."""

    time_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    prompt_tokens: Annotated[int, Field(ge=1)]
    answer_tokens: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Requests that come independently of each other (Poisson), `rate` of them a second."""

    rate: float
    prompt_tokens: str
    answer_tokens: str

    def draw(self, num_requests: int, seed: int | str) -> list[Arrival]:
        """The same seed gives the same arrivals, and those of another rate at other times only."""
        if not 0 < self.rate < float("inf"):
            raise InvalidConfig(f"the rate is {self.rate:g} requests a second; give one above 0.", param="rate")
        if num_requests < 1:
            raise InvalidConfig(f"{num_requests} requests cannot be simulated; give at least 1.", param="requests")
        prompt, answer = lengths(self.prompt_tokens), lengths(self.answer_tokens)
        times, sizes = random.Random(f"times/{seed}"), random.Random(f"sizes/{seed}")
        found, now_s = [], 0.0
        for _ in range(num_requests):
            now_s += times.expovariate(1.0) / self.rate
            found.append(Arrival(time_s=now_s, prompt_tokens=prompt(sizes), answer_tokens=answer(sizes)))
        return found


def lengths(text: str) -> Draw:
    """How to draw a length: `50` is always 50, `20-200` any of these alike, `~80` geometric with mean 80.

    Raises InvalidConfig.
    """
    match = re.fullmatch(r"(?P<mean>~)?(?P<low>\d{1,7})(-(?P<high>\d{1,7}))?", text.strip())
    low = int(match["low"]) if match else 0
    high = int(match["high"] or low) if match else 0
    if match is None or low < 1 or high < low or (match["mean"] and match["high"]):
        raise InvalidConfig(f"{text!r} is no length in tokens; give 50, 20-200, or ~80 for a mean.", param="tokens")
    if match["mean"]:
        return lambda dice: max(1, round(dice.expovariate(1.0 / low)))
    return lambda dice: dice.randint(low, high)


def read_trace(path: Path) -> list[Arrival]:
    """JSON lines with time_s, prompt_tokens and answer_tokens, in order of time. Raises DataError naming the line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"trace {path} cannot be read: {exc}.") from exc
    found: list[Arrival] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Arrival.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as exc:
            reason = exc.errors()[0] if isinstance(exc, ValidationError) else None
            said = f"{'.'.join(map(str, reason['loc']))}: {reason['msg']}" if reason else str(exc)
            raise DataError(
                f"trace {path}, line {number}: {said}. "
                'A line reads {"time_s": 0.5, "prompt_tokens": 20, "answer_tokens": 80}.'
            ) from exc
        if len(found) > 1 and found[-1].time_s < found[-2].time_s:
            raise DataError(f"trace {path}, line {number}: its time is before that of the line above; sort the lines.")
    if not found:
        raise DataError(f"trace {path} holds no request.")
    return found


def cut_to_context(arrivals: Sequence[Arrival], context_length: int) -> list[Arrival]:
    """Answers as long as the context leaves, as the service gives them. Raises InvalidConfig on a longer prompt."""
    found = []
    for arrival in arrivals:
        room = context_length - arrival.prompt_tokens
        if room < 1:
            raise InvalidConfig(
                f"a prompt of {arrival.prompt_tokens} tokens leaves no room in a context of {context_length}; "
                "give shorter prompts.",
                param="prompt_tokens",
            )
        found.append(arrival.model_copy(update={"answer_tokens": min(arrival.answer_tokens, room)}))
    return found
