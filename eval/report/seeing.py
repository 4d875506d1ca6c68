"""The README's table of policies that see and read, from their committed tables: ``python -m eval.report.seeing``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report.summary import RESULTS, short

HEAD = (
    "policy and task",
    "as it is [95 %]",
    "two own steps",
    "two fitted steps",
    "BAC",
    "x: replayed, two own, fitted, BAC",
)


@dataclass(frozen=True)
class Way:
    """One way of a table: success, paired difference to the policy as it is, and speed.

    Attributes:
        success: Rate, low and high end of its 95 % interval.
        difference: Likewise.
        speedup: Over the policy by PyTorch, replayed.
        n: Episodes.
    """

    success: Sequence[float]
    difference: Sequence[float]
    speedup: float
    n: int


@dataclass(frozen=True)
class Policy:
    """A line of the table.

    Attributes:
        title: Policy and task.
        folder: Folder of its table, in `results`.
        own: Name of its row, the policy as it is.
        others: Names of the rows of two own steps, two fitted ones and BAC; None is a dash.
    """

    title: str
    folder: str
    own: str = "Euler-10"
    others: tuple[str | None, ...] = ("Euler-2", "fitted-2", "BAC S=5 n=2")


POLICIES = (
    Policy("SmolVLA, ten MetaWorld tasks told in words", "vla/metaworld-ten"),
    Policy("the same, its two most precise tasks", "vla/two-precise-tasks/metaworld-ten"),
    Policy("pi0, pick and place with SO-101, two cameras", "vla/so101-pixels"),
    Policy("Multi-Task DiT by flow matching, the same task", "vla/so101-dit"),
    Policy(
        "Multi-Task DiT by DDPM, 100 steps, the same task",
        "so101-dit-ddpm",
        "DDPM-100",
        ("DPM-Solver++-2 leading", None, "BAC S=10 n=5"),
    ),
    Policy(
        "Diffusion Policy's U-Net by DDPM, 100 steps, the same task",
        "so101-unet",
        "DDPM-100",
        ("DPM-Solver++-2 leading", None, "BAC S=10 n=5"),
    ),
)


def ways_of(table: Any) -> dict[str, Way]:
    """The ways of a ``table.json`` by name, of `eval.compare` or of `eval.experiments.vla`."""
    if isinstance(table, Mapping):
        eager = table["eager"]["p50_ms"]
        return {
            row["name"]: Way(
                row["all"]["success"], row["all"]["difference"], eager / row["latency"]["p50_ms"], row["all"]["n"]
            )
            for row in table["rows"]
        }
    return {
        row["name"]: Way(
            [row["success"], row["success_low"], row["success_high"]],
            [row["paired_diff"], row["paired_low"], row["paired_high"]],
            row["speedup"],
            row["n"],
        )
        for row in table
    }


def lines(tables: Mapping[str, Any]) -> Iterator[str]:
    """The table in Markdown.

    Args:
        tables: ``table.json`` of each of `POLICIES`, by folder.

    Raises:
        KeyError: A table lacks a way.
    """
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---" * len(HEAD) + "|"
    for policy in POLICIES:
        found = ways_of(tables[policy.folder])
        own, others = found[policy.own], [None if name is None else found[name] for name in policy.others]
        success = "{} [{}, {}], n = {}".format(*map(short, own.success), own.n)
        speeds = ", ".join("-" if way is None else f"{way.speedup:.1f}" for way in (own, *others))
        yield "| " + " | ".join([policy.title, success, *map(_difference, others), speeds]) + " |"


def load(results: Path = RESULTS) -> dict[str, Any]:
    """Read every policy's table."""
    return {policy.folder: json.loads((results / policy.folder / "table.json").read_text()) for policy in POLICIES}


def _difference(way: Way | None) -> str:
    if way is None:
        return "-"
    value, low, high = (f"{number:+.3f}".replace("0.", ".") for number in way.difference)
    shown = f"{value} [{low}, {high}]"
    return shown if way.difference[1] <= 0 <= way.difference[2] else f"**{shown}**"


if __name__ == "__main__":
    print("\n".join(lines(load())))
