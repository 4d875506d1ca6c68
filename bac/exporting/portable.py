"""A program in the form that PyTorch's exporters take: an `ExportedProgram` of torch.export."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bac.plan.inductor import graph_module
from bac.plan.program import Program


def exported(program: Program, arguments: Sequence[Tensor]) -> Any:
    """Make an `ExportedProgram` for fixed shapes.

    Args:
        program: A program without draws.
        arguments: Its inputs.
    """
    own = {value: _own(tensor) for value, tensor in program.constants.items()}
    module = graph_module(replace(program, constants=own))
    with quietly(), torch.no_grad():
        return torch.export.export(module, tuple(arguments))


@contextmanager
def quietly() -> Iterator[None]:
    """Within the context, PyTorch's exporters keep their warnings about each other's old interfaces to themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _own(tensor: Tensor) -> Tensor:
    """The tensor with memory of its own: a file keeps whole storages, and a slice's would be its parent's."""
    is_whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor.detach() if is_whole else tensor.detach().clone()
