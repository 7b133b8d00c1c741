"""What a caller may ask of sampling, torch-free. How it is done is sampling.py's, penalties.py's and grammar.py's.

A token is chosen from a row's logits in this order:

    logit_bias -> repetition, presence, frequency penalty -> grammar -> temperature -> top_k -> top_p -> min_p

The filters keep the likeliest of what the one before has left: the top_k largest; of them the fewest that hold top_p of
their probability; of them those that are at least min_p as likely as the likeliest. That one always stays. Log
probabilities are those of the model itself, before all of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nanochat.errors import InvalidRequest

MAX_TOP_K = 200
MAX_LOGPROBS = 20
# Far beyond these float32 has no numbers for what they make of a logit.
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 1e-3, 1e3
MAX_PENALTY = 2.0  # OpenAI's bounds of presence_penalty and frequency_penalty
MAX_LOGIT_BIAS = 100.0
MAX_BIASED_TOKENS = 1024
MAX_STOPS = 4
MAX_STOP_CHARS = 1024
# Below this nothing but the largest logit has a chance that float32 could tell from none.
MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request is continued. Raises InvalidRequest naming the field.

    temperature 0 takes the largest logit; filters and seed then change nothing, and are allowed. top_k 0, top_p 1 and
    min_p 0 are off. repetition_penalty divides positive logits of tokens in prompt or answer and multiplies negative
    ones; 1 is off. presence_penalty and frequency_penalty are subtracted once, and for each time, from the logits of
    tokens that were sampled before. logit_bias is added to the logits of its tokens.

    With a seed, the same prompt gives the same text whatever else runs beside it; without, every call differs.
    max_tokens counts sampled tokens a choice; None is what the context leaves, and more than that is cut to it.
    logprobs is the number of alternatives a token, 0 the sampled one alone, None nothing.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 <= self.temperature <= 2, "give a number from 0 to 2")
        _check("top_k", self.top_k, 0 <= self.top_k <= MAX_TOP_K, f"give 0 (off) to {MAX_TOP_K}")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "give a number above 0 and up to 1 (off)")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "give a number from 0 (off) to 1")
        is_right = MIN_REPETITION_PENALTY <= self.repetition_penalty <= MAX_REPETITION_PENALTY
        advice = f"give a number from {MIN_REPETITION_PENALTY:g} to {MAX_REPETITION_PENALTY:g}; 1 is off"
        _check("repetition_penalty", self.repetition_penalty, is_right, advice)
        for name, value in (("presence", self.presence_penalty), ("frequency", self.frequency_penalty)):
            advice = f"give a number from -{MAX_PENALTY:g} to {MAX_PENALTY:g}; 0 is off"
            _check(f"{name}_penalty", value, -MAX_PENALTY <= value <= MAX_PENALTY, advice)
        self._check_logit_bias()
        _check("max_tokens", self.max_tokens, self.max_tokens is None or self.max_tokens >= 1, "give at least 1")
        self._check_stop()
        _check("n", self.n, self.n >= 1, "give at least 1")
        in_range = self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS
        _check("logprobs", self.logprobs, in_range, f"give 0 to {MAX_LOGPROBS}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature < MIN_TEMPERATURE

    @property
    def changes_logits(self) -> bool:
        """Is there a bias or a penalty?"""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0) or bool(self.logit_bias)

    def _check_logit_bias(self) -> None:
        found = len(self.logit_bias)
        _check("logit_bias", f"for {found} tokens", found <= MAX_BIASED_TOKENS, f"give at most {MAX_BIASED_TOKENS}")
        for token_id, bias in self.logit_bias.items():
            advice = f"give a number from -{MAX_LOGIT_BIAS:g} to {MAX_LOGIT_BIAS:g}"
            _check("logit_bias", f"{bias} for token {token_id}", -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS, advice)

    def _check_stop(self) -> None:
        _check("stop", "an empty string", all(self.stop), "every stop string needs a character")
        _check("stop", f"{len(self.stop)} strings", len(self.stop) <= MAX_STOPS, f"give at most {MAX_STOPS}")
        longest = max(map(len, self.stop), default=0)
        advice = f"a stop string may have {MAX_STOP_CHARS}; shorten it"
        _check("stop", f"a string of {longest} characters", longest <= MAX_STOP_CHARS, advice)


def _check(name: str, found: object, is_right: bool, advice: str) -> None:
    if not is_right:
        raise InvalidRequest(f"{name} is {found}; {advice}.", param=name)
