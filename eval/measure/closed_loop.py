"""What episodes say: success and score, and the paired difference to the policy itself."""

from collections.abc import Sequence
from typing import Any

from eval.measure.intervals import mean_score, paired_score_difference, paired_success_difference, success_rate


def closed_loop(own: Sequence[Any], results: Sequence[Any], *, by_score: bool) -> dict[str, Any]:
    """Success and score with 95 % intervals, and the paired difference to the policy itself.

    Args:
        own: Episodes of the policy itself.
        results: Episodes of another way, in the same worlds.
        by_score: The difference is that of scores; else of successes.
    """
    success = success_rate(sum(result.success for result in results), len(results))
    score = mean_score([result.score for result in results])
    if by_score:
        lost = paired_score_difference([result.score for result in own], [result.score for result in results])
    else:
        lost = paired_success_difference([result.success for result in own], [result.success for result in results])
    named = {"success": success, "score": score, "difference": lost}
    return {"n": len(results), **{name: [e.value, e.low, e.high] for name, e in named.items()}}
