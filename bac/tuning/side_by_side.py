"""Lets ways to denoise play the same episodes, and keeps what each has reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tqdm import tqdm

from bac.denoising import Denoising
from bac.tuning.closed_loop import Play, checked

Kept = Callable[[Denoising, Sequence[int], Callable[[], Sequence[float]]], Sequence[float]]
"""Results of a way's episodes: those that are kept of these seeds, or those that the call plays."""


def play_all(
    play: Play,
    ways: Mapping[str, Denoising],
    seeds: range,
    *,
    at_once: int = 1,
    kept: Kept = lambda _way, _seeds, play: play(),
    progress: bool = True,
) -> dict[str, tuple[float, ...]]:
    """Let every way play the same episodes, a group of them after the other.

    All ways play a group before the next one begins. So what was played when one stops is paired.

    Args:
        play: Plays episodes.
        ways: By name; each plays every seed.
        seeds: Of the episodes.
        at_once: Episodes of a group.
        kept: Finds results that were played before, and keeps those that were not.
        progress: Show a progress bar.

    Returns:
        Results by name, in the order of `seeds`. After Ctrl-C, of the groups that all ways have played.

    Raises:
        KeyboardInterrupt: It came before the first group was whole.
        ValueError: A result is not in [0, 1].
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tqdm(total=len(ways) * len(seeds), desc="play", unit="episode", disable=not progress) as bar:
        try:
            for start in range(0, len(seeds), at_once):
                group = seeds[start : start + at_once]
                for name, way in ways.items():
                    bar.set_postfix_str(name)
                    found[name] += checked(kept(way, group, partial(play, way, group)))
                    bar.update(len(group))
        except KeyboardInterrupt:
            if not all(found.values()):
                raise
    whole = min(map(len, found.values()))
    return {name: tuple(results[:whole]) for name, results in found.items()}
