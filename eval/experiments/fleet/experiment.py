"""The number of robots that one batched policy server can feed.

The experiment measures the shipped Push-T policy at several batch sizes on one thread, with all contenders interleaved.
From the latencies it computes how many robots one server can feed at each `control_hz`: by throughput alone, and with a
simulated queue (`eval.experiments.fleet.queueing`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bac
from eval.compared.comparison import Comparison
from eval.compared.matching import caller
from eval.experiments.fleet.queueing import BatchedServer, fed, responses
from eval.measure.latency import Latency, measure
from eval.setup.batches import Batch
from eval.setup.cells import Cell, adaptive, dense

REPLAYED = bac.Replay(record="first")


@dataclass(frozen=True)
class Contender:
    """A way to run the policy.

    Attributes:
        name: Title in the table.
        cell: Solver and cache.
        replay: As in `eval.compared.matching.caller`.
    """

    name: str
    cell: Cell
    replay: bool | bac.Replay = REPLAYED


def contenders(num_updates: int, num_bubbled: int, few_steps: int) -> tuple[Contender, ...]:
    """Dense eager, dense replayed, BAC replayed, and the rival with fewer steps, replayed."""
    rival, cached = dense(few_steps, "DDIM"), adaptive(num_updates, num_bubbled)
    return (
        Contender("dense, eager", dense(), replay=False),
        Contender("dense, replayed", dense()),
        Contender(cached.name, cached),
        Contender(rival.name, rival),
    )


def measure_fleet(comparison: Comparison, options: Any) -> dict[str, dict[int, Latency]]:
    """Measure every contender at every batch size, all interleaved: name to batch size to latency."""
    observations, loaded = comparison.calibrated.observations("fidelity"), comparison.loaded
    calls = {}
    for one in contenders(options.num_updates, options.num_bubbled, options.few_steps):
        denoising = comparison.denoising(one.cell)
        for size in options.batches:
            calls[one.name, size] = caller(loaded, one.cell, denoising, repeated(observations, size), replay=one.replay)
    measured = measure(calls, rounds=options.rounds, warmup=2)  # a plan is recorded, then checked
    table: dict[str, dict[int, Latency]] = {}
    for (name, size), latency in measured.items():
        table.setdefault(name, {})[size] = latency
    return table


@dataclass(frozen=True)
class Demand:
    """The demand of one robot.

    Attributes:
        control_hz: Control steps per second [Hz].
        num_executed: Actions of a chunk that the robot executes (Ta).
        num_usable: Actions that a chunk has from the observed control step on.
    """

    control_hz: float
    num_executed: int
    num_usable: int

    @property
    def chunk_s(self) -> float:
        """Time between two chunks that the robot needs [s]."""
        return self.num_executed / self.control_hz

    @property
    def slack_s(self) -> float:
        """Largest delay of a chunk at which it still has `num_executed` actions left [s]."""
        return (self.num_usable - self.num_executed) / self.control_hz


def robots_of(latencies: Mapping[int, Latency], demand: Demand, options: Any) -> dict[str, Any]:
    """The number of robots that one server feeds, and the oldest observation they act on, as plain JSON types.

    Args:
        latencies: Batch size to latency.
        demand: The demand of each robot.
        options: `fleet` of ``configs/fleet.yaml``.
    """
    slack_s = demand.slack_s - options.network_ms / 1e3
    typical = BatchedServer({size: latency.p50_ms / 1e3 for size, latency in latencies.items()})
    slow = BatchedServer({size: latency.p95_ms / 1e3 for size, latency in latencies.items()})
    robots = fed(slow, demand.chunk_s, slack_s, cycles=options.cycles) if slack_s > 0 else 0
    waits = responses(slow, robots, demand.chunk_s, cycles=options.cycles) if robots else []
    last_action_s = (demand.num_executed - 1) / demand.control_hz
    return {
        "control_hz": demand.control_hz,
        "saturated_robots": typical.saturated(demand.chunk_s),
        "robots": robots,
        "response_p50_ms": 1e3 * waits[len(waits) // 2] if waits else None,
        "response_max_ms": 1e3 * waits[-1] if waits else None,
        "oldest_observation_ms": 1e3 * (waits[-1] + last_action_s) + options.network_ms if waits else None,
    }


def table_of(measured: Mapping[str, Mapping[int, Latency]], config: Any, options: Any) -> dict[str, Any]:
    """The table of all latencies and of the numbers of robots.

    Args:
        measured: Contender to batch size to latency.
        config: Configuration of the policy.
        options: `fleet` of ``configs/fleet.yaml``.
    """
    usable = config.horizon - config.n_obs_steps + 1
    demands = [Demand(float(hz), config.n_action_steps, usable) for hz in options.control_hz]
    latency = [
        {"method": name, "batch": size, **value.to_dict(), "chunks_per_s": size / value.p50_ms * 1e3}
        for name, sizes in measured.items()
        for size, value in sizes.items()
    ]
    robots = [
        {"method": name, **robots_of(sizes, demand, options)} for name, sizes in measured.items() for demand in demands
    ]
    return {"n_action_steps": config.n_action_steps, "usable_actions": usable, "latency": latency, "robots": robots}


def repeated(observations: Batch, size: int) -> Batch:
    """The first `size` observations; if there are fewer, they repeat."""
    return {key: values[[row % len(values) for row in range(size)]] for key, values in observations.items()}
