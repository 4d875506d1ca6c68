"""`bac explain`: where a chunk's milliseconds go, and what each lever would give on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

import bac
import bac.plan
from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.schedule import Schedule
from bac.cli.checkpoint import Checkpoint
from bac.cli.stages import BLOCKS, STEP, stages
from bac.denoising import Denoising
from bac.errors import BacError, ScheduleError
from bac.precision import BF16, TF32, check_precision_on
from bac.solvers import DPMSolver
from bac.tuning.bench import calling
from bac.tuning.timing import in_turns

PREPROCESSING, POSTPROCESSING = "preprocessing", "postprocessing"
_REUSED = 2  # the lever of reuse updates every block at each second step


@dataclass(frozen=True)
class Lever:
    """One way to make a chunk faster, tried here.

    Attributes:
        name: What it is.
        eager_s: Latency of a chunk without replay [s]; None if it was not timed.
        replayed_s: Latency with replay [s]; None if it cannot be replayed.
        actions: What becomes of the actions.
        next_line: What to type.
    """

    name: str
    eager_s: float | None
    replayed_s: float | None
    actions: str
    next_line: str


@dataclass(frozen=True)
class Explanation:
    """Where a chunk's time goes. It prints as two tables.

    Attributes:
        policy: Class name.
        device: The policy's device.
        num_threads: PyTorch's threads on the CPU.
        batch_size: Observations side by side.
        rounds: Chunks timed of each kind, of which medians are given.
        num_steps: Evaluations of the denoiser in a chunk, if known.
        eager_s: Latency of an untouched chunk [s].
        replayed_s: Latency of a replayed one [s]; None if it cannot be replayed.
        not_replayed: The reason why not; empty if it can.
        stages: Time of each stage of an untouched chunk [s], measured by a stopwatch that adds to it.
        weight_bytes: Memory of the weights [B].
        plan_bytes: Memory of the plan, besides the weights [B].
        levers: Ways to make a chunk faster.
    """

    policy: str
    device: str
    num_threads: int
    batch_size: int
    rounds: int
    num_steps: int | None
    eager_s: float
    replayed_s: float | None
    not_replayed: str
    stages: Mapping[str, float]
    weight_bytes: int
    plan_bytes: int
    levers: tuple[Lever, ...]

    @property
    def per_step_s(self) -> float | None:
        """Time of one evaluation of the denoiser, without the solver [s]; None if their number is not known."""
        return (self.stages[BLOCKS] + self.stages[STEP]) / self.num_steps if self.num_steps else None

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {**asdict(self), "stages": dict(self.stages)}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        steps = self.num_steps or "an unknown number of"
        yield f"{self.policy}: {steps} evaluations a chunk; {self.device}, {self.num_threads} threads, "\
              f"batch {self.batch_size}, medians of {self.rounds} chunks"  # fmt: skip
        yield f"weights {self.weight_bytes / 1e6:.1f} MB, plan {self.plan_bytes / 1e6:.1f} MB besides"
        yield ""
        yield f"{'where an untouched chunk spends it':38} {'ms':>9} {'share':>7}"
        total = sum(self.stages.values())
        for name, seconds in self.stages.items():
            if seconds > 0:
                yield f"  {name:36} {1e3 * seconds:9.2f} {seconds / total:7.1%}"
        if self.per_step_s is not None:
            yield f"  one step: {1e3 * self.per_step_s:.2f} ms"
        if self.replayed_s is not None:
            host_s = max(self.eager_s - self.replayed_s, 0.0)
            yield f"  of it host (Python, dispatch), which replay spares {1e3 * host_s:.2f} ms"
        else:
            yield f"  not replayed: {self.not_replayed}"
        yield ""
        yield f"{'what a lever gives here':38} {'eager ms':>9} {'replayed':>9} {'times':>6}  actions"
        for lever in self.levers:
            yield self._row(lever)
        yield "times: over the untouched chunk, eager. Errors and success are not measured here: bac tune does that."

    def _row(self, lever: Lever) -> str:
        fastest = min(s for s in (lever.eager_s, lever.replayed_s) if s is not None)
        row = f"  {lever.name:36} {_ms(lever.eager_s)} {_ms(lever.replayed_s)} {self.eager_s / fastest:6.2f}"
        return f"{row}  {lever.actions}; {lever.next_line}"


def explain(loaded: Checkpoint, *, batch_size: int, rounds: int, seed: int) -> Explanation:
    """Time a checkpoint's policy on random observations, stage by stage and under each lever.

    Args:
        loaded: A checkpoint with an untouched policy.
        batch_size: Observations side by side.
        rounds: Chunks to time of each kind.
        seed: Seeds the observation.

    Raises:
        UnsupportedPolicyError: `bac` cannot take the policy apart; the message gives the reason.
    """
    policy, host = loaded.policy, find_host(loaded.policy)
    raw = loaded.raw_observation(batch_size, seed=seed)
    batch = loaded.preprocessed(dict(raw))
    spent = {PREPROCESSING: _latency(lambda: loaded.preprocessed(dict(raw)), rounds)}
    spent |= stages(host, batch, rounds)
    chunk = host.predict_seeded(batch, seed)
    spent[POSTPROCESSING] = _latency(lambda: loaded.postprocessor(chunk[:, 0]), rounds)
    ways = _ways(host)
    not_replayed, plan_bytes = _plan(policy, batch)
    took = _timed(policy, ways, batch, rounds, replayed=not not_replayed)
    return Explanation(
        policy=type(policy).__name__,
        device=str(next(policy.parameters()).device),
        num_threads=torch.get_num_threads(),
        batch_size=batch_size,
        rounds=rounds,
        num_steps=host.num_steps,
        eager_s=took["replay", False],
        replayed_s=took.get(("replay", True)),
        not_replayed=not_replayed,
        stages=spent,
        weight_bytes=sum(p.numel() * p.element_size() for p in policy.parameters()),
        plan_bytes=plan_bytes,
        levers=tuple(_lever(name, took, str(loaded.config.pretrained_path)) for name in ways),
    )


def _ways(host: Host) -> dict[str, Denoising]:
    """Ways to denoise, one for each lever that the policy has."""
    ways, num_steps = {"replay": Denoising()}, host.num_steps or 0
    if host.takes_fewer_steps and num_steps > 1:
        ways["fewer steps: half"] = Denoising(num_steps=num_steps // 2)
    elif host.takes_solvers and num_steps > 3 and len(host.timesteps) == num_steps:
        every = host.timesteps[:: num_steps // 4][:4]
        ways["fewer steps: 4 of a solver"] = Denoising(DPMSolver(1), timesteps=tuple(map(int, every)))
    if num_steps > 1:
        updates = {block.name: _updates(block.name, num_steps, host) for block in host.blocks}
        ways["reuse: every second step"] = Denoising(schedule=Schedule(num_steps, updates, host.fingerprint()))
    for precision in (TF32, BF16):
        with suppress(ScheduleError):  # no float32 weights, or no GPU that has tf32
            check_precision_on(host.weights or host.denoiser, precision)
            ways[f"precision: {precision}"] = Denoising(precision=precision)
    return ways


def _updates(name: str, num_steps: int, host: Host) -> tuple[int, ...]:
    steps = range(0, num_steps, _REUSED)
    return tuple(sorted({*steps, num_steps - 1})) if name in host.update_last else tuple(steps)


def _plan(policy: Any, batch: Mapping[str, Any]) -> tuple[str, int]:
    """Why a chunk cannot be replayed, and the memory of its plan [B]."""
    try:
        bac.wrap(policy, Denoising(), replay=bac.Replay(record="ahead"))
        return "", bac.plan.record(policy, batch).num_bytes
    except BacError as error:
        return str(error).rpartition("cannot be replayed: ")[2], 0
    finally:
        bac.unwrap(policy)


def _timed(
    policy: Any, ways: Mapping[str, Denoising], batch: Mapping[str, Any], rounds: int, *, replayed: bool
) -> dict[tuple[str, bool], float]:
    """Median latency of every way without and with replay [s], by turns; dense and eager is the untouched policy."""

    def context(way: Denoising, replay: bool) -> Callable[[], Any]:
        untouched = not replay and way == Denoising()
        return lambda: calling(policy, None if untouched else way, batch, replay)

    contexts = {
        (name, replay): context(way, replay)
        for name, way in ways.items()
        for replay in ((False, True) if replayed else (False,))
    }
    samples = in_turns(contexts, rounds, turns=1)
    return {key: median(sample.wall_s for sample in taken) for key, taken in samples.items()}


def _lever(name: str, took: Mapping[tuple[str, bool], float], path: str) -> Lever:
    kind = name.partition(":")[0]
    actions = {"replay": "the same"}.get(kind, "others")
    next_line = {
        "replay": "LeRobot's commands do it by themselves",
        "fewer steps": f"bac tune --policy-path {path} --env ENV",
        "reuse": f"bac calibrate --policy-path {path} --env ENV",
        "precision": f"bac tune --policy-path {path} --env ENV --max-action-error E --precision {name.split()[-1]}",
    }[kind]
    return Lever(name, took.get((name, False)), took.get((name, True)), actions, next_line)


def _latency(call: Callable[[], Any], rounds: int) -> float:
    """Median time of a call on the host [s], after one that is not counted."""
    call()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _ms(seconds: float | None) -> str:
    return f"{'-':>9}" if seconds is None else f"{1e3 * seconds:9.2f}"
