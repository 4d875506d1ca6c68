"""Scheduler x estimator x solver: what each pair costs and how far its actions are off.

``python -m eval.experiments.methods preset=quick output=FILE.json`` writes one row for each method. Schedules, fitted estimators
and the rivals' timestep spacings are made from one set of observations; the action error is measured on others, visited
in other worlds, against the dense policy on the same noise (see `eval.measure.action_error`).
"""

import copy
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
import torch

import bac
import envs
import policies
from bac.caching.estimators import AffineResidual, Estimator, FittedForecast, ScaleShift, named
from bac.published.perturbation import edge_costs
from bac.recording import record_features
from bac.published.global_budget import global_budget_schedule
from bac.caching.schedulers.matched import matched_schedule
from bac.published.outcome import edge_grid, fill, outcome_schedule
from bac.caching.schedulers.search import coordinate_search
from bac.caching.schedulers.unified import unified_schedule
from bac.caching.schedulers.uniform import uniform_schedule
from eval.setup.cells import dense, running
from eval.setup.config import CONFIGS, env_options, log_to_terminal
from eval.measure.action_error import action_chunks, action_error, best_spacing
from eval.measure.latency import measure
from eval.play.rollout import Batch, EnvPool, play
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED

logger = logging.getLogger(__name__)

VISIT = dense(8, "DDIM")  # visits observations in a hurry
POOL = 8
FEATURES_BATCH = 8
FITTED = {fitted.name: fitted for fitted in (ScaleShift, AffineResidual, FittedForecast)}
NONE = "none"


@dataclass(frozen=True)
class Row:
    """One method, measured.

    Attributes:
        scheduler: When blocks update; ``dense`` or ``fewer steps`` update all.
        estimator: What stands in for the others; ``none`` where all update.
        solver: One of `eval.setup.cells.SOLVERS`.
        num_steps: Denoising steps K.
        sweeps: Block updates in units of one full evaluation.
        latency_p50_ms: Of one action chunk at batch 1, one thread [ms].
        action_error: Root mean square over executed actions, in normalised units (the data span 2).
    """

    scheduler: str
    estimator: str
    solver: str
    num_steps: int
    sweeps: float
    latency_p50_ms: float
    action_error: float


@dataclass(frozen=True)
class Method:
    """One way to make an action chunk.

    Attributes:
        scheduler: As in `Row`.
        solver: As in `Row`.
        num_steps: As in `Row`.
        schedule: None if everything is computed.
        estimator: None likewise.
        spacing: Timestep spacing of a rival.
    """

    scheduler: str
    solver: str
    num_steps: int
    schedule: bac.Schedule | None = None
    estimator: Estimator | None = None
    spacing: str | None = None

    @property
    def title(self) -> str:
        """Unique in a table."""
        updates = f"{self.schedule.num_sweeps:.2f} sweeps" if self.schedule else "all"
        estimator = self.estimator.name if self.estimator else NONE
        return f"{self.scheduler} {estimator} {self.solver}-{self.num_steps} {updates}"


class Workbench:
    """Measures methods on one policy.

    Args:
        loaded: Untouched policy with its processors.
        preset: See ``configs/fidelity.yaml``.
        calibration: Observations that methods are made from, `[B, To, D]` each.
        observations: Others.
    """

    def __init__(self, loaded: Any, preset: Any, calibration: Batch, observations: Batch) -> None:
        self.policy = loaded.policy
        self.preset = preset
        self.batches = {"calibration": calibration, "fidelity": observations}
        self._references: dict[tuple[str, str], torch.Tensor] = {}

    def methods(self) -> Iterable[Method]:
        """The dense policies, the rivals, then every pair at every budget."""
        products = list(self.preset.products)
        for product in products:
            yield Method("dense", product.solver, product.num_steps)
        for num_steps in sorted({budget for product in products for budget in product.budgets}):
            for solver in self.preset.rivals:
                batch, reference = self.batches["calibration"], self.reference(solver, "calibration")
                spacing, _ = best_spacing(self.policy, solver, num_steps, batch, reference)
                yield Method("fewer steps", solver, num_steps, spacing=spacing)
        for product in products:
            yield from Product(self, product).methods()

    def reference(self, solver: str, purpose: str) -> torch.Tensor:
        """Chunks of the dense policy that share the solver's draws."""
        key = ("DDPM" if solver == "DDPM" else "DDIM"), purpose
        if key not in self._references:
            self._references[key] = self.chunks(Method("dense", key[0], 100), purpose)
        return self._references[key]

    def chunks(self, method: Method, purpose: str) -> torch.Tensor:
        """Executed actions, `[num_draws, B, Ta, Da]`."""
        with applied(self.policy, method) as policy:
            return action_chunks(policy, self.batches[purpose], num_draws=self.preset.num_draws)

    def error(self, method: Method, purpose: str = "fidelity") -> float:
        """Action error of a method."""
        return action_error(self.chunks(method, purpose), self.reference(method.solver, purpose))


