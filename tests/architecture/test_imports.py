"""What import rules cannot say: the light services and rooms really start where torch, numpy and pyarrow are absent."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Put before the code under test: an import of any of these fails as if it were not installed.
BLOCK = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
"""
LIGHT_SERVICE = ("torch", "numpy", "pyarrow", "safetensors", "rustbpe")


def run_without(blocked: tuple[str, ...], code: str, home: Path) -> None:
    """Run the code in a new interpreter where importing a blocked package raises ImportError."""
    source = BLOCK.format(blocked=blocked) + code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, cwd=home, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", ["gateway", "trainer"])
def test_app_is_made_without_torch_numpy_and_pyarrow(service: str, home: Path) -> None:
    settings = f"{service.capitalize()}Settings"
    run_without(
        LIGHT_SERVICE,
        f"from nanochat_{service}.app import create_app\n"
        f"from nanochat_{service}.settings import {settings}\n"
        f"create_app({settings}.load())\n",
        home,
    )


def test_an_inference_replica_starts_without_torch(home: Path) -> None:
    run_without(
        ("torch", "numpy", "pyarrow"),
        "import nanochat_inference.__main__\n"
        "from nanochat_inference.app import create_app\n"
        "from nanochat_inference.settings import InferenceSettings\n"
        "create_app(InferenceSettings.load(), ['cpu'])\n",
        home,
    )


# A step of training, without compiling it: two sequences, forwards and backwards.
STEP = """
import sys
import torch
import nanochat_inference.pool.worker_process, nanochat.recipes.evaluate, nanochat.recipes.rl, nanochat.recipes.sft
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW

model = GPT(GPTConfig(sequence_len=8, vocab_size=16, n_layer=1, n_head=1, n_kv_head=1, n_embd=32))
tokens = torch.zeros(2, 8, dtype=torch.int64)
model(tokens, tokens).backward()
MuonAdamW(param_groups(model)).step()
assert "torch._dynamo" not in sys.modules
"""


def test_what_is_not_compiled_never_loads_torchs_compiler(home: Path) -> None:
    """Loading it takes as long again as torch itself."""
    run_without((), STEP, home)


def test_every_module_of_the_worker_imports_without_torch(home: Path) -> None:
    run_without(("torch",), import_all("nanochat_worker"), home)


@pytest.mark.parametrize(
    "module",
    [
        "nanochat.config",
        "nanochat.errors",
        "nanochat.settings",
        "nanochat.files",
        "nanochat.cores",
        "nanochat.loopback",
        "nanochat.disconnect",
        "nanochat.references",
        "nanochat.checkpoint.manifest",
        "nanochat.data.registry",
        "nanochat.data.shards",
    ],
)
def test_module_imports_without_torch(module: str, home: Path) -> None:
    run_without(("torch",), f"import {module}", home)


@pytest.mark.parametrize("room", ["protocol", "observability", "jobs", "tokenizer", "tools", "cli"])
def test_every_module_of_the_room_imports_without_torch(room: str, home: Path) -> None:
    run_without(("torch",), import_all(f"nanochat.{room}"), home)


@pytest.mark.parametrize("package", ["nanochat", "nanochat_gateway", "nanochat_trainer", "nanochat_worker"])
def test_importing_a_package_does_nothing(package: str, home: Path) -> None:
    """No file is read or written outside the interpreter's own, no log is set up, no address is looked up."""
    run_without(
        (),
        f"import logging, socket, {package}\n"
        "assert not logging.getLogger().handlers\n"
        "import pathlib\n"
        "assert list(pathlib.Path('.').iterdir()) == []\n",
        home,
    )


def test_the_block_blocks(home: Path) -> None:
    with pytest.raises(AssertionError, match="import of torch halted"):
        run_without(("torch",), "import nanochat.model.gpt", home)


def import_all(package: str) -> str:
    """Code that imports every module of a package, but for those that run when imported."""
    return (
        f"import importlib, pkgutil, {package}\n"
        f"for module in pkgutil.walk_packages({package}.__path__, '{package}.'):\n"
        "    if module.name.split('.')[-1] not in ('__main__', 'env') and 'versions' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
    )
