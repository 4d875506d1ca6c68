"""The report of the latency experiment: JSON for programs, a table and a figure for readers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bac.files import drafted, write_text
from eval.experiments.latency.ways import Way
from eval.measure.latency import Latency
from eval.setup.files import write_json
from eval.setup.provenance import command_line

Record = Mapping[str, Any]


def table(ways: Mapping[str, Way], latencies: Mapping[str, Latency]) -> Iterator[str]:
    """Yield the table's lines. `limit` is the speed-up over dense replayed as a share of the FLOPs ratio.

    *operators* are what a replay dispatches, a compiled piece counting as one; *kernels* are what it launches, those in
    compiled pieces included; *built* is the time from the first recording to the last check, the compiler's included.
    """
    titles = f"{'p50 ms':>8} {'p95 ms':>8} {'x eager':>8} {'FLOPs':>6} {'limit':>6}"
    yield f"{'':24} {titles} {'operators':>10} {'kernels':>8} {'built s':>8}"
    replayed = latencies["dense_replay"].p50_ms
    for name, latency in latencies.items():
        way = ways[name]
        share = replayed / latency.p50_ms / way.flops_ratio
        plan = f"{way.plan.num_operations:10,} {way.plan.num_kernels:8,} {way.plan.build_s:8.1f}" if way.plan else ""
        yield (
            f"{name:24} {latency.p50_ms:8.1f} {latency.p95_ms:8.1f} {latency.speedup:8.2f} {way.flops_ratio:6.2f} "
            f"{share:6.0%} {plan}".rstrip()
        )


def write(records: Sequence[Record], path: Path, *, figure: bool) -> None:
    """Write the JSON, a table (.md) and, if asked for, a figure (.png) beside it."""
    write_json(path, records[0] if len(records) == 1 else {"settings": records})
    write_text(path.with_suffix(".md"), markdown(records))
    if figure:
        draw(records, path.with_suffix(".png"))


def markdown(records: Sequence[Record]) -> str:
    """The Markdown report: the command, then machine, settings and table of every record."""
    parts = [f"Made by `{command_line()}`.\n"]
    for record in records:
        parts.append(_about(record))
        parts.append("```\n" + "\n".join(record["table"]) + "\n```\n")
    return "\n".join(parts)


def _about(record: Record) -> str:
    setting, machine, first = record["setting"], record["machine"], next(iter(record["rows"].values()))
    return (
        f"{machine['device']}, torch {machine['torch']}, {machine['threads']} thread, {setting['dtype']}, batch "
        f"{setting['batch_size']}, DP-T {setting['layers']} x {setting['width']}, K = {setting['num_steps']}, "
        f"BAC S = {setting['num_updates']}, n = {setting['num_bubbled']} on random weights; exact replay is "
        f"{'' if record['exact_bit_equal'] else 'not '}bit-equal to the interpreter, re-associated within "
        f"{record['fast_max_error']:.1e} of it; samples: {first['num_samples']}, clock: {first['clock']}.\n"
    )


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw medians as bars with 95th percentiles, one panel per setting."""
    from matplotlib.figure import Figure  # importing takes seconds, and quick runs draw nothing

    figure = Figure(figsize=(8, 0.4 + 0.32 * sum(len(record["rows"]) for record in records)), layout="constrained")
    for axes, record in zip(figure.subplots(len(records), squeeze=False)[:, 0], records, strict=True):
        _draw_bars(axes, record["rows"])
        setting = record["setting"]
        size = f"DP-T {setting['layers']} x {setting['width']}, K = {setting['num_steps']}"
        axes.set_title(f"{size}; x: over eager dense")
        where = f"batch {setting['batch_size']}, {setting['dtype']}, {setting['device']}"
        axes.set_xlabel(f"latency p50, to p95 [ms]: {where}")
    with drafted(path) as draft:
        figure.savefig(draft, dpi=110)


def _draw_bars(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    spread = [row["p95_ms"] - row["p50_ms"] for row in rows.values()]
    medians, colours = [row["p50_ms"] for row in rows.values()], [_colour(name) for name in rows]
    axes.barh(list(rows), medians, color=colours, xerr=[[0] * len(rows), spread])
    for place, row in enumerate(rows.values()):
        axes.text(row["p95_ms"], place, f"  {row['speedup']:.1f}x", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(right=2 * max(row["p95_ms"] for row in rows.values()))
    axes.invert_yaxis()


def _colour(name: str) -> str:
    if "ddim" in name:
        return "C1"
    return "C0" if "replay" in name or name == "interpret" else "0.6"
