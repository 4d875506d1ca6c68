"""The table of a comparison, and its last sentence: which way to take, or what is missing to say so."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from bac.tuning.intervals import Estimate
from bac.tuning.sequential import non_inferiority
from bac.tuning.standings import CONFIDENCE, Standings

_LEGEND = (
    "Steps are evaluations of the denoiser. The latency is of a chunk at batch 1; it is so many times faster than",
    "by PyTorch.",
)
_GROUP = 8  # numbers of episodes to ask for are multiples of this
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
    if not found.has_something_to_lose:
        return f"The policy itself hardly succeeds here, {found.mean(itself)}: there is nothing that a way could keep"
    if not found.faster:
        return "No way that was played is faster than the policy itself"
    if best is not None:
        value, least = found.difference(best, itself).value, found.bounds(best)[0]
        return (
            f"{best.name} is the fastest way that is shown to lose less than {found.margin:g}: {value:+.3f}, and above "
            f"{least:+.3f} with {_confidence(found)}. It is {found.speedup(best):.1f} times as fast as PyTorch"
        )
    if all(found.bounds(way)[1] < -found.margin for way in found.faster):
        return f"Every faster way loses more than {found.margin:g}: keep the policy's own steps, replayed"
    return f"No faster way is shown to lose less than {found.margin:g} yet. {_what_would_show_it(found)}"


def _confidence(found: Standings) -> str:
    shared = f", shared among {len(found.faster)} ways" if len(found.faster) > 1 else ""
    return f"{CONFIDENCE:.0%} confidence{shared}"


def _what_would_show_it(found: Standings) -> str:
    alike = non_inferiority(repeat(0.0), found.margin, confidence=found.confidence_of_each, every=_GROUP)
    if alike.n > found.num_episodes:
        return f"That takes {alike.n} episodes, even if no pair differs: --episodes {alike.n}"
    return f"Play more: --episodes {2 * found.num_episodes}"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
