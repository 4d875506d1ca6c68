"""A report in words: the meaning of the columns, the verdict, and how the numbers were made."""

from pathlib import Path
from typing import Any

from eval.compared.comparison import Comparison
from eval.measure.intervals import Estimate
from eval.report.table import paired_difference
from eval.setup.cells import SOLVERS, Cell, dense
from eval.setup.settings import Settings

CAPTIONS = {
    "success_vs_hz.png": "Success against inference rate. Lines: solvers with fewer dense steps; numbers: steps.",
    "sweep.png": "BAC on DDPM-100 over S and n, against its true cost.",
    "schedule.png": "Which block updates at which denoising step.",
    "similarity.png": "How alike a block's outputs are at two denoising steps; dots: BAC's updates.",
    "caching_error.png": "Error of each block's output in the cached run, on the dense run's draws.",
    "realtime.png": "The world does not wait: dense above, BAC below; see realtime.mp4.",
}
EXECUTION = {
    "interpret": "dense runs eager, cached ones through interceptors",
    "auto": "every run, dense ones too, replayed from a recorded plan",
    "replay": "every run, dense ones too, replayed from a recorded plan",
}
MARGIN = 0.05  # of success or score, as for `eval.certify`
NOTES = """
- n = {n} episodes, seeds {first} to {last}, the same worlds and the same noise for every method. **success**: rate with
  95 % Wilson interval. **{quantity} - dense**: difference to dense DDPM-100 on the same episodes ({interval}).
- **Latency**: observation batch to action chunk, batch 1, one thread, float32, {device}; {execution}. Medians of
  interleaved rounds; a sample during which the process lost its core was rejected. **speed-up**: over eager dense
  DDPM-100{beside}.
  inference_hz = chunks per second, actions/s = {num_actions} executed actions per chunk times that.{clock}
- **FLOP ratio**: dense DDPM-100 over this method, by formula. **sweeps**: block updates in full evaluations.
- **action error**: RMS difference of the executed actions, normalised units, on {observations} states of other
  episodes of the dense policy x {draws} noise draws. Cached DDPM against dense DDPM-100 on the same draws; DDIM and
  DPM-Solver++ against dense DDIM-100 from the same initial noise; undefined for DDPM with fewer steps.
- **energy distance**: between the distributions of action chunks of this method and of the policy itself, from other
  noise; {distance_draws} draws on the same states, normalised units, 95 % by bootstrap over states. It is unbiased, so
  it may be negative. The first row is the policy against itself: the floor.
- Few-step rivals have as many steps as BAC's measured latency buys, in the timestep spacing whose chunks came closest
  to the policy's own on the calibration states, by the same distance. uniform and unified have BAC's number of updates,
  not its S.
"""


def heading(settings: Settings) -> str:
    """What a report and its pictures are headed: the policy, and its task unless the policy is named after it."""
    policy = settings.checkpoint.name
    return policy if policy == settings.task else f"{policy} on {settings.task}"


def verdict(comparison: Comparison) -> list[str]:
    """The verdict, one sentence per comparison.

    First the fastest way that loses less than `MARGIN`. Then BAC is compared with dense and with the few-step rivals at
    its latency, and tuned cells with dense and with rivals that have the same number of steps.
    """
    rivals, published = comparison.few_step_cells, comparison.published
    pairs = [(published, rival) for rival in (dense(), *rivals[: len(SOLVERS)])]
    for tuned in comparison.tuned_cells:
        pairs += [(tuned, rival) for rival in (dense(), *(r for r in rivals if r.steps == tuned.steps))]
    sentences = [_fastest(comparison), *(_compared(comparison, *pair) for pair in pairs)]
    return [sentence for sentence in sentences if sentence]


