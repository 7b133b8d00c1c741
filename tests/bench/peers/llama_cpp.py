"""llama.cpp's server on a GPT-2 with random weights, for an environment with the packages xllamacpp and gguf.

    PYTHON llama_cpp.py FOLDER PORT SIZES     writes FOLDER/model.gguf and serves it on loopback until told to stop

SIZES is JSON: n_layer, n_embd, n_head, vocab_size, max_model_len, num_slots, num_threads, and weights: "f32" or "q8_0",
8 bits a weight with a factor for each 32. The same number and shape of matrix products as nanochat's model of that
depth and width. Imports nothing of nanochat.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any


def write_model(path: Path, sizes: dict[str, Any]) -> None:
    """Matrices are normal, norms ones, biases zeros. Tokens are bytes as GPT-2 writes them, and then words."""
    import gguf
    import numpy as np

    C, V, dice = sizes["n_embd"], sizes["vocab_size"], np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(sizes["n_layer"])
    writer.add_context_length(sizes["max_model_len"])
    writer.add_embedding_length(C)
    writer.add_feed_forward_length(4 * C)
    writer.add_head_count(sizes["n_head"])
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = [*_bytes_as_characters(), *(f"w{i}" for i in range(V - 256))]
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * V)
    writer.add_token_merges(["w 0"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    quantization = {"f32": gguf.GGMLQuantizationType.F32, "q8_0": gguf.GGMLQuantizationType.Q8_0}[sizes["weights"]]

    def matrix(name: str, rows: int, columns: int, kind: Any = quantization) -> None:
        values = dice.standard_normal((rows, columns), dtype=np.float32) / columns**0.5
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, dtype=np.float32))

    def norm(name: str) -> None:
        vector(f"{name}.weight", C, 1.0)
        vector(f"{name}.bias", C, 0.0)

    matrix("token_embd", V, C)
    matrix("position_embd", sizes["max_model_len"], C, gguf.GGMLQuantizationType.F32)
    for layer in range(sizes["n_layer"]):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        for name, rows, columns in (
            ("attn_qkv", 3 * C, C),
            ("attn_output", C, C),
            ("ffn_up", 4 * C, C),
            ("ffn_down", C, 4 * C),
        ):
            matrix(f"{block}.{name}", rows, columns)
            vector(f"{block}.{name}.bias", rows, 0.0)
    norm("output_norm")
    matrix("output", V, C)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _bytes_as_characters() -> list[str]:
    """GPT-2's: printable ones as they are, others moved beyond 255."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def serve(path: Path, port: int, sizes: dict[str, Any]) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {"llama.cpp"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = sizes["num_slots"]
    params.n_ctx = sizes["num_slots"] * sizes["max_model_len"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = sizes["num_threads"]
    params.cache_prompt = False
    params.fit_params = False
    server = xllamacpp.Server(params)
    print(f"listening at {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def main() -> None:
    folder, port, sizes = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    # Before the server's threads start, so that none of them takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.gguf"
    write_model(path, sizes)
    serve(path, port, sizes)


if __name__ == "__main__":
    main()
