"""Compares ways to be faster on one policy of many tasks: what each costs, what it changes, and what it loses."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from bac.certificate import file_hash
from bac.control import jerk_of
from eval.compared.many_tasks import ManyTasks
from eval.experiments.flow.rows import EVEN, own
from eval.experiments.vla.measures import errors, evaluations, latencies, spreads
from eval.experiments.vla.ways import ways
from eval.measure.closed_loop import closed_loop
from eval.play.metered import MeteredResult
from eval.setup.batches import Batch
from eval.setup.cells import Cell
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.settings import CALIBRATION_SEED, FIDELITY_SEED, Settings

DECIDES = ("own", "fitted", "fitted_to_own", "bac", "caches", "num_fit")  # options that make other ways


class Experiment:
    """The ways and their measurements. Each is kept on disk, and found only where it is missing.

    Args:
        settings: Policy, world, seeds and folder; the task is replaced.
        options: `vla` of ``configs/eval.yaml``.
    """

    def __init__(self, settings: Settings, options: Any) -> None:
        self.options = options
        self.many = ManyTasks(settings, options.tasks or [settings.task], options.pixels)
        self._policy = self.many.loaded.policy

    @cached_property
    def cells(self) -> list[Cell]:
        """Every way; the policy itself first. What was fitted is kept, since episodes are found by what was played.

        Raises:
            ValueError: Two ways have the same name.
        """
        decides = {name: _plain(self.options[name]) for name in DECIDES}
        decides["files"] = [file_hash(file) for file in self.options.files]
        path = self.many.folder / f"cells-{comparison_key({'tasks': list(self.many.worlds), **decides})}.json"
        if not path.exists():
            found = ways(self._policy, self.options, lambda: self._observations(CALIBRATION_SEED))
            bar = tqdm(found, "fit", unit="way", disable=not self.many.settings.progress)
            write_json(path, [cell.to_document() for cell in _apart(bar)])
        return [Cell.from_document(document) for document in json.loads(path.read_text())]

    def play(self) -> None:
        """Play the missing episodes of every way."""
        self.many.play(self.cells, self.options.only or ())

    def errors(self) -> dict[str, list[float]]:
        """Action errors of every way by name, on observations that nothing was fitted on; see `measures.errors`."""
        return self._kept("errors", lambda batch: errors(self._policy, self.cells, batch))

    def spreads(self) -> dict[str, float]:
        """Spread of every way by name, on the same observations; see `measures.spreads`."""
        return self._kept("spread", lambda batch: spreads(self._policy, self.cells, batch))

    def latencies_ms(self) -> dict[str, dict[str, Any]]:
        """Latency of every way by name, at batch 1; see `measures.latencies`."""
        return self._kept("latency", lambda batch: latencies(self._policy, self.cells, batch, self.options.rounds))

    def table(self) -> list[dict[str, Any]]:
        """One row for each way: success on every task and over all, the difference to the first way, and its cost.

        ``rival`` is the paired difference to the policy's own steps, as many as the way's evaluations allow.
        """
        many, first = self.many, self.cells[0]
        wrong, spread, times = self.errors(), self.spreads(), self.latencies_ms()
        rows = []
        for cell in self.cells:
            row: dict[str, Any] = {"name": cell.name, "group": cell.family, "steps": cell.steps}
            row["times"] = [] if cell.denoising is None else list(cell.denoising.timesteps)
            row |= {"evaluations": evaluations(cell), "error": wrong[cell.name], "spread": spread[cell.name]}
            row["latency"] = times[cell.name]
            row["tasks"] = {
                task: closed_loop(many.results(first, task), many.results(cell, task), by_score=False)
                for task in many.worlds
            }
            played = many.all_results(cell)
            row["all"] = closed_loop(many.all_results(first), played, by_score=False)
            row["rival"] = self._against_own(cell, row["evaluations"])
            row["jerk"] = _known(asdict(jerk_of(_summed(played, "squares"), _summed(played, "counts"))))
            rows.append(row)
        return rows

    def _against_own(self, cell: Cell, evaluations: float) -> dict[str, Any] | None:
        """The honest rival's name, and the success minus its, with its 95 % interval; None for own steps themselves."""
        fewer = [other for other in self.cells if other.family == EVEN and other.steps <= evaluations]
        if cell.family == EVEN or not fewer:
            return None
        rival = max(fewer, key=lambda other: other.steps)
        found = closed_loop(self.many.all_results(rival), self.many.all_results(cell), by_score=False)
        return {"name": rival.name, "difference": found["difference"]}

    def _observations(self, first_seed: int) -> Batch:
        return self.many.observations(first_seed, self.options.num_fit, own())

    def _kept(self, name: str, find: Callable[[Batch], dict[str, Any]]) -> dict[str, Any]:
        """What is measured of all ways on held-out observations, kept on disk for these tasks and options."""
        of = {"tasks": list(self.many.worlds), "num_fit": self.options.num_fit, "rounds": self.options.rounds}
        path = self.many.folder / f"{name}-{comparison_key(of, *(cell.describe() for cell in self.cells))}.json"
        if not path.exists():
            write_json(path, find(self._observations(FIDELITY_SEED)))
        return dict(json.loads(path.read_text()))


def _apart(cells: Iterable[Cell]) -> list[Cell]:
    """The cells, whose names must differ: what is measured is found by them."""
    found: dict[str, Cell] = {}
    for cell in cells:
        if cell.name in found:
            raise ValueError(f"vla: two ways are called {cell.name!r}; leave one of them out")
        found[cell.name] = cell
    return list(found.values())


def _summed(results: Sequence[MeteredResult], name: str) -> list[Any]:
    """The sum over episodes of a list of numbers that each has."""
    return [sum(numbers) for numbers in zip(*(getattr(result, name) for result in results), strict=True)]


def _known(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """The same numbers, with None for what is not one: chunks of two actions have no third difference inside."""
    return {name: None if math.isnan(number) else number for name, number in numbers.items()}


def _plain(option: Any) -> Any:
    return OmegaConf.to_container(option) if OmegaConf.is_config(option) else option
