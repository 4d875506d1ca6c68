"""The table of a comparison, and its last sentence: which way to take, or what is missing to say so."""

from __future__ import annotations

from collections.abc import Iterator

from bac.tuning.intervals import Estimate, paired_success_difference
from bac.tuning.standings import FEWEST_SCORES, Standings

_LEGEND = (
    "Steps are evaluations of the denoiser. The latency is of a chunk at batch 1; it is so many times faster than",
    "by PyTorch.",
)
_RIVALS = "A rival is the policy with the most of its own steps, of those played, that take no longer."


def text(found: Standings) -> str:
    """The table, each way beside its rival, the legend and the verdict."""
    return "\n".join([*_table(found), "", *_rivalries(found), *_legend(found), "", _verdict(found)])


def _table(found: Standings) -> Iterator[str]:
    itself, width = found.contenders[0], max(len(way.name) for way in found.contenders)
    numbers = f"{'p50 / p95 [ms]':>16} {'chunks/s':>8} {'faster':>7}"
    yield f"{'':{width}} {'steps':>5} {f'{found.quantity} [95 %]':>21} {'minus the policy [95 %]':>24} {numbers}"
    for way in found.contenders:
        lost = "" if way is itself else _signed(found.difference(way, itself))
        p50, p95 = 1e3 * way.latency.p50_s, 1e3 * way.latency.p95_s
        yield (
            f"{way.name:{width}} {way.evaluations or '-':>5} {found.mean(way)!s:>21} {lost:>24} "
            f"{f'{p50:.1f} / {p95:.1f}':>16} {1e3 / p50:8.1f} {f'{found.speedup(way):.1f}x':>7}"
        )


def _rivalries(found: Standings) -> Iterator[str]:
    for way in found.contenders:
        rival = found.rival(way)
        if rival is not None:
            yield f"{way.name} minus its rival, {rival.name}: {_signed(found.difference(way, rival))}"


def _legend(found: Standings) -> Iterator[str]:
    p50, p95 = 1e3 * found.by_pytorch.p50_s, 1e3 * found.by_pytorch.p95_s
    yield (
        f"All played the same {found.num_episodes} episodes. By PyTorch, without bac, a chunk takes "
        f"{p50:.1f} / {p95:.1f} ms."
    )
    yield from _LEGEND
    if any(found.rival(way) for way in found.contenders):
        yield _RIVALS


def _verdict(found: Standings) -> str:
    itself, best = found.contenders[0], found.recommended
    if not found.has_enough:
        return f"{found.num_episodes} scores are too few for a verdict: --episodes {FEWEST_SCORES} or more"
    if not found.has_something_to_lose:
        return f"The policy itself hardly succeeds here, {found.mean(itself)}: there is nothing that a way could keep"
    if not found.faster:
        return "No way that was played is faster than the policy itself"
    if best is not None:
        return (
            f"{best.name} is the fastest way that loses less than {found.margin:g}, by its 95 % interval: "
            f"{_signed(found.difference(best, itself))}. It is {found.speedup(best):.1f} times as fast as PyTorch"
        )
    if all(found.difference(way, itself).high < -found.margin for way in found.faster):
        return f"Every faster way loses more than {found.margin:g}: keep the policy's own steps, replayed"
    return f"No faster way is shown to lose less than {found.margin:g} yet. {_what_would_show_it(found)}"


def _what_would_show_it(found: Standings) -> str:
    if found.quantity == "success":
        rate = found.mean(found.contenders[0]).value
        enough = next((n for n in range(8, 10_000, 8) if _shows(rate, n, found.margin)), None)
        if enough is not None and enough > found.num_episodes:
            return f"That takes {enough} episodes, even if no pair differs: --episodes {enough}"
    return f"Play more: --episodes {2 * found.num_episodes}"


def _shows(rate: float, n: int, margin: float) -> bool:
    """Whether n pairs show that less than a margin is lost, if no pair differs."""
    results = [index < round(rate * n) for index in range(n)]
    return paired_success_difference(results, results).low > -margin


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
