"""Lets PyTorch's compiler fuse a specialised program.

It takes minutes for a hundred unrolled denoising steps and needs a C++ compiler, so it is never the default. The random
draws stay outside, as for CUDA graphs. The compiler rounds differently, so the plan is never exact.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx

from bac.plan.codegen import generate
from bac.plan.draws import divide
from bac.plan.program import Program, substitute


def settle() -> None:
    """Let PyTorch's compiler change `nn.Module` now: it does so at its first run, and a plan would see the change."""
    guard: Any = importlib.import_module("torch._dynamo.mutation_guard")
    if hasattr(guard, "install_generation_tagging_init"):  # a name of PyTorch's own
        guard.install_generation_tagging_init()


class CompiledReplay:
    """A program compiled by Inductor at its first call.

    Args:
        program: The program to compile.
        num_leaves: Number of the sampler's arguments, flattened.

    Raises:
        Refusal: A draw depends on an argument.
    """

    def __init__(self, program: Program, num_leaves: int) -> None:
        self._divided = divide(program, num_leaves)
        self._draw, _ = generate(self._divided.prologue)
        body = graph_module(self._divided.body)
        self._body: Callable[..., Any] = torch.compile(body, fullgraph=True, dynamic=False, options=_options(program))

    def __call__(self, leaves: Sequence[Any]) -> tuple[Tensor, ...]:
        """Draw, then run the compiled body."""
        return tuple(self._body(*self._divided.arguments(self._draw, leaves)))


def _options(program: Program) -> dict[str, Any]:
    """Inductor's options: on a CPU, C++ calls the kernels. They are hundreds and small, and Python adds a third."""
    on_cpu = all(meta.device.type == "cpu" for meta in program.meta.values())
    return {"cpp_wrapper": True} if on_cpu else {}


def graph_module(program: Program) -> fx.GraphModule:
    """The program as an FX graph; constants are its buffers. It takes its inputs in order of their positions."""
    root, graph = torch.nn.Module(), fx.Graph()
    ordered = sorted(program.inputs.items(), key=itemgetter(1))
    nodes: dict[int, Any] = {value: graph.placeholder(f"argument{place}") for value, place in ordered}
    for value, tensor in program.constants.items():
        root.register_buffer(f"constant{value}", tensor.detach())
        nodes[value] = graph.get_attr(f"constant{value}")
    for instruction in program.instructions:
        args, options = substitute((instruction.args, instruction.options), nodes.__getitem__)
        node = graph.call_function(instruction.operator, args, dict(options))
        if not instruction.sequence:
            nodes[instruction.outputs[0]] = node
            continue
        for place, value in enumerate(instruction.outputs):
            nodes[value] = graph.call_function(_item, (node, place))
    graph.output(tuple(nodes[value] for value in program.outputs))
    return fx.GraphModule(root, graph)


def _item(parts: Sequence[Any], place: int) -> Any:
    return parts[place]
