"""How fast LeRobot's own policies denoise, dense and cached: ``python -m eval.experiments.lerobot model=smolvla``.

Random weights at real denoiser sizes (`eval.experiments.lerobot.real_sizes`): right for speed, and silent about quality. Timed is one call
of the policy's sampler, batch 1, every row interleaved with the others in one process. Rows:

- ``dense``: the untouched policy.
- ``hoisted``: every block computed; what depends on the observation alone is computed once per chunk.
- ``dense replayed``: the same from a plan.
- ``BAC 50 %``, ``BAC 30 %``: that share of block evaluations computed, hoisted; and the same replayed.
- ``5 of 10 steps`` and so on: the rival, the untouched policy with as large a share of its denoising steps.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import torch
from torch import nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.plan.executor import Replayer
from bac.recording import watching
from eval.setup.config import CONFIGS, log_to_terminal
from eval.measure.latency import Latency, measure
from eval.setup.provenance import provenance
from eval.experiments.lerobot.real_sizes import NUM_STEPS, POLICIES, observation, set_num_steps

logger = logging.getLogger(__name__)

SHARES = (0.5, 0.3)


@dataclass(frozen=True)
class SpeedRow:
    """One way to make a chunk.

    Attributes:
        call: Makes one.
        share: Block evaluations computed, of those of the dense run.
        operators: ATen operators a replay dispatches, views left out; None if nothing is replayed.
    """

    call: Callable[[], Any]
    share: float
    operators: int | None = None


class Subject:
    """A policy under measurement, and copies of it that share its weights.

    Args:
        name: One of `POLICIES`.
        device: Where it runs.
        num_steps: Denoising steps K of the dense run.
    """

    def __init__(self, name: str, device: str = "cpu", num_steps: int | None = None) -> None:
        self.name = name
        self.num_steps = num_steps or NUM_STEPS[name]
        self.device = device
        torch.manual_seed(0)
        self.policy = POLICIES[name]().eval().to(device)
        set_num_steps(self.policy, self.num_steps)
        for parameter in self.policy.parameters():
            if not parameter.detach().any():  # modulation that training starts at zero: a block must do something
                nn.init.normal_(parameter, std=0.02)
        self.batch = observation(self.policy)
        with watching(self.policy) as watch, torch.no_grad():
            for _ in range(2):
                self._act(self.policy)
        self.calibration = watch.calibration()

    def schedule(self, share: float) -> bac.Schedule:
        """BAC's with n = 2 and the most updates per block that keep it within `share` of all evaluations."""
        for num_updates in range(self.num_steps, 0, -1):
            schedule = bac.adaptive_schedule(self.calibration, num_updates=num_updates, num_bubbled=2)
            if self.share_of(schedule) <= share:
                return schedule
        raise ValueError(f"share: one update per block is more than {share:.0%} of {self.num_steps} steps")

    def share_of(self, schedule: bac.Schedule) -> float:
        """Block evaluations computed, of all."""
        return schedule.num_updates_total / (schedule.num_steps * len(schedule.update_steps))

    def row(self, schedule: bac.Schedule | None, executor: str | None) -> SpeedRow:
        """A wrapped copy, its plan built; ``executor=None`` is the untouched policy."""
        policy = self._copy()
        call = self._sampler_call(policy)
        if executor is not None:
            bac.wrap(policy, schedule, executor=executor, exact=False, strict=False)
        operators = None
        if executor == "replay":
            with torch.inference_mode():
                call()
            (replayer,) = (found for _, _, found in interceptors(policy) if isinstance(found, Replayer))
            if not replayer.plans:
                raise RuntimeError(f"{self.name} cannot be replayed: {'; '.join(replayer.refusals)}")
            operators = replayer.plans[-1].num_operations
        return SpeedRow(call, 1.0 if schedule is None else self.share_of(schedule), operators)

    def few_row(self, num_steps: int) -> SpeedRow:
        """The untouched policy with fewer denoising steps."""
        policy = self._copy()
        set_num_steps(policy, num_steps)
        return SpeedRow(self._sampler_call(policy), num_steps / self.num_steps)

    def _copy(self) -> nn.Module:
        """Another policy on the same weights."""
        memory = {id(parameter): parameter for parameter in self.policy.parameters()}
        return copy.deepcopy(self.policy, memory)

    def _act(self, policy: nn.Module) -> None:
        policy.reset()
        policy.select_action(dict(self.batch))

    def _sampler_call(self, policy: nn.Module) -> Callable[[], Any]:
        """One denoising run on the arguments that the untouched policy gives its sampler."""
        host = find_host(policy)
        owner, name = host.sampler_owner, host.sampler_attribute
        with mock.patch.object(owner, name, wraps=getattr(owner, name)) as sampler, torch.inference_mode():
            self._act(policy)
        args, options = sampler.call_args

        def call() -> Any:
            chunk = getattr(owner, name)(*args, **options)
            if self.device == "cuda":
                torch.cuda.synchronize()
            return chunk

        return call


def rows_of(subject: Subject) -> dict[str, SpeedRow]:
    """Every row, by name."""
    steps = subject.num_steps
    everywhere = dict.fromkeys(subject.calibration.block_names, tuple(range(steps)))
    rows = {
        "dense": subject.row(None, None),
        "hoisted": subject.row(bac.Schedule(steps, everywhere), "interpret"),
        "dense replayed": subject.row(None, "replay"),
    }
    for share in SHARES:
        schedule = subject.schedule(share)
        rows[f"BAC {share:.0%}"] = subject.row(schedule, "interpret")
        rows[f"BAC {share:.0%} replayed"] = subject.row(schedule, "replay")
        few = max(1, round(share * steps))
        rows[f"{few} of {steps} steps"] = subject.few_row(few)
    return rows


def table(rows: dict[str, SpeedRow], latencies: dict[str, Latency]) -> Iterator[str]:
    """Markdown lines."""
    yield "| | p50 [ms] | p95 [ms] | x dense | evaluations | operators |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, latency in latencies.items():
        operators = "" if rows[name].operators is None else f"{rows[name].operators:,}"
        yield (
            f"| {name} | {latency.p50_ms:.0f} | {latency.p95_ms:.0f} | {latency.speedup:.2f} | "
            f"{rows[name].share:.0%} | {operators} |"
        )


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="lerobot_speed")
def main(config: Any) -> None:
    """Measure one policy and write ``<model>.json`` and ``<model>.md``."""
    log_to_terminal()
    torch.set_num_threads(1)
    if config.model not in POLICIES:
        raise SystemExit(f"model: must be one of {', '.join(POLICIES)}, got {config.model}")
    subject = Subject(config.model, config.device, config.num_steps)
    rows = rows_of(subject)
    latencies = measure({name: row.call for name, row in rows.items()}, rounds=config.rounds)
    lines = list(table(rows, latencies))
    for line in lines:
        logger.info(line)
    millions = sum(parameter.numel() for parameter in subject.policy.parameters()) / 1e6
    made = provenance()
    about = (
        f"`{made['command']}`: {config.model}, {millions:.0f} M parameters, K = {subject.num_steps}, "
        f"{len(subject.calibration.blocks)} blocks, {config.device}, float32, batch 1, one thread of {made['device']}; "
        f"medians of {config.rounds} interleaved rounds, {latencies['dense'].clock} clock."
    )
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"{config.model}.md").write_text("\n".join([about, "", *lines, ""]))
    record = {name: {**latency.to_dict(), "share": rows[name].share} for name, latency in latencies.items()}
    folder.joinpath(f"{config.model}.json").write_text(json.dumps({"rows": record, "made": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
