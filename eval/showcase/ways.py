"""The eight ways of the demo, and how they are measured: alone, in lock-step, and in a world that does not wait."""

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

import bac
from eval.compared.comparison import Comparison
from eval.compared.matching import SpacingChooser, measure_cells
from eval.measure.latency import Latency, steps_within
from eval.play.realtime import Pace
from eval.play.rollout import EpisodeResult
from eval.play.workers import Unit, play_units, updates_of
from eval.setup.batches import Batch, one_of
from eval.setup.cells import Cell, adaptive, dense, together
from eval.setup.files import write_json
from eval.setup.keys import comparison_key

PUBLISHED, GENEROUS = (10, 5), (20, 5)  # BAC's S and n: as in the paper, and with twice the updates
FEW, PROBE = 4, 24  # steps of the rival of fitted steps; steps to see what a step costs
EAGER = "dense, as LeRobot runs it"


@dataclass(frozen=True)
class Way:
    """One line of the table.

    Attributes:
        title: What a reader is told.
        cell: The way to run the policy.
        latency: Time of a chunk.
        is_ours: `bac` puts it on; else it is a rival, or the policy itself.
    """

    title: str
    cell: Cell
    latency: Latency
    is_ours: bool = True

    @property
    def hz(self) -> float:
        """Chunks per second at the median [Hz]."""
        return 1e3 / self.latency.p50_ms


class Showcase:
    """One policy, run in eight ways. Every part is kept on disk, and computed only where it is missing.

    Args:
        comparison: Policy and world; its `tuned` names the file that `bac tune` wrote.
        num_late: Episodes of each way in the world that does not wait.
    """

    def __init__(self, comparison: Comparison, num_late: int) -> None:
        self.comparison, self.num_late = comparison, num_late

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """The eight ways, the policy as it is first. Their latencies are of the same interleaved rounds."""
        path = self.comparison.settings.folder / "showcase.json"
        if not path.exists():
            write_json(path, self._measured())
        stored = json.loads(path.read_text())
        return tuple(
            Way(way["title"], Cell.from_document(way["cell"]), Latency(**way["latency"]), way["is_ours"])
            for way in stored
        )

    @property
    def recommended(self) -> Way:
        """The way that `bac tune` found."""
        (tuned,) = self.comparison.tuned_cells
        return next(way for way in self.ways if way.cell.describe() == tuned.describe())

    def play(self) -> None:
        """Play the missing episodes, those of the fastest ways first: in lock-step, then in real time."""
        settings = self.comparison.settings
        seeds = tuple(settings.seeds)
        waiting = {way.cell.name: self.comparison.unit(way.cell, seeds) for way in self.ways}
        play_units(settings, list(waiting.values()), self.comparison.log, shortest_first=True, title="world that waits")
        late = [self._late_unit(way, seeds[: self.num_late]) for way in self.ways]
        play_units(settings.realtime, late, self.comparison.log, shortest_first=True, title="world that does not")

    def lock_step(self, way: Way) -> list[EpisodeResult]:
        """Episodes of a way in the world that waits, in order of seed."""
        return self.comparison.results(way.cell)

    def real_time(self, way: Way) -> list[EpisodeResult]:
        """Episodes of a way in the world that does not wait, in order of seed."""
        episodes = self.comparison.log.episodes(self._late_unit(way, ()).key)
        return [episodes[seed] for seed in self.comparison.settings.seeds if seed in episodes]

    def pace(self, way: Way) -> Pace:
        """Control steps that pass while the way computes a chunk; the robot acts meanwhile."""
        return Pace.of([way.latency.p50_ms], self.comparison.control_hz, "act")

    def _late_unit(self, way: Way, seeds: tuple[int, ...]) -> Unit:
        denoising, pace = self.comparison.denoising(way.cell), self.pace(way)
        parts = {"updates": updates_of(denoising), "pace": asdict(pace)}
        key = comparison_key(self.comparison.settings.realtime.identity, way.cell.describe(), parts)
        return Unit(key, way.cell, denoising, seeds, pace=pace)

    def _measured(self) -> list[dict[str, Any]]:
        """Choose the rivals, time all ways in turns, and describe them."""
        comparison = self.comparison
        (tuned,), published, generous = comparison.tuned_cells, adaptive(*PUBLISHED), adaptive(*GENEROUS)
        shared = together("unified", round(comparison.sweeps(published)))
        rival, even = self._rivals(published)
        titled = {
            "dense, replayed": (dense(), True),
            "BAC as in the paper (S=10, n=5)": (published, True),
            "BAC, S=20, n=5": (generous, True),
            f"cache shared by all blocks, {shared.num_updates} updates": (shared, True),
            f"rival: {rival.name}, as slow as BAC": (rival, False),
            f"rival: {even.name}": (even, False),
            f"{tuned.name}, from bac tune": (tuned, True),
        }
        found = self._timed([cell for cell, _ in titled.values()])
        rows = [(EAGER, dense(), found.eager, False)]
        rows += [(title, cell, found.cells[cell], ours) for title, (cell, ours) in titled.items()]
        return [
            {"title": title, "cell": cell.to_document(), "latency": latency.to_dict(), "is_ours": ours}
            for title, cell, latency, ours in rows
        ]

    def _rivals(self, published: Cell) -> tuple[Cell, Cell]:
        """DDIM with as many steps as BAC's latency buys, and with four; each in its best timestep spacing."""
        few, probe = dense(FEW, "DDIM"), dense(PROBE, "DDIM")
        took = {cell: latency.p50_ms for cell, latency in self._timed([published, few, probe]).cells.items()}
        bought = steps_within(took[published], (FEW, took[few]), (PROBE, took[probe]))
        choose = SpacingChooser(
            self.comparison.loaded.policy,
            self.comparison.calibrated.observations("calibration"),
            num_draws=self.comparison.settings.num_spacing_draws,
        )
        return choose("DDIM", bought), choose("DDIM", FEW)

    def _timed(self, cells: Sequence[Cell]) -> Any:
        ways = {cell: self.comparison.denoising(cell) for cell in cells}
        options = {"rounds": self.comparison.settings.latency_rounds, "progress": self.comparison.settings.progress}
        return measure_cells(self.comparison.loaded, ways, self._one, replay=True, **options)

    @property
    def _one(self) -> Batch:
        return one_of(self.comparison.calibrated.observations("calibration"))


