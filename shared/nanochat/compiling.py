"""What torch's compiler is told of single functions, without loading it: its own decorators load it where they stand,
its custom operations when they are first called. That takes as long again as torch itself, and most processes compile
nothing.

Whether a model is compiled is recipes/device.py's choice.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def constant_in_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """As torch.compiler.assume_constant_result: a graph holds what it gave while the graph was made."""
    function.__dict__["_dynamo_marked_constant"] = True  # all that torch's own does, once it has loaded the compiler
    return function


def cpu_operation(name: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As torch.library.custom_op: a function of tensors on a CPU that writes into none and gives none back becomes an
    operation, which graphs hold without looking into it. `fake` gives tensors like its results, with nothing in them.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, "cpu", function)
        torch.library.register_fake(name, fake)
        namespace, _, own_name = name.partition("::")
        operation: Callable[..., Any] = getattr(getattr(torch.ops, namespace), own_name).default
        return operation

    return register
