"""The tables and the pictures of few steps on one flow-matching policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from bac.files import write_text
from eval.experiments.flow.rows import GROUPS
from eval.report.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, picture
from eval.setup.files import write_json
from eval.setup.provenance import provenance

COLOURS = dict(zip(GROUPS, (GREY, BLUE, PINK, GREEN, ORANGE, BLACK), strict=True))
Row = Mapping[str, Any]
DISTANCES = {  # name, from a row
    "energy distance": lambda row: row["energy"][0],
    "error to the flow, rms": lambda row: row["to_flow"][0],
    "error to the flow, typical": lambda row: row["to_flow"][1],
    "error to its own ten steps, rms": lambda row: row["to_own"][0],
    "error to its own ten steps, typical": lambda row: row["to_own"][1],
}


def publish(
    folder: Path,
    name: str,
    table: Sequence[Row],
    changed: Mapping[str, Mapping[str, Any]],
    costs: Mapping[str, Sequence[float]],
    latencies: Mapping[str, Mapping[str, float]],
    paired: Sequence[Row] = (),
) -> None:
    """Write ``table.json``, ``table.md``, ``changed.md``, two pictures and ``provenance.json`` of one policy."""
    evidence = {"rows": list(table), "changed": dict(changed), "costs": dict(costs), "latencies_ms": dict(latencies)}
    evidence |= {"paired": list(paired), "rank_correlation": correlations(table)}
    write_json(folder / "table.json", evidence)
    write_json(folder / "provenance.json", provenance())
    lines = [*markdown(table), "", *_paired(paired), "", *_correlations(table)]
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    write_text(folder / "changed.md", "\n".join(changed_markdown(changed)) + "\n")
    draw(folder / "steps.png", name, table)


def markdown(table: Sequence[Row]) -> list[str]:
    """The table, in the order of steps: errors to both references, then success where episodes were played."""
    lines = [
        "| way | steps | times | error to the flow, rms / typical | to its own ten steps | spread | latency [ms] "
        "| n | success | score | minus itself [95 %] |",
        "|---|---:|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in sorted(table, key=lambda row: row["steps"]):
        times = " ".join(f"{time:g}" for time in row["times"]) or "even"
        latency = "" if row["latency"] is None else f"{row['latency']['p50_ms']:.2f}"
        errors = " | ".join(f"{row[name][0]:.4f} / {row[name][1]:.4f}" for name in ("to_flow", "to_own"))
        spread = f"{row['spread']:.2f}" if "spread" in row else ""
        lines.append(f"| {row['name']} | {row['steps']} | {times} | {errors} | {spread} | {latency} | {_played(row)} |")
    return lines


def _played(row: Row) -> str:
    if "n" not in row:
        return "| | | "
    value, low, high = row["difference"]
    lost = "" if row["name"] == "Euler-10" else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{row['n']} | {row['success'][0]:.3f} | {row['score'][0]:.3f} | {lost}"


def _paired(paired: Sequence[Row]) -> list[str]:
    lines = ["| first | minus second | n | difference [95 %] |", "|---|---|---:|---|"]
    for row in paired:
        value, low, high = row["difference"]
        lines.append(f"| {row['first']} | {row['second']} | {row['n']} | {value:+.3f} [{low:+.3f}, {high:+.3f}] |")
    return lines


def correlations(table: Sequence[Row]) -> dict[str, float]:
    """Spearman's rank correlation of each distance with the loss, over the played rows but the policy's own.

    Empty if all lose the same, or fewer than three rows were played: then there are no ranks.
    """
    rows = [row for row in table if "n" in row and row["name"] != "Euler-10"]
    loss = [-row["difference"][0] for row in rows]
    if len(rows) < 3 or len(set(loss)) == 1:
        return {}
    return {
        name: float(spearmanr([distance(row) for row in rows], loss).statistic) for name, distance in DISTANCES.items()
    }


def _correlations(table: Sequence[Row]) -> list[str]:
    rows = len([row for row in table if "n" in row]) - 1
    if not (found := correlations(table)):
        return [f"Rank correlation with the loss: none, the {rows} rows played do not differ in it."]
    parts = (f"{name} {value:.2f}" for name, value in found.items())
    return [f"Rank correlation with the loss over {rows} rows: {', '.join(parts)}"]


def changed_markdown(changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Errors to the policy's own ten steps where observations or noise differ from what was fitted on."""
    kinds = list(next(iter(changed.values())))
    lines = [f"| rms / largest, to its own ten steps | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for name, found in changed.items():
        cells = (f"{found[kind]['to_own'][0]:.4f} / {found[kind]['to_own'][2]:.3f}" for kind in kinds)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw(path: Path, name: str, table: Sequence[Row]) -> None:
    """Draw the error to the flow, and success or score less the policy's own, against the number of steps."""
    with picture(path, 1, 2, figsize=(10.4, 4.6)) as (_, grid):
        errors, loss = grid[0]
        itself = next(row for row in table if row["name"] == "Euler-10")
        errors.axhline(itself["to_flow"][1], color=GREY, lw=0.8, ls=":")
        errors.text(1, itself["to_flow"][1], " its own ten steps", va="bottom", fontsize=7, color="#555555")
        loss.axhline(0, color=GREY, lw=0.8, ls=":")
        for place, group in enumerate(GROUPS):
            shift = 0.05 * (place - 2)  # or the bars would hide each other
            rows = [r for r in table if r["group"] == group and r["steps"] <= 6 and "obs" not in r["name"]]
            rows.sort(key=lambda row: row["steps"])
            points = [row["steps"] for row in rows], [row["to_flow"][1] for row in rows]
            errors.plot(*points, "o-", ms=3.5, lw=0.9, color=COLOURS[group], label=group)
            for row in (row for row in rows if "n" in row):
                value, low, high = row["difference"]
                bars = [[value - low], [high - value]]
                loss.errorbar(row["steps"] + shift, value, bars, fmt="o", ms=4, color=COLOURS[group], elinewidth=0.7)
        errors.set(yscale="log", xlabel="steps", ylabel="action error to the flow, typical")
        loss.set(xlabel="steps", ylabel="minus its own ten steps")
        loss.set_xticks(range(1, 5))
        errors.set_title(name)
        errors.legend(fontsize=7, frameon=False)
