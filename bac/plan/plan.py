"""A plan: one denoising run, recorded, specialised and compiled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.plan.codegen import Function
from bac.plan.program import Program
from bac.plan.returned import Returned
from bac.plan.rolling import Piece
from bac.plan.staleness import Staleness
from bac.plan.surroundings import as_recorded


@dataclass(frozen=True)
class Stage:
    """Size of the program after one pass.

    Attributes:
        name: Name of the pass.
        num_operations: Operators that compute.
        num_instructions: All operators, views included.
    """

    name: str
    num_operations: int
    num_instructions: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Replays a denoising run for one shape of its arguments.

    Attributes:
        program: The specialised program.
        replay: Its compiled form: flattened arguments to the tensors that the sampler computes.
        returned: What the sampler returns, with these tensors in it.
        pinned: Positions of arguments whose numbers Python reads; the plan holds for the recorded ones only.
        source: Text of `replay`.
        staleness: Tells whether the policy is still the recorded one.
        arguments: The tensors it was recorded for, in words.
        exact: Bit-equal to the interpreted run (on the CPU, float32).
        stages: Operators after recording and after each pass.
        skipped: Transformations left out, with the reason.
        max_error: Largest difference to the two interpreted runs of the check, relative to their largest output.
        tolerance: Largest such difference that was allowed, from the dtype of the run's matrix products.
        build_s: Time from first recording to last check [s].
        replay_s: Time of one replay, measured when the plan was built [s].
    """

    program: Program
    replay: Function
    returned: Returned
    pinned: tuple[int, ...]
    source: str
    staleness: Staleness
    arguments: str
    exact: bool
    stages: tuple[Stage, ...]
    skipped: tuple[str, ...]
    max_error: float
    build_s: float
    replay_s: float
    tolerance: float = 0.0

    @property
    def num_operations(self) -> int:
        """Operators that a replay dispatches, views not counted."""
        return self.program.num_operations

    @property
    def num_kernels(self) -> int:
        """Kernels that a replay launches: operators, and what the compiler made of those in compiled pieces."""
        computing = (i for i in self.program.instructions if not self.program.is_view(i))
        return sum(i.operator.num_kernels if isinstance(i.operator, Piece) else 1 for i in computing)

    @property
    def constant_bytes(self) -> int:
        """Memory of folded constants, without the weights, which are shared with the policy [B]."""
        return sum(self._constants.values())

    @property
    def _constants(self) -> dict[int, int]:
        """Sizes of folded constants by their memory [B]: by memory, since constants may be views."""
        weights = {_memory(tensor) for tensor in self.staleness.tensors}
        own = {_memory(tensor): tensor.untyped_storage().nbytes() for tensor in self.program.constants.values()}
        return {memory: size for memory, size in own.items() if memory not in weights}

    @property
    def peak_bytes(self) -> int:
        """Largest memory of intermediate results that are alive at once [B]."""
        return _peak(self.program)

    @property
    def num_bytes(self) -> int:
        """Memory that it takes besides the policy: constants, and intermediate results while it runs [B]."""
        return self.constant_bytes + self.peak_bytes

    def __call__(self, leaves: Sequence[Any]) -> tuple[Tensor, ...]:
        """Replay the run. The returned tensors belong to the caller."""
        with torch.inference_mode(), as_recorded():
            return self.replay(leaves)

    def output(self, leaves: Sequence[Any]) -> Any:
        """Replay the run, and return what the sampler would."""
        return self.returned.fill(self(leaves), leaves)

    def __str__(self) -> str:
        kind = "exact" if self.exact else "re-associated"
        width = max(len(stage.name) for stage in self.stages)
        lines = [f"Plan: {self.arguments}, {kind}"]
        lines += [f"  {s.name:{width}}  {s.num_operations:7,} operators {s.num_instructions:8,} with views"
                  for s in self.stages]  # fmt: skip
        lines += [f"  skipped: {reason}" for reason in self.skipped]
        memory = f"{self.constant_bytes / 1e6:.1f} MB folded, {self.peak_bytes / 1e6:.1f} MB at work"
        lines.append(
            f"  {len(self.program.constants):,} constants; {memory}; built in {self.build_s:.1f} s; "
            f"a replay took {1e3 * self.replay_s:.2f} ms and {self.num_kernels:,} kernels"
        )
        same = "bit-equal to" if self.max_error == 0 else f"within {self.max_error:.1e} of"
        allowed = f" ({self.tolerance:.1e} allowed)" if self.tolerance else ""
        lines.append(f"  {same} the interceptor on two runs{allowed}")
        return "\n".join(lines)


def bytes_of(plans: Iterable[Plan]) -> int:
    """Memory that plans take together besides the policy [B]: constants that they share count once."""
    plans = tuple(plans)
    constants = {memory: size for plan in plans for memory, size in plan._constants.items()}
    return sum(constants.values()) + sum(plan.peak_bytes for plan in plans)


def _peak(program: Program) -> int:
    last: dict[int, int] = {}
    for place, instruction in enumerate(program.instructions):
        for value in instruction.inputs:
            if value in program.meta:
                last[program.meta[value].root] = place
    alive, peak, dying = 0, 0, _by_place(last)
    owned = {}
    for place, instruction in enumerate(program.instructions):
        for value in instruction.outputs:
            meta = program.meta[value]
            if meta.root == value:
                owned[value] = meta.dtype.itemsize * torch.Size(meta.shape).numel()
                alive += owned[value]
        peak = max(peak, alive)
        alive -= sum(owned.pop(root, 0) for root in dying.get(place, ()))
    return peak


def _by_place(last: dict[int, int]) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for root, place in last.items():
        places.setdefault(place, []).append(root)
    return places


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
