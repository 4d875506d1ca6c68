"""Success where the world goes on while a chunk is computed, by the control steps that this takes.

What is played depends on that number alone. A latency and a control rate on any machine give it, so one curve answers
for all machines.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from eval.compared.many_tasks import ManyTasks
from eval.measure.closed_loop import closed_loop
from eval.play.pictures import predict_from_pictures
from eval.play.realtime import LiveSeat, Pace, hold_of, think_steps
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult, take_turns
from eval.setup.cells import Cell, running
from eval.setup.keys import comparison_key


class Late:
    """The episodes of some ways at some delays, kept on disk.

    Args:
        many: Policy and tasks.
        cells: All ways.
        options: `vla.late` of ``configs/eval.yaml``.

    Raises:
        ValueError: A way is none of `cells`, or there are fewer seeds than episodes.
    """

    def __init__(self, many: ManyTasks, cells: Sequence[Cell], options: Any) -> None:
        self.many, self.options = many, options
        named = {cell.name: cell for cell in cells}
        if unknown := [name for name in options.ways if name not in named]:
            raise ValueError(
                f"vla.late.ways: {', '.join(unknown)}: no such way here. Known: {', '.join(named)}; "
                f"type vla.late.ways=[{cells[0].name}], for example"
            )
        if options.n > many.settings.n:
            raise ValueError(
                f"vla.late.n: must be at most n={many.settings.n}, whose seeds it plays, got {options.n}; "
                f"type n={options.n}"
            )
        self.cells = [named[name] for name in options.ways]
        self.log: EpisodeLog[EpisodeResult] = EpisodeLog(many.folder / "late.jsonl")

    def play(self) -> None:
        """Play the missing episodes, all ways and delays of one task before the next task."""
        seeds, delays = self.many.settings.seeds[: self.options.n], self.options.delays
        total = len(self.cells) * len(delays) * len(self.many.worlds) * len(seeds)
        with tqdm(total=total, desc="late", unit="episode", disable=not self.many.settings.progress) as bar:
            for task, settings in self.many.worlds.items():
                pool = EnvPool(settings.make_env)
                for cell in self.cells:
                    for delay in delays:
                        key = self._key(cell, task, delay)
                        missing = [seed for seed in seeds if seed not in self.log.episodes(key)]
                        bar.update(len(seeds) - len(missing))
                        for result in self._episodes(pool, cell, missing, delay):
                            self.log.add(key, result)
                            bar.update()
                pool.close()

    def table(self) -> list[dict[str, Any]]:
        """One row for each way and delay, with the difference to the same way where nothing is late."""
        rows = []
        for cell in self.cells:
            first = self._results(cell, self.options.delays[0])
            for delay in self.options.delays:
                found = closed_loop(first, self._results(cell, delay), by_score=False)
                rows.append({"name": cell.name, "delay": delay, "all": found})
        return rows

    def _results(self, cell: Cell, delay: int) -> list[EpisodeResult]:
        seeds = self.many.settings.seeds[: self.options.n]
        found = (self.log.episodes(self._key(cell, task, delay)) for task in self.many.worlds)
        return [episodes[seed] for episodes in found for seed in seeds]

    def _episodes(self, pool: EnvPool, cell: Cell, seeds: list[int], delay: int) -> Iterator[EpisodeResult]:
        many, policy = self.many, self.many.loaded.policy
        options = (1, Pace((delay,)), hold_of(many.settings.env), policy.config.n_action_steps)
        seats = [LiveSeat(pool[i], *options) for i in range(min(many.settings.pool_size, len(seeds)))]
        with running(policy, cell):
            policy.reset()
            predict = partial(predict_from_pictures, whole=True)
            yield from take_turns(many.loaded, seats, seeds, LiveSeat.live, predict=predict)

    def _key(self, cell: Cell, task: str, delay: int) -> str:
        return comparison_key(self.many.worlds[task].identity, cell.describe(), {"delay": delay})


def by_rate(
    late: Sequence[Mapping[str, Any]], latencies: Sequence[Mapping[str, Any]], control_hz: Sequence[float]
) -> list[dict[str, Any]]:
    """Success by control rate on each machine, read off the delay that a latency makes.

    Args:
        late: Rows of `Late.table`.
        latencies: ``machine``, ``way`` (a name in `late`) and ``ms``, the latency of a chunk [ms].
        control_hz: Control rates [Hz].

    Returns:
        `latencies`, each with ``rates``: of every rate the delay, the least played delay that is as long, and the
        success there with its interval; None where so long a delay was not played.
    """
    played = {(row["name"], row["delay"]): row["all"]["success"] for row in late}

    def at(way: str, ms: float, rate: float) -> dict[str, Any]:
        delay = think_steps(ms / 1e3, rate)
        read_at = min((d for name, d in played if name == way and d >= delay), default=None)
        success = None if read_at is None else played[way, read_at]
        return {"control_hz": rate, "delay": delay, "read_at": read_at, "success": success}

    return [{**row, "rates": [at(row["way"], row["ms"], rate) for rate in control_hz]} for row in latencies]