def apply(policy: Any, method: Method, *, executor: str = "interpret") -> None:
    """Set a policy to a method."""
    policy.diffusion.use_solver(method.solver, method.num_steps, timestep_spacing=method.spacing)
    if method.schedule is not None or executor == "replay":
        bac.wrap(policy, method.schedule, estimator=method.estimator, executor=executor)


@contextmanager
def applied(policy: Any, method: Method) -> Iterator[Any]:
    """Set a policy to a method for the duration of a `with`."""
    apply(policy, method)
    try:
        yield policy
    finally:
        bac.unwrap(policy)


class Product:
    """Schedulers and estimators on one solver.

    Args:
        bench: Where they are made.
        product: `solver`, `num_steps`, `budgets` and `pairs`.
    """

    def __init__(self, bench: Workbench, product: Any) -> None:
        self.bench = bench
        self.product = product
        self._costs: dict[str, Any] = {}
        batch = bench.batches["calibration"]
        self._batches = [
            {key: values[start : start + FEATURES_BATCH] for key, values in batch.items()}
            for start in range(0, len(next(iter(batch.values()))), FEATURES_BATCH)
        ]
        with applied(bench.policy, self._dense) as policy:
            self.calibration = bac.calibrate(policy, self._batches, progress=False)

    @property
    def _dense(self) -> Method:
        return Method("dense", self.product.solver, self.product.num_steps)

    def methods(self) -> Iterable[Method]:
        """Every pair at every budget; where a search is asked for, its result beside it."""
        for budget in self.product.budgets:
            for scheduler, estimator in self.product.pairs:
                schedule = self._schedule(scheduler, estimator, budget)
                method = self._method(scheduler, schedule, estimator)
                yield method
                if self.bench.preset.search and scheduler == "outcome":
                    yield self._searched(method, estimator)

    def _method(self, scheduler: str, schedule: bac.Schedule, estimator: str) -> Method:
        made = self._fitted(estimator, schedule) if estimator in FITTED else named(estimator)
        return Method(scheduler, self.product.solver, self.product.num_steps, schedule, made)

    def _schedule(self, scheduler: str, estimator: str, budget: int) -> bac.Schedule:
        made = self.calibration
        num_blocks = len(made.blocks)
        schedulers: dict[str, Callable[[], bac.Schedule]] = {
            "uniform": lambda: uniform_schedule(made, budget),
            "unified": lambda: unified_schedule(made, budget),
            "acs": lambda: bac.adaptive_schedule(made, budget, num_bubbled=0),
            "bac": lambda: bac.adaptive_schedule(made, budget, num_bubbled=min(5, num_blocks)),
            "bac_all": lambda: bac.adaptive_schedule(made, budget, num_bubbled=num_blocks),
            "matched": lambda: matched_schedule(made, budget, order=0 if estimator == "hold" else 1),
            "global_budget": lambda: global_budget_schedule(made, budget),
            "outcome": lambda: outcome_schedule(made, self._cost(estimator), budget, estimator=estimator),
            "outcome_worst": lambda: outcome_schedule(
                made, self._cost(estimator), budget, estimator=estimator, objective="worst"
            ),
        }
        if scheduler not in schedulers:
            raise ValueError(f"scheduler: must be one of {', '.join(schedulers)}, got {scheduler!r}")
        return schedulers[scheduler]()

    def _fitted(self, estimator: str, schedule: bac.Schedule) -> Estimator:
        with applied(self.bench.policy, self._dense) as policy:
            features = (record_features(policy, batch, seed=index) for index, batch in enumerate(self._batches))
            return FITTED[estimator].fit(schedule, features)

    def _cost(self, estimator: str) -> Any:
        if estimator not in self._costs:
            edges = edge_grid(self.product.num_steps, self.bench.preset.edge_starts)
            with applied(self.bench.policy, self._dense) as policy:
                costs = edge_costs(policy, self._batches[0], edges, estimator=named(estimator))
            self._costs[estimator] = fill(edges, costs, self.product.num_steps)
        return self._costs[estimator]

    def _searched(self, method: Method, estimator: str) -> Method:
        names = self.calibration.block_names

        def schedule(steps: tuple[int, ...]) -> bac.Schedule:
            return bac.Schedule(self.product.num_steps, dict.fromkeys(names, steps), self.calibration.fingerprint)

        def error(steps: tuple[int, ...]) -> float:
            return self.bench.error(self._method("search", schedule(steps), estimator), "calibration")

        start = method.schedule.update_steps[names[0]]
        steps, _ = coordinate_search(start, self.product.num_steps, error, max_evaluations=self.bench.preset.search)
        return self._method("outcome, searched", schedule(steps), estimator)


