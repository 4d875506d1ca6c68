"""Lets PyTorch's compiler fuse what a specialised program repeats.

It needs a C++ compiler and seconds for each distinct piece, so it is never the default. The program is rolled up first
(`bac.plan.rolling`), so a hundred steps take it as long as ten. Random draws stay outside of the pieces. The compiler
rounds differently, so the plan is never exact.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx
from tqdm import tqdm

from bac.plan.passes.trial import random_numbers
from bac.plan.program import Program, substitute
from bac.plan.rolling import Piece, outline

logger = logging.getLogger(__name__)

_PATIENCE = 2  # seconds before a bar is shown

# A line that launches a kernel: a loop or an operator in C++, then in Python.
_LAUNCH = re.compile(
    r"\s+(?:cpp_fused\w*\("
    r"|(?:AOTI_TORCH_ERROR_CODE_CHECK\()?aoti_torch_(?:cpu_\w+|call_dispatcher)\(|.*custom_op_wrapper, "
    r"|triton_\w+\.run\(|extern_kernels\.\w+\(|(?:\w+ = )?torch\.ops\.[\w.]+\()"
)


def compile_pieces(program: Program) -> Program:
    """The program with one call for every piece that repeats or is long; Inductor compiles each distinct piece.

    Args:
        program: After `bac.plan.passes.COMPILED`.

    Raises:
        RuntimeError: The compiler fails on a piece.
    """
    outlined = outline(program)
    for piece in tqdm(outlined.pieces, desc="compile", unit="piece", delay=_PATIENCE, leave=False):
        logger.debug("Inductor compiles %s", piece)
        piece.function = _compile(piece, outlined.program)
    return outlined.program


def _compile(piece: Piece, caller: Program) -> Callable[[list[Tensor]], Any]:
    """Compile one piece: a function of a list of its arguments. Counts the kernels that it launches.

    Inductor's own graph is called, without the checks and wrappers around it, which take as long as several operators.
    They are for functions that write, return views of their arguments, or meet other shapes. A piece does none of it.
    """
    compiler: Any = importlib.import_module("torch._inductor.compile_fx")
    functorch: Any = importlib.import_module("torch._functorch.config")
    graphs: list[Any] = []

    def remember(*args: Any, **options: Any) -> Any:
        graphs.append(compiler.compile_fx_inner(*args, **options))
        return graphs[-1]

    examples = _examples(piece, caller)
    # On a CPU, C++ calls the kernels. They are many and small, and Python adds a third.
    patches = {"cpp_wrapper": all(example.device.type == "cpu" for example in examples)}
    module = graph_module(piece.program)
    with functorch.patch(enable_autograd_cache=False):  # its cache would answer without asking `remember`
        compiler.compile_fx(module, examples, inner_compile=remember, config_patches=patches)
    if len(graphs) != 1:
        raise RuntimeError(f"Inductor made {len(graphs)} graphs of one piece, where one is expected")
    piece.num_kernels = num_kernels(graphs[0].source_code)
    function: Callable[[list[Tensor]], Any] = graphs[0]
    return function


def num_kernels(source: str) -> int:
    """Kernels that one call of a compiled graph launches: loops that the compiler wrote, and operators that it calls.

    Args:
        source: The graph's code, which launches each of them on a line of its own.
    """
    return sum(_LAUNCH.match(line) is not None for line in source.splitlines())


def _examples(piece: Piece, caller: Program) -> list[Tensor]:
    """Arguments of a piece's first call: its constants, and random numbers."""
    generator = torch.Generator().manual_seed(0)
    return [
        caller.constants[value] if value in caller.constants else random_numbers(caller.meta[value], generator)
        for value in piece.given
    ]


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
