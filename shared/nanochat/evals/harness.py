"""A model as lm-evaluation-harness asks for one, so that its tasks can be run: likelihoods and texts, many at a time.

Needs the extra `harness`. Texts begin with BOS. What comes out of a chat template is a text with the names of special
tokens; in such a text, which begins with that of BOS, and in no other, the names mean the tokens. Where checkpoints lie
and how the harness is started is cli/harness.py's.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from nanochat.engine.generate import Engine
from nanochat.engine.params import MAX_STOPS, SamplingParams
from nanochat.evals.likelihood import Likelihood, Passage, Scorer
from nanochat.model.gpt import GPT
from nanochat.protocol.generate import Message
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render, render_prompt
from nanochat.tokenizer.special import BOS, SPECIAL_TOKENS
from nanochat.tools.calculator import Calculator

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:  # whoever starts it says so
    TemplateLM = object

_NUM_SLOTS = 32
_DEFAULT_NEW_TOKENS = 256  # the harness's own, of a task that names no number
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")

Pair = tuple[list[int], list[int]]


class HarnessModel(TemplateLM):
    """A request longer than the model's context loses its left end."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._model = model
        self._tokenizer = tokenizer
        self._scorer = Scorer.of(model)

    @property
    def eot_token_id(self) -> int:
        """BOS stands between texts."""
        return self._tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        return "nanochat"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if string.startswith(BOS):
            pieces = _SPECIAL.split(string)
            ids = [
                [self._tokenizer.special_id(p)] if p in SPECIAL_TOKENS else self._tokenizer.encode(p) for p in pieces
            ]
            return [token_id for piece in ids for token_id in piece]
        ids_of_text = self._tokenizer.encode(string)
        return ids_of_text if add_special_tokens is False else [self._tokenizer.bos_id, *ids_of_text]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return "nanochat"

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        messages = [Message.model_validate(message) for message in chat_history]
        if add_generation_prompt:
            ids = render_prompt(self._tokenizer, messages)
        else:  # an answer has been begun, and goes on
            ids = render(self._tokenizer, messages)[0][:-1]
        first = self._tokenizer.vocab_size - len(SPECIAL_TOKENS)
        texts = [SPECIAL_TOKENS[i - first].encode() if i >= first else self._tokenizer.token_bytes(i) for i in ids]
        return b"".join(texts).decode()

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        found = self._score([(context, continuation) for _, context, continuation in requests])
        answers = [(-one.nats, one.is_greedy) for one in found]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: list["Instance"], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows of the model's context that do not overlap, each after one token of the last."""
        totals = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._scorer.max_len - 1,
                context_len=1,
            )
            found = self._score([make_disjoint_window(window) for window in windows])
            totals.append(-sum(one.nats for one in found))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, totals[-1])
        return totals

    def generate_until(self, requests: list["Instance"], disable_tqdm: bool = False) -> list[str]:
        asked = [_Generation.of(request.args[1]) for request in requests]
        limit = self._model.config.sequence_len
        prompts = [
            self.tok_encode(request.args[0])[-max(1, limit - one.max_tokens) :]
            for request, one in zip(requests, asked, strict=True)
        ]
        longest = max((len(p) + one.max_tokens for p, one in zip(prompts, asked, strict=True)), default=1)
        texts = [""] * len(requests)
        with Calculator() as calculator:
            engine = Engine.of(self._model, self._tokenizer, calculator, num_slots=_NUM_SLOTS, max_len=longest)
            for index, completion in engine.completed(prompts, [one.params for one in asked]):
                texts[index] = asked[index].cut(completion.text)
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Of each pair's second part after its first. Those that begin alike are computed together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (context, _) in enumerate(pairs):
            groups.setdefault(tuple(context), []).append(index)
        passages = [[self._passage(*pairs[index]) for index in indices] for indices in groups.values()]
        found: dict[int, Likelihood] = {}
        for indices, likelihoods in zip(groups.values(), self._scorer.score(passages), strict=True):
            found.update(zip(indices, likelihoods, strict=True))
        return [found[index] for index in range(len(pairs))]

    def _passage(self, context: list[int], continuation: list[int]) -> Passage:
        ids = [*context, *continuation][-self._scorer.max_len :]
        return Passage(ids, max(1, len(ids) - len(continuation)))


class _Generation:
    """One request's settings. More stop strings than the engine takes are looked for afterwards."""

    def __init__(self, params: SamplingParams, stops: Iterable[str]) -> None:
        self.params = params
        self._stops = tuple(stops)

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "_Generation":
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        is_sampled = settings.get("do_sample", True) and settings.get("temperature")
        params = SamplingParams(
            temperature=float(settings["temperature"]) if is_sampled else 0.0,
            top_p=float(settings.get("top_p") or 1.0),
            top_k=int(settings.get("top_k") or 0),
            max_tokens=int(settings.get("max_gen_toks") or _DEFAULT_NEW_TOKENS),
            stop=tuple(stops[:MAX_STOPS]),
            seed=0,
        )
        return cls(params, stops)

    @property
    def max_tokens(self) -> int:
        assert self.params.max_tokens is not None
        return self.params.max_tokens

    def cut(self, text: str) -> str:
        """What stands before the first stop string."""
        for stop in self._stops:
            text = text.partition(stop)[0]
        return text
