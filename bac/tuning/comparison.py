"""A comparison of ways to denoise: every episode and every latency, as a table, a file and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac.errors import ScheduleError
from bac.files import one_sentence, part, read_json, write_json
from bac.tuning import comparison_report, success_plot
from bac.tuning.bench import Quantiles
from bac.tuning.standings import Contender, Standings

FORMAT, VERSION = "bac.compared", 1
_MAKE = "bac compare --policy-path CKPT --env ENV"


@dataclass(frozen=True)
class Comparison(Standings):
    """Ways to denoise beside the policy itself, on the same episodes. It prints as a table.

    Attributes:
        facts: What was asked for, and where: policy, env, command, device, ...
    """

    facts: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return comparison_report.text(self)

    def to_document(self) -> dict[str, Any]:
        """The document that `save` writes, latencies in seconds."""
        rows = [
            {
                "name": way.name,
                "evaluations": way.evaluations,
                "steps_of": way.steps_of,
                "as_many": way.as_many,
                "p50_s": way.latency.p50_s,
                "p95_s": way.latency.p95_s,
                "results": list(way.results),
            }
            for way in self.contenders
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            **(self.facts or {}),
            "quantity": self.quantity,
            "margin": self.margin,
            "by_pytorch": {"p50_s": self.by_pytorch.p50_s, "p95_s": self.by_pytorch.p95_s},
            "rows": rows,
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON, every episode's result included."""
        write_json(path, self.to_document())

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Inverse of `save`.

        Raises:
            FileError: The file cannot be read, or holds something else.
        """
        document = read_json(path, make=_MAKE)
        with one_sentence(path, make=_MAKE):
            if (document.get("format"), document.get("version")) != (FORMAT, VERSION):
                raise ScheduleError(f"is no table of bac compare, version {VERSION}")
            rows = part(document, "rows", lambda given: tuple(map(_read_row, given)))
            by_pytorch = part(document, "by_pytorch", _read_latency)
            quantity, margin = part(document, "quantity", str), part(document, "margin", float)
            _check(rows, quantity, margin)
        known = {"format", "version", "rows", "by_pytorch", "quantity", "margin"}
        return cls(rows, by_pytorch, quantity, margin, {key: document[key] for key in document.keys() - known})

    def plot(self, path: str | Path) -> None:
        """Draw success, or score, against chunks per second.

        Raises:
            BacError: matplotlib is not installed.
        """
        itself = self.contenders[0]
        points = [
            success_plot.Point(way.name, way.latency.p50_s, self.mean(way), way.steps_of) for way in self.contenders
        ]
        pytorch = success_plot.Point("the same by PyTorch", self.by_pytorch.p50_s, self.mean(itself))
        success_plot.draw(path, [points[0], pytorch, *points[1:]], self.quantity, self.num_episodes)


def _read_row(row: Mapping[str, Any]) -> Contender:
    results = tuple(float(result) for result in row["results"])
    evaluations = None if row["evaluations"] is None else int(row["evaluations"])
    words, count = (str(row["name"]), str(row["steps_of"])), int(row["as_many"])
    return Contender(words[0], evaluations, words[1], count, _read_latency(row), results)


def _read_latency(given: Mapping[str, Any]) -> Quantiles:
    p50_s, p95_s = float(given["p50_s"]), float(given["p95_s"])
    if not (0 < p50_s < math.inf and 0 < p95_s < math.inf):
        raise ScheduleError(f"latencies: must be positive numbers, got {p50_s:g} and {p95_s:g}")
    return Quantiles(p50_s, p95_s)


def _check(rows: Sequence[Contender], quantity: str, margin: float) -> None:
    if not rows or len({len(row.results) for row in rows}) != 1 or not rows[0].results:
        raise ScheduleError("rows: must be at least one, with the same number of results each")
    if not all(0 <= result <= 1 for row in rows for result in row.results):
        raise ScheduleError("results: must be in [0, 1]")
    if quantity not in ("success", "score") or not 0 < margin < 1:
        raise ScheduleError(f"quantity and margin: must be success or score, and in (0, 1), got {quantity}, {margin:g}")
