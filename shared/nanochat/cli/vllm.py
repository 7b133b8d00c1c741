"""vLLM as something to compare with: its offline interface and its server, in an environment of its own.

Both get this process's cores and a GPT-2 with random weights in float32, which tests/bench/peers makes; so a clone of
the repository is needed. Nothing of vLLM is imported here.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from nanochat.bench.timing import Timing
from nanochat.cli.ports import LOOPBACK, any_free_port
from nanochat.cli.service import Service, ServiceSpec
from nanochat.errors import NotFound, Unavailable

PEERS = Path(__file__).parents[3] / "tests" / "bench" / "peers"
_SCRIPT = PEERS / "vllm_offline.py"
_CACHE_GIB = 2
_DEADLINE_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the model and of what it generates, as vllm_offline.py takes them."""

    n_layer: int
    n_embd: int
    n_head: int
    vocab_size: int
    max_model_len: int
    prompt_tokens: int
    new_tokens: int
    streams: tuple[int, ...]
    num_rounds: int
    temperature: float


class VLLM:
    """`python` is the interpreter of the environment that vLLM is in. Raises NotFound where it or the script is not."""

    def __init__(self, python: Path, folder: Path) -> None:
        require_peer(python, _SCRIPT)
        self._python, self._folder = python, folder

    async def measure(self, sizes: Sizes) -> tuple[str, list[Timing]]:
        """Version and times. Raises Unavailable with the end of its output where it fails."""
        output = await self._run("measure", sizes)
        found = next((line for line in reversed(output.splitlines()) if line.startswith('{"version"')), None)
        if found is None:
            raise Unavailable(f"vLLM gave no figures:\n{_tail(output)}")
        values = json.loads(found)
        return values["version"], [Timing(**one) for one in values["figures"]]

    @asynccontextmanager
    async def serve(self, sizes: Sizes) -> AsyncIterator[str]:
        """The address of its OpenAI-compatible server."""
        await self._run("model", sizes)
        port = any_free_port()
        options = {
            "--model": self._folder,
            "--served-model-name": "vllm",
            "--host": LOOPBACK,
            "--port": port,
            "--load-format": "dummy",
            "--dtype": "float32",
            "--max-model-len": sizes.max_model_len,
            "--max-num-seqs": max(sizes.streams),
        }
        flat = [str(part) for pair in options.items() for part in pair]
        spec = ServiceSpec(
            name="vllm",
            command=[
                str(self._python),
                "-m",
                "vllm.entrypoints.openai.api_server",
                *flat,
                "--no-enable-prefix-caching",
            ],
            port=port,
            environment=_environment(),
            health="/health",
            start_s=600.0,
        )
        async with Service(spec, self._folder / "vllm.log").running() as url:
            yield url

    async def _run(self, command: str, sizes: Sizes) -> str:
        process = await asyncio.create_subprocess_exec(
            *(self._python, _SCRIPT, command, self._folder, json.dumps(asdict(sizes))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **_environment()},
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _DEADLINE_S)
        except TimeoutError:
            raise Unavailable(f"vLLM was not ready within {_DEADLINE_S:.0f} s; fewer --streams or --rounds?") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode("utf-8", "replace")
        if process.returncode:
            raise Unavailable(f"vLLM ended with status {process.returncode}:\n{_tail(text)}")
        return text


def require_peer(python: Path, script: Path) -> None:
    """Raises NotFound."""
    if not python.is_file():
        raise NotFound(f"no Python at {python}; `make bench-peers` makes one with the peers, .venv-peers/bin/python.")
    if not script.is_file():
        raise NotFound("comparisons are part of the repository, not of the installed library; run them in a clone.")


def _environment() -> dict[str, str]:
    """Every core that this process may use, bound explicitly: left to itself, vLLM may keep one free."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GIB),
        "GOMP_SPINCOUNT": "300000",  # libgomp's default, whatever this process runs with
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _tail(output: str) -> str:
    return "\n".join(f"  | {line[:300]}" for line in output.splitlines()[-15:])