def replay_alone(comparison: Comparison, batch: Batch, *, chunks: int = 3) -> tuple[float, float]:
    """Record a chunk, and compare replayed chunks with untouched ones on the same noise.

    Args:
        comparison: The policy.
        batch: One observation, preprocessed.
        chunks: Chunks to compare and to time of each.

    Returns:
        Median latency of an untouched and of a replayed chunk [ms].

    Raises:
        RuntimeError: An action differs by a bit.
    """
    untouched = comparison.loaded.policy
    replayed = bac.wrap(copy.deepcopy(untouched), replay=bac.Replay(record="first"))
    took: dict[str, list[float]] = {"untouched": [], "replayed": []}
    with torch.inference_mode():
        replayed.predict_action_chunk(batch, generator=torch.Generator())  # records
        for seed in range(chunks):
            made = [
                _timed_chunk(policy, batch, seed, took[name])
                for name, policy in zip(took, (untouched, replayed), strict=True)
            ]
            if not torch.equal(*made):
                raise RuntimeError("replay: an action differs from the untouched policy's; please report this")
    return tuple(sorted(times)[len(times) // 2] for times in took.values())


def _timed_chunk(policy: Any, batch: Batch, seed: int, times: list[float]) -> torch.Tensor:
    started = time.perf_counter()
    chunk = policy.predict_action_chunk(batch, generator=torch.Generator().manual_seed(seed))
    times.append(1e3 * (time.perf_counter() - started))
    return chunk
