"""Notices, before a replay, that the policy is no longer the recorded one.

A plan has weights, solver and settings baked in. `Staleness` remembers the objects in the sampler's modules
(parameters, sub-modules, the noise scheduler and its attributes), their holders and their versions, and compares. It
takes some 40 us per action chunk for DP-T.

A write through ``parameter.data`` changes no version. To notice it on the CPU, some bytes of every weight are compared.
On a GPU that would cost a synchronisation, so call `bac.wrap` again after such a write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from bac.caching.interceptors.patch import Interceptor

_PROBE = 4  # numbers compared per weight


class Staleness:
    """Remembers the objects that a sampler reads.

    Args:
        owner: Module whose method is the sampler.
        held: Other objects that a run reads: the noise scheduler of a solver's interceptor.
        swapped: Attributes whose own value a run does not read, because a solver's interceptor replaces it meanwhile:
            object and name.
    """

    def __init__(
        self, owner: nn.Module, held: Sequence[object] = (), swapped: Sequence[tuple[object, str]] = ()
    ) -> None:
        replaced = {(id(vars(thing)), name) for thing, name in swapped}
        edges = (edge for module in owner.modules() for edge in _edges(module))
        self._edges = [edge for edge in edges if (id(edge[0]), edge[1]) not in replaced]
        self._edges += [(vars(thing), name, value) for thing in held for name, value in vars(thing).items()]
        self._weights: list[Tensor] = []
        self._versioned: list[Tensor] = []
        self._versions: list[int] = []
        self._pointers: list[int] = []
        self._probes: list[memoryview] = []
        self._bytes = b""

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor that is a named attribute of the modules, or of an object they hold."""
        return [held for _, _, held in self._edges if isinstance(held, Tensor)]

    def settle(self, weights: Iterable[Tensor]) -> None:
        """Forget objects that a run itself replaces (a noise scheduler's timesteps); remember the weights it read."""
        self._edges = [edge for edge in self._edges if edge[0].get(edge[1]) is edge[2]]
        self._weights = list(weights)
        self._versioned = [weight for weight in self._weights if not weight.is_inference()]
        self._versions = _versions(self._versioned)
        self._pointers = _pointers(self._weights)
        self._probes = [probe for weight in self._weights for probe in _probe(weight)]
        self._bytes = b"".join(self._probes)

    def difference(self) -> str | None:
        """The change since `settle`, in words; `None` if there is none."""
        for mapping, name, held in self._edges:
            if mapping.get(name) is not held:
                return f"{name} was replaced"
        if _pointers(self._weights) != self._pointers:
            return "weights were moved"
        if _versions(self._versioned) != self._versions or b"".join(self._probes) != self._bytes:
            return "weights were written to"
        return None


def _edges(module: nn.Module) -> Iterator[tuple[Any, str, Any]]:
    own = vars(module)
    for registry in (own["_parameters"], own["_buffers"], own["_modules"]):
        yield from ((registry, name, held) for name, held in registry.items())
    for name, held in own.items():
        if name.startswith("_") or isinstance(held, Interceptor):
            continue
        yield own, name, held
        attributes = getattr(held, "__dict__", None)
        if isinstance(attributes, dict) and not isinstance(held, (nn.Module, type)):
            yield from ((attributes, inner, value) for inner, value in attributes.items())


def _versions(weights: list[Tensor]) -> list[int]:
    return list(map(attrgetter("_version"), weights))


def _pointers(weights: list[Tensor]) -> list[int]:
    return list(map(Tensor.data_ptr, weights))


def _probe(weight: Tensor) -> Iterator[memoryview]:
    """A live view of a few numbers in the middle of a weight, as bytes. It also keeps the memory from being reused."""
    if weight.device.type == "cpu" and weight.is_contiguous() and weight.numel():
        flat = weight.detach().view(-1)
        middle = flat.numel() // 2
        yield memoryview(flat[middle : middle + _PROBE].view(torch.uint8).numpy())
