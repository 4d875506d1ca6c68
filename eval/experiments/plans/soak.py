"""``python -m eval.experiments.plans.soak num_chunks=3000 output=FILE.json``: random changes beside an untouched twin.

Every change is made to the wrapped policy and to a twin that `bac` never touches. What the twin predicts is right. A
wrong chunk is **stale** if the twin predicted it before its last change, otherwise **foreign**. Where blocks are
reused, a fresh copy of the twin, wrapped without replay, is the reference.
"""

import copy
import gc
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import bac
from bac.caching.interceptors.patch import interceptors
from eval.experiments.plans.changes import CHANGES
from eval.experiments.plans.policy import SmallPolicy, schedule
from eval.setup.files import write_json
from eval.setup.provenance import provenance

Reused = tuple[int, ...] | None  # update steps of all blocks; None if every block is computed at every step

_FIRST = bac.Replay(record="first")
_WAYS: dict[str, tuple[Reused, Callable[[SmallPolicy], Any]]] = {
    "unwrap": (None, bac.unwrap),
    "replay": (None, lambda policy: bac.wrap(policy, replay=_FIRST)),
    "replay at the second sight": (None, bac.wrap),
    "update everywhere": (None, lambda policy: bac.wrap(policy, schedule(policy, 0, 1, 2, 3), replay=_FIRST)),
    "reuse, replayed": ((0, 2), lambda policy: bac.wrap(policy, schedule(policy, 0, 2), replay=_FIRST)),
    "reuse, interpreted": ((0, 2), lambda policy: bac.wrap(policy, schedule(policy, 0, 2), replay=False)),
}
_MODES: tuple[tuple[Callable[[], Any], ...], ...] = (
    (torch.no_grad,),
    (torch.no_grad,),
    (torch.no_grad,),
    (torch.inference_mode,),
    (torch.enable_grad,),
    (torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)),
    (torch.no_grad, lambda: torch.autocast("cpu", torch.float16)),
)


@dataclass
class Outcome:
    """What a soak found.

    Attributes:
        num_chunks: Chunks compared.
        num_replayed: Chunks that were made by a plan.
        num_refused: Broken batches that the wrapped policy refused as the twin did.
        foreign: Chunks that the twin never predicted.
        stale: Chunks that the twin predicted before its last change.
        changes: How often each change was made.
        memory_mb: Memory of the process [MB], by chunks made.
        growth_mb: Its growth after the first fifth [MB].
        growth_mb_per_1000: Slope of a line through `memory_mb` after the first fifth [MB per 1,000 chunks].
        minutes: Time it took [min].
    """

    num_chunks: int = 0
    num_replayed: int = 0
    num_refused: int = 0
    foreign: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    memory_mb: dict[int, float] = field(default_factory=dict)
    growth_mb: float = 0.0
    growth_mb_per_1000: float = 0.0
    minutes: float = 0.0


def soak(num_chunks: int, seed: int = 0, *, minutes: float = 60, look_every: int = 250) -> Outcome:
    """Compare `num_chunks` chunks, or as many as `minutes` allow, one to six after every random change.

    Args:
        look_every: Chunks between two looks at the memory of the process.
    """
    torch.manual_seed(seed)
    forward, started = nn.LayerNorm.forward, time.monotonic()
    pair = _Pair(Random(seed))
    outcome = pair.outcome
    try:
        while outcome.num_chunks < num_chunks and time.monotonic() - started < 60 * minutes:
            pair.change()
            for _ in range(pair.random.randint(1, 6)):
                pair.compare()
            if outcome.num_chunks >= len(outcome.memory_mb) * look_every:
                outcome.memory_mb[outcome.num_chunks] = _resident_mb()
        outcome.memory_mb[outcome.num_chunks] = _resident_mb()
        _measure_growth(outcome)
    finally:
        nn.LayerNorm.forward = forward  # type: ignore[method-assign]
    outcome.minutes = round((time.monotonic() - started) / 60, 1)
    return outcome


def _measure_growth(outcome: Outcome) -> None:
    warm = {made: mb for made, mb in outcome.memory_mb.items() if made >= outcome.num_chunks / 5}
    outcome.growth_mb = round(outcome.memory_mb[outcome.num_chunks] - next(iter(warm.values())), 1)
    if len(warm) > 1:
        outcome.growth_mb_per_1000 = round(
            1000 * statistics.linear_regression(list(warm), list(warm.values())).slope, 2
        )


