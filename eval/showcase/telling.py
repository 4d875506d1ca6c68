"""Tells what the demo found: a table, a picture, a film, and one sentence of recommendation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bac.files import write_text
from eval.measure.intervals import (
    Estimate,
    mean_score,
    paired_score_difference,
    paired_success_difference,
    success_rate,
)
from eval.play.rollout import EpisodeResult
from eval.report.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, Label, picture, place_labels, plain_log_axis
from eval.report.film import film_cells
from eval.setup.provenance import provenance
from eval.showcase.ways import Showcase, Way
from eval.showcase.words import Told

LEVEL = 1.1  # times the latency of the recommended way, up to which a rival is as fast


def quality(results: Sequence[EpisodeResult], *, by_score: bool) -> Estimate:
    """The mean score, or the success rate."""
    if by_score:
        return mean_score([result.score for result in results])
    return success_rate(sum(result.success for result in results), len(results))


def difference(showcase: Showcase, way: Way) -> Estimate:
    """Success, or score, of a way less that of the policy as it is, on the same episodes of the world that waits."""
    own, mine = showcase.lock_step(showcase.ways[0]), showcase.lock_step(way)
    if showcase.comparison.settings.judged_by_score:
        return paired_score_difference([r.score for r in own], [r.score for r in mine])
    return paired_success_difference([r.success for r in own], [r.success for r in mine])


def table(showcase: Showcase) -> Iterator[tuple[str, ...]]:
    """Cells of the table, the header first."""
    by_score = showcase.comparison.settings.judged_by_score
    what, rate = "score" if by_score else "success", f"{showcase.comparison.control_hz:g} Hz"
    yield "way", f"{what}, world waits", f"{what}, world goes on at {rate}", "a chunk", "chunks/s", "faster"
    eager = showcase.ways[0].latency.p50_ms
    for way in showcase.ways:
        waits, goes_on = (
            _interval(quality(found, by_score=by_score)) for found in (showcase.lock_step(way), showcase.real_time(way))
        )
        p50 = way.latency.p50_ms
        yield way.title, waits, goes_on, f"{p50:.1f} ms", f"{way.hz:.1f}", f"{eager / p50:.1f}x"


def plain(rows: Sequence[tuple[str, ...]]) -> str:
    """The table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """The table for a page."""
    ruler = ("---", *["---:"] * (len(rows[0]) - 1))
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ruler, *rows[1:]))


def recommendation(showcase: Showcase) -> list[str]:
    """What to use and how to put it on; then the rivals that are as fast and not told apart."""
    best, own = showcase.recommended, showcase.ways[0]
    by_score = showcase.comparison.settings.judged_by_score
    what = "score" if by_score else "success"
    mine, before = (quality(showcase.lock_step(way), by_score=by_score) for way in (best, own))
    lost, times = difference(showcase, best), own.latency.p50_ms / best.latency.p50_ms
    file = showcase.comparison.settings.checkpoint / str(showcase.comparison.settings.tuned)
    lines = [
        f"Use {best.cell.name}: {what} {mine.value:.2f} against {before.value:.2f} (paired {lost.value:+.2f} "
        f"[{lost.low:+.2f}, {lost.high:+.2f}], {len(showcase.lock_step(best))} episodes), {best.latency.p50_ms:.0f} ms "
        f"against {own.latency.p50_ms:.0f} ms, {times:.0f} times faster; put it on with:",
        f'    bac.wrap(policy, bac.load("{_relative(file)}"))',
    ]
    rivals = [way for way in showcase.ways if not way.is_ours and way is not own]
    level = [
        way.cell.name
        for way in rivals
        if way.latency.p50_ms <= LEVEL * best.latency.p50_ms and difference(showcase, way).high >= 0
    ]
    if level:
        lines.append(
            f"On this task {', '.join(level)} does as well at that speed; on Push-T it loses .07 (results/README.md)."
        )
    return lines


def draw(path: Path, showcase: Showcase) -> None:
    """Draw success, or score, against chunks per second: in the world that waits, and in the one that does not."""
    by_score = showcase.comparison.settings.judged_by_score
    rate = showcase.comparison.control_hz
    worlds = {"the world waits": showcase.lock_step, f"the world goes on, {rate:g} Hz": showcase.real_time}
    with picture(path, 1, 2, figsize=(11.5, 4.6), sharey=True) as (_, grid):
        for axes, (title, found) in zip(grid[0], worlds.items(), strict=True):
            labels = []
            for way in showcase.ways:
                value, colour = quality(found(way), by_score=by_score), _colour(showcase, way)
                bars = [[value.value - value.low], [value.high - value.value]]
                axes.errorbar(way.hz, value.value, bars, fmt="o", ms=5, color=colour, elinewidth=0.8)
                labels.append(Label(way.hz, value.value, _short(way), colour, 7.5))
            plain_log_axis(axes)
            axes.set(xlabel="action chunks per second", title=title, ylim=(-0.08, 1.12))
            place_labels(axes, labels)
        grid[0, 0].set_ylabel("score" if by_score else "success")


def film(folder: Path, showcase: Showcase) -> list[Path]:
    """Film the first episode of the list: the policy itself, replayed, beside the recommended way; the robot acts."""
    filmed = (showcase.ways[1], showcase.recommended)
    latencies = {way.cell: way.latency.p50_ms / 1e3 for way in filmed}
    return film_cells(showcase.comparison, latencies, folder, mode="act")


def report(folder: Path, showcase: Showcase, told: Told) -> None:
    """Write ``report.md`` with the tables, the pictures, the films and the recommendations."""
    settings, made = showcase.comparison.settings, provenance()
    film_there = (folder / "realtime.gif").exists()
    parts = [
        f"# {settings.task}",
        "\n\n".join(recommendation(showcase)),
        markdown(list(table(showcase))),
        f"{settings.n} episodes for each way in the world that waits, {showcase.num_late} in the one that goes on "
        "while the policy computes; the same worlds and the same noise for all, 95 % intervals. Latency: batch 1, one "
        f"thread, medians of {settings.latency_rounds} interleaved rounds; all but the first way are replayed. A chunk "
        f"is {showcase.comparison.loaded.policy.config.n_action_steps} actions.",
        "![Success against chunks per second](ways.png)",
        f"![The first episode in the world that goes on](realtime.{'gif' if film_there else 'png'})"
        if (folder / "realtime.png").exists()
        else "",
        *_told(folder, told),
        f"Made by `{made['command']}` on {made['date']}, {made['device']}.",
    ]
    write_text(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")


def _told(folder: Path, told: Told) -> list[str]:
    """The part of the report on the policy that is told its task in words."""
    return [
        "# Ten tasks, told in words",
        told.recommendation(),
        markdown(list(told.rows())),
        f"{told.many.settings.n} episodes of each task and way; the same worlds and the same noise for all, 95 % "
        "intervals over all tasks together. A chunk includes vision and language.",
        "![Tasks told in words](words.gif)" if (folder / "words.gif").exists() else "",
    ]


def _colour(showcase: Showcase, way: Way) -> str:
    if way is showcase.recommended:
        return GREEN
    if way.cell == showcase.ways[0].cell:
        return BLACK
    return (BLUE if "BAC" in way.cell.name else ORANGE) if way.is_ours else GREY


def _short(way: Way) -> str:
    if way.title.startswith("dense"):
        return way.title
    return way.cell.name.removesuffix(f" {way.cell.timestep_spacing}")


def _interval(value: Estimate) -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _relative(path: Path) -> Any:
    here = Path.cwd()
    return path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path
