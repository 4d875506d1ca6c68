"""Coordinate search: move one update step at a time while the error falls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bac.errors import ScheduleError

Steps = tuple[int, ...]


def coordinate_search(
    steps: Sequence[int],
    num_steps: int,
    error: Callable[[Steps], float],
    *,
    moves: Sequence[int] = (-8, -4, -2, -1, 1, 2, 4, 8),
    max_evaluations: int = 200,
    move_first: bool = False,
) -> tuple[Steps, float]:
    """Improve update steps by their measured error.

    The result is never worse than the start on the observations that `error` uses. Check it on others.

    Args:
        steps: The start: increasing, beginning with 0 unless `move_first`.
        num_steps: Denoising steps K.
        error: Maps update steps to their error, e.g. the action error of a run with them.
        moves: Shifts to try for one update, in steps; negative is earlier.
        max_evaluations: Largest number of calls of `error`, at least 1.
        move_first: The first step may move too: for places of timesteps, where a run may begin later.

    Returns:
        The best steps found and their error.

    Raises:
        ScheduleError: `steps` do not begin with 0 or do not increase below K.
    """
    best = tuple(steps)
    if not best or (best[0] and not move_first) or list(best) != sorted(set(best)) or not 0 <= best[-1] < num_steps:
        raise ScheduleError(f"steps: must increase from 0 and stay below {num_steps}, got {best}")
    lowest = 0 if move_first else 1
    seen = {best: error(best)}
    improved = True
    while improved:
        improved = False
        for place in range(lowest, len(best)):
            for move in moves:
                moved = best[place] + move
                if moved in best or not lowest <= moved < num_steps:
                    continue
                candidate = tuple(sorted((*best[:place], moved, *best[place + 1 :])))
                if candidate not in seen:  # `error` runs the policy, so no steps are tried twice
                    if len(seen) >= max_evaluations:
                        return best, seen[best]
                    seen[candidate] = error(candidate)
                if seen[candidate] < seen[best]:
                    best, improved = candidate, True
    return best, seen[best]