class _Pair:
    """A wrapped policy and its untouched twin."""

    def __init__(self, random: Random) -> None:
        self.random, self.outcome = random, Outcome()
        self._begin()

    def change(self) -> None:
        """Make one random change: of both, or of what `bac` does to the one."""
        name = self.random.choice([*CHANGES, *CHANGES, *_WAYS, "deep copy", "broken batch", "new policy"])
        self.outcome.changes[name] = self.outcome.changes.get(name, 0) + 1
        self._last, self._before = name, copy.deepcopy(self.twin)
        if name in CHANGES:
            number = self.random.randint(0, 9)
            for policy in (self.policy, self.twin):
                CHANGES[name](policy, number)
        elif name in _WAYS:
            self._reused, wrap = _WAYS[name]
            wrap(self.policy)
        elif name == "deep copy":
            self.policy = copy.deepcopy(self.policy)
        elif name == "new policy":
            self._begin()
        else:
            self._break()

    def compare(self) -> None:
        """Predict the same chunk with both."""
        modes = self.random.choice(_MODES)
        if self.twin.head.weight.dtype != torch.float32:  # autocast leaves float64 alone
            modes = modes[:1]
        batch, seed = self._batch(self.random.randint(1, 2)), self.random.randint(0, 9)
        run = _in_thread if self.random.random() < 0.2 else _predict
        found, expected = run(self.policy, batch, seed, modes), _predict(self._reference(self.twin), batch, seed, modes)
        self.outcome.num_chunks += 1
        self.outcome.num_replayed += any(
            getattr(i, "answered", None) is not None for _, _, i in interceptors(self.policy)
        )
        if not torch.equal(found, expected):
            is_stale = torch.equal(found, _predict(self._reference(self._before), batch, seed, modes))
            off = float((found - expected).abs().max() / expected.abs().max())
            where = f"chunk {self.outcome.num_chunks}, after {self._last}, off by {off:.1e} of the largest action"
            (self.outcome.stale if is_stale else self.outcome.foreign).append(where)

    def _begin(self) -> None:
        self.twin = SmallPolicy()
        self.policy = bac.wrap(copy.deepcopy(self.twin), replay=_FIRST)
        self._reused: Reused = None
        self._last, self._before = "the beginning", self.twin

    def _reference(self, twin: SmallPolicy) -> SmallPolicy:
        if self._reused is None:
            return twin
        fresh = copy.deepcopy(twin)
        return bac.wrap(fresh, schedule(fresh, *self._reused), replay=False)

    def _batch(self, size: int, width: int = 3) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(self.random.randint(0, 99))
        return {"obs": torch.randn(size, 2, width, generator=source).to(self.twin.head.weight.dtype)}

    def _break(self) -> None:
        """Give both a batch that no layer takes."""
        batch = self._batch(1, width=5)
        for policy in (self.twin, self.policy):
            try:
                _predict(policy, batch, 0, (torch.no_grad,))
            except RuntimeError:
                self.outcome.num_refused += policy is self.policy


def _predict(policy: nn.Module, batch: dict[str, Tensor], seed: int, modes: tuple[Callable[[], Any], ...]) -> Tensor:
    torch.manual_seed(seed)
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode())
        return policy.predict_action_chunk(batch).detach()


def _in_thread(*arguments: Any) -> Tensor:
    """The same in another thread."""
    outputs: list[Tensor] = []
    thread = threading.Thread(target=lambda: outputs.append(_predict(*arguments)))
    thread.start()
    thread.join()
    return outputs[0]


def _resident_mb() -> float:
    """Memory of this process [MB], after a garbage collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 1e6, 1)


def main() -> None:
    """Soak and write the outcome."""
    options = OmegaConf.merge({"num_chunks": 3000, "seed": 0, "minutes": 60, "output": None}, OmegaConf.from_cli())
    torch.set_num_threads(1)
    outcome = soak(options.num_chunks, options.seed, minutes=options.minutes)
    print(outcome)
    if options.output:
        write_json(Path(options.output), {**provenance(), **asdict(outcome)})


if __name__ == "__main__":
    main()
