"""Replays a whole denoising run as one CUDA graph.

A dense run of a diffusion transformer launches some 16,000 small kernels one after the other, and the launches take
most of the time. The graph holds all kernels and is launched once. It reads arguments and random numbers from buffers
and writes the result into another. Graphs of one device share their memory (`bac.plan.graph_memory`). The caller's
generators draw the numbers beforehand, in their order (`bac.plan.draws`), so a graph can be compared with an eager run
draw by draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bac.plan.codegen import generate
from bac.plan.draws import divide
from bac.plan.graph_memory import memory_of
from bac.plan.program import Program
from bac.plan.refusal import Refusal
from bac.plan.tail import split_tail

_WARM_UP = 3  # eager runs before capture, so that libraries allocate their workspaces outside the graph


class GraphedReplay:
    """A program captured for one kind of arguments. Its buffers serve one call at a time.

    Args:
        program: The program to capture.
        leaves: The sampler's arguments, flattened, on one CUDA device.

    Raises:
        Refusal: Part of the program runs on another device, or a draw depends on an argument.
    """

    def __init__(self, program: Program, leaves: Sequence[Any]) -> None:
        self._divided = divide(program, len(leaves))
        body, tail = split_tail(self._divided.body)
        self._tail = None if tail is None else generate(tail)[0]
        hosted = [i.name for i in body.instructions if any(_on_cpu(body, value) for value in i.outputs)]
        if hosted:
            raise Refusal(f"{hosted[0]} runs on the CPU")
        self._draw, _ = generate(self._divided.prologue)
        self._buffers = [tensor.clone() for tensor in self._divided.arguments(self._draw, leaves)]
        self._memory = memory_of(torch.cuda.current_device())
        self._capture(generate(body)[0])

    def __call__(self, leaves: Sequence[Any]) -> tuple[Tensor, ...]:
        """Launch the graph. The results are copies, so the next call may overwrite the buffers."""
        given = self._divided.arguments(self._draw, leaves)
        with self._memory.turn():
            torch._foreach_copy_(self._buffers, given)
            self._graph.replay()
            outputs = tuple([output.clone() for output in self._outputs])
        return outputs if self._tail is None else self._tail(outputs)

    def _capture(self, body: Any) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                body(self._buffers)
        current.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads may use the GPU during the capture.
        pool = self._memory.pool
        with self._memory.capturing(), torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = body(self._buffers)


def _on_cpu(program: Program, value: int) -> bool:
    return program.meta[value].device.type != "cuda"