def _fastest(comparison: Comparison) -> str:
    """The fastest cell whose paired interval lies above a loss of `MARGIN`."""
    latencies = comparison.latencies
    timed = sorted((cell for cell in latencies if cell != dense()), key=lambda cell: latencies[cell].p50_ms)
    for cell in timed:
        difference = _difference(comparison, cell, dense())
        if difference is not None and difference.low > -MARGIN:
            return (
                f"Fastest whose interval leaves out a loss of {MARGIN:g}: {cell.name}, {latencies[cell].speedup:.1f} "
                f"times faster than {dense().name} by PyTorch; {_in_words(comparison, cell, dense(), difference)}."
            )
    return f"No faster way has an interval that leaves out a loss of {MARGIN:g}." if timed else ""


def _compared(comparison: Comparison, cell: Cell, rival: Cell) -> str:
    difference = _difference(comparison, cell, rival)
    if difference is None:
        return ""
    word = "below" if difference.high < 0 else "above" if difference.low > 0 else "not told apart from"
    return f"{cell.name} is {word} {rival.name}: {_in_words(comparison, cell, rival, difference)}."


def _difference(comparison: Comparison, cell: Cell, rival: Cell) -> Estimate | None:
    pair = comparison.results(cell), comparison.results(rival)
    return paired_difference(*pair, judged_by_score=comparison.settings.judged_by_score)


def _in_words(comparison: Comparison, cell: Cell, rival: Cell, difference: Estimate) -> str:
    what = "score" if comparison.settings.judged_by_score else "success"
    first, second = ({result.seed for result in comparison.results(way)} for way in (cell, rival))
    return (
        f"{what} {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] on "
        f"{len(first & second)} paired episodes"
    )


def _beside(comparison: Comparison) -> str:
    """The latencies that were measured in the same rounds and are not in the table."""
    eager, intercepted = comparison.eager_latency, comparison.intercepted_latency
    if eager is None or intercepted is None:
        return ""
    return (
        f" ({eager.p50_ms:.1f} / {eager.p95_ms:.1f} ms in the same rounds). Through interceptors, without a plan, "
        f"{comparison.published.name} takes {intercepted.p50_ms:.1f} / {intercepted.p95_ms:.1f} ms: "
        f"{intercepted.speedup:.2f}x"
    )


def report_text(comparison: Comparison, table: str, source: dict[str, Any], folder: Path) -> str:
    """The whole report in Markdown. It shows the pictures that are in `folder`.

    Args:
        comparison: The comparison.
        table: The table in Markdown.
        source: Provenance of the numbers.
        folder: Folder that the report will be written to.
    """
    settings = comparison.settings
    clock = " **The machine was busy: these are CPU times.**" if "cpu" in source["latency_clock"] else ""
    notes = NOTES.format(
        quantity="score" if settings.judged_by_score else "success",
        n=settings.n,
        first=settings.first_seed,
        last=settings.first_seed + settings.n - 1,
        interval="Student's t" if settings.judged_by_score else "Newcombe's paired score interval",
        device=source["device"],
        execution=EXECUTION[settings.executor],
        num_actions=comparison.loaded.policy.config.n_action_steps,
        clock=clock,
        beside=_beside(comparison),
        observations=settings.num_observations,
        draws=settings.num_draws,
        distance_draws=settings.num_distance_draws,
    )
    pictures = [f"![{text}]({name})\n\n*{text}*" for name, text in CAPTIONS.items() if (folder / name).exists()]
    calibration = source["calibration"]
    spread = (
        f"Calibrated on {calibration['runs']} runs; similarity varies by {calibration['similarity_std']:.3f} (standard "
        f"deviation) between them, and {calibration['acs_updates_that_differ_between_halves']} of "
        f"{calibration['acs_updates']} ACS updates differ between schedules of the two halves."
    )
    made = f"Made by `{source['command']}` on {source['date']}, {source['device']}; see provenance.json."
    parts = [f"# {heading(settings)}", *verdict(comparison), table, notes.strip(), spread, *pictures, made]
    return "\n\n".join(parts) + "\n"
