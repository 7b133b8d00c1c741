"""vLLM's offline interface on a GPT-2 with random weights, for the environment that vLLM is installed in.

    PYTHON vllm_offline.py model FOLDER SIZES       writes the model's folder, for `vllm serve` too
    PYTHON vllm_offline.py measure FOLDER SIZES     measures it; the last line of standard output is JSON

SIZES is JSON: n_layer, n_embd, n_head, vocab_size, max_model_len; and for measure: prompt_tokens, new_tokens,
streams (a list), num_rounds, temperature, num_threads. The same number and shape of matrix products as nanochat's model
of that depth and width: 4 C^2 of attention and 8 C^2 of MLP a layer, and a head of V x C. Imports nothing of nanochat.
Threads and memory are set by whoever starts it (VLLM_CPU_OMP_THREADS_BIND, VLLM_CPU_KVCACHE_SPACE).
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any


def write_model(folder: Path, sizes: dict[str, Any]) -> None:
    """config.json, and a tokenizer with a word for each token. Weights are made up while loading (load_format)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": sizes["n_layer"],
        "n_embd": sizes["n_embd"],
        "n_head": sizes["n_head"],
        "n_positions": sizes["max_model_len"],
        "n_ctx": sizes["max_model_len"],
        "vocab_size": sizes["vocab_size"],
        "activation_function": "gelu_new",
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {f"w{i}": i for i in range(sizes["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "eos_token": "w0", "bos_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def measure(folder: Path, sizes: dict[str, Any]) -> dict[str, Any]:
    """Prompts are new in every round and prefixes are not cached: every token is computed."""
    import vllm

    llm = vllm.LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype="float32",
        max_model_len=sizes["max_model_len"],
        max_num_seqs=max(sizes["streams"]),
        enable_prefix_caching=False,
        disable_log_stats=True,
        seed=1,
    )
    dice = random.Random(1)

    def seconds(num_streams: int, num_new: int) -> float:
        prompts = [
            {"prompt_token_ids": [dice.randrange(sizes["vocab_size"]) for _ in range(sizes["prompt_tokens"])]}
            for _ in range(num_streams)
        ]
        params = vllm.SamplingParams(
            temperature=sizes["temperature"], max_tokens=num_new, ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        took_s = time.perf_counter() - start
        found = sum(len(output.outputs[0].token_ids) for output in outputs)
        assert found == num_streams * num_new, f"{found} tokens instead of {num_streams} x {num_new}"
        return took_s

    figures = []
    for num_streams in sizes["streams"]:
        seconds(num_streams, sizes["new_tokens"])  # the first finds nothing ready
        figures.append(
            {
                "num_streams": num_streams,
                "prefill_s": _median(lambda n=num_streams: seconds(n, 1), sizes["num_rounds"]),
                "total_s": _median(lambda n=num_streams: seconds(n, sizes["new_tokens"]), sizes["num_rounds"]),
            }
        )
    return {"version": vllm.__version__, "figures": figures}


def _median(run: Callable[[], float], num_rounds: int) -> float:
    return median(run() for _ in range(num_rounds))


def main() -> None:
    command, folder, sizes = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    if sizes.get("num_threads"):
        import torch

        torch.set_num_threads(sizes["num_threads"])
    write_model(folder, sizes)
    if command == "measure":
        print(json.dumps(measure(folder, sizes)), flush=True)


if __name__ == "__main__":
    main()
