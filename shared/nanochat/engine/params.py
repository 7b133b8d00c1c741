"""What a caller may ask of sampling, torch-free. How it is done is sampling.py's."""

from dataclasses import dataclass

from nanochat.errors import InvalidRequest

MAX_TOP_K = 200
MAX_LOGPROBS = 20


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request is continued. Raises InvalidRequest naming the field.

    temperature 0 takes the largest logit. top_k 0 and top_p 1 are off. With a seed, the same prompt gives the same text
    whatever else runs beside it; without, every call differs. max_tokens counts sampled tokens a choice; None is what
    the context leaves, and more than that is cut to it. logprobs is the number of alternatives a token, 0 the sampled
    one alone, None nothing.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 <= self.temperature <= 2, "give a number from 0 to 2")
        _check("top_k", self.top_k, 0 <= self.top_k <= MAX_TOP_K, f"give 0 (off) to {MAX_TOP_K}")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "give a number above 0 and up to 1 (off)")
        _check("max_tokens", self.max_tokens, self.max_tokens is None or self.max_tokens >= 1, "give at least 1")
        _check("stop", "an empty string", all(self.stop), "every stop string needs a character")
        _check("n", self.n, self.n >= 1, "give at least 1")
        in_range = self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS
        _check("logprobs", self.logprobs, in_range, f"give 0 to {MAX_LOGPROBS}")


def _check(name: str, found: object, is_right: bool, advice: str) -> None:
    if not is_right:
        raise InvalidRequest(f"{name} is {found}; {advice}.", param=name)