def visited(loaded: Any, make_env: Callable[[], Any], first_seed: int, count: int) -> Batch:
    """Preprocessed observations that the policy visits with a fast solver, `[count, To, D]` each."""
    seen: list[Batch] = []
    pool = EnvPool(make_env)
    seeds = range(first_seed, first_seed + max(POOL, count // 4))
    try:
        with running(loaded.policy, VISIT, None):
            for _ in play(loaded, pool, seeds, pool_size=POOL, observe=seen.append):
                pass
    finally:
        pool.close()
    all_of = {key: torch.cat([batch[key] for batch in seen]) for key in seen[0]}
    rows = torch.linspace(0, len(next(iter(all_of.values()))) - 1, count).round().long()
    return {key: values[rows].clone() for key, values in all_of.items()}


def latencies(policy: Any, methods: list[Method], batch: Batch, *, executor: str, rounds: int) -> list[float]:
    """Median of every method's latency at batch 1, interleaved [ms]."""
    one = {key: values[:1] for key, values in batch.items()}
    calls = {}
    for method in methods:
        own = copy.deepcopy(policy)
        own.reset()
        apply(own, method, executor=executor)
        calls[method.title] = _caller(own, one)
    warmup = 3 if executor == "replay" else int(rounds > 2)  # a replay records and checks its plan in its first calls
    measured = measure(calls, rounds=rounds, warmup=warmup, progress=False)
    return [measured[method.title].p50_ms for method in methods]


def _caller(policy: Any, batch: Batch) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    return lambda: policy.predict_action_chunk(batch, generator=generator)


def rows_of(loaded: Any, preset: Any, make_env: Callable[[], Any], *, executor: str = "interpret") -> list[Row]:
    """Make, run and time every method of a preset."""
    calibration = visited(loaded, make_env, CALIBRATION_SEED, preset.num_calibration)
    observations = visited(loaded, make_env, FIDELITY_SEED, preset.num_observations)
    bench = Workbench(loaded, preset, calibration, observations)
    methods, errors = {}, {}
    for method in bench.methods():
        if method.title not in methods:
            methods[method.title], errors[method.title] = method, bench.error(method)
            logger.info("%-60s action error %.4f", method.title, errors[method.title])
    chosen = list(methods.values())
    times = latencies(loaded.policy, chosen, observations, executor=executor, rounds=preset.rounds)
    return [
        Row(
            method.scheduler,
            method.estimator.name if method.estimator else NONE,
            method.solver,
            method.num_steps,
            round(method.schedule.num_sweeps if method.schedule else float(method.num_steps), 3),
            round(latency, 3),
            errors[method.title],
        )
        for method, latency in zip(chosen, times, strict=True)
    ]


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="fidelity")
def main(config: Any) -> None:
    """Measure a preset, print its table and write its rows."""
    log_to_terminal()
    torch.set_num_threads(1)
    env = dict(config.env)
    loaded = policies.load(policies.CHECKPOINTS.get(config.checkpoint, config.checkpoint))
    rows = rows_of(
        loaded,
        config.presets[config.preset],
        lambda: envs.make(env["name"], **env_options(env)),
        executor=config.executor,
    )
    for row in sorted(rows, key=lambda row: (row.solver == "DDPM", row.sweeps, row.action_error)):
        name = f"{row.scheduler}, {row.estimator}, {row.solver}-{row.num_steps}"
        print(f"{name:48} {row.sweeps:6.1f} sweeps {row.latency_p50_ms:8.1f} ms {row.action_error:8.4f}")
    if config.output:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        Path(config.output).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
