"""Lets paired episodes decide between the ways to denoise that a tuning found.

The tuning sees actions, and what is near in action is not always what succeeds. So its choice, the faster ways on its
front, and as many of the policy's own steps play the same episodes as the policy itself, pair by pair. A bet on every
pair (`bac.tuning.sequential`) stops as soon as it is shown, or refuted, that a way loses less than a margin; where
tasks take turns, after a whole turn. The fastest way that is shown wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from bac.denoising import Denoising
from bac.tuning.result import Tuned
from bac.tuning.sequential import Outcome, bounds, non_inferiority
from bac.tuning.trial import Trial

MOST = 4  # ways to play, the choice and the next faster ones
RIVALS = 2  # fewer of the policy's own steps, to play besides
Play = Callable[[Denoising, Sequence[int]], Sequence[float]]
"""Plays one episode for each seed, on the same world and noise whatever the way, and returns results in [0, 1]."""


@dataclass(frozen=True)
class Played:
    """A way to denoise in closed loop, beside the policy itself.

    Attributes:
        trial: The way.
        outcome: The verdict, with the paired differences.
    """

    trial: Trial
    outcome: Outcome

    @property
    def difference(self) -> tuple[float, float, float]:
        """Mean of the paired differences, way minus policy, with bounds that hold whenever one stops."""
        found = self.outcome.differences
        return sum(found) / len(found), *bounds(found, confidence=self.outcome.confidence, every=self.outcome.every)

    def __str__(self) -> str:
        value, low, high = self.difference
        return (
            f"{self.trial.name}, p50 {1e3 * self.trial.p50_s:.1f} ms: {self.outcome.verdict} after {self.outcome.n} "
            f"pairs, {value:+.3f} [{low:+.3f}, {high:+.3f}]"
        )


@dataclass(frozen=True)
class Decision:
    """What the episodes decided.

    Attributes:
        tuned: The tuning, with the way that won as its choice.
        played: The ways that were played, in the order of play, the fastest first.
        quantity: What the results are: ``success`` or ``score``.
        chosen: The one among `played` that won, or the tuning's own choice if none was shown.
    """

    tuned: Tuned
    played: tuple[Played, ...]
    quantity: str
    chosen: Played

    @property
    def is_shown(self) -> bool:
        """Whether the choice was shown to lose less than the margin."""
        return self.chosen.outcome.verdict == "shown"

    def __str__(self) -> str:
        known = self.chosen.outcome
        lines = [
            f"closed loop: {self.quantity} minus the policy's own, paired; margin {known.margin:g}, "
            f"confidence {known.confidence:g} each"
        ]
        lines += [f"{'->' if played is self.chosen else '  '} {played}" for played in self.played]
        if not self.is_shown:
            lines.append(
                "WARNING: none was shown to lose less than the margin; the nearest in action is kept. Play more "
                "episodes, or allow more latency"
            )
        return "\n".join(lines)


def decide(
    tuned: Tuned,
    play: Play,
    *,
    num_episodes: int,
    margin: float = 0.05,
    confidence: float = 0.95,
    quantity: str = "success",
    first_seed: int = 0,
    at_once: int = 1,
    turn: int = 1,
    progress: bool = True,
) -> Decision:
    """Play the choice of a tuning, faster ways on its front, and fewer own steps, beside the policy itself.

    Args:
        tuned: The tuning.
        play: Plays episodes.
        num_episodes: Largest number of pairs for each way.
        margin: Largest tolerated loss, in (0, 1).
        confidence: Confidence that the way that wins loses less, in (0, 1); it is shared among the ways.
        quantity: What `play` returns, in words.
        first_seed: Seed of the first episode; the observations of the tuning should come from others.
        at_once: Episodes to ask `play` for at once.
        turn: Pairs in which every task of the environment had its turn; a verdict comes after whole ones.
        progress: Show a progress bar.

    Raises:
        ValueError: A number is out of range, or a result is not in [0, 1].
    """
    if num_episodes < 1 or at_once < 1:
        raise ValueError(f"num_episodes and at_once must be at least 1, got {num_episodes} and {at_once}")
    ways = candidates(tuned)
    each = 1 - (1 - confidence) / len(ways)
    own: dict[int, float] = {}
    played: list[Played] = []
    for trial in ways:
        with tqdm(total=num_episodes, desc=f"play: {trial.name}", unit="pair", disable=not progress) as bar:
            pairs = _pairs(play, trial.denoising, own, range(first_seed, first_seed + num_episodes), at_once, bar)
            played.append(Played(trial, non_inferiority(pairs, margin, confidence=each, every=turn)))
        if played[-1].outcome.verdict == "shown":
            break
    found = next((one for one in played if one.outcome.verdict == "shown"), None)
    chosen = found or next(one for one in played if one.trial is tuned.chosen)
    return Decision(_choosing(tuned, chosen.trial), tuple(played), quantity, chosen)


def candidates(tuned: Tuned, most: int = MOST) -> Sequence[Trial]:
    """The choice, the next faster ways on the front, and fewer of the policy's own steps; the fastest first.

    Own steps are never on the front beside fitted ones, which are nearer in action. On one policy they succeeded more
    often all the same (results/flow).
    """
    faster = [trial for trial in tuned.front if trial.p50_s < tuned.chosen.p50_s and trial is not tuned.chosen]
    steps = tuned.chosen.denoising.num_evaluations or 0
    rivals = sorted((trial for trial in tuned.trials if 1 < _own_steps(trial) <= steps), key=_own_steps)
    ways = [*faster[max(0, len(faster) - most + 1) :], tuned.chosen, *rivals[-RIVALS:]]
    return sorted({id(trial): trial for trial in ways}.values(), key=lambda trial: trial.p50_s)


def _own_steps(trial: Trial) -> int:
    """How many of its own steps the policy makes, if that is all; else 0."""
    way = trial.denoising
    return (way.num_steps or 0) if way.solver is None and way.schedule is None else 0


def _pairs(
    play: Play, way: Denoising, own: dict[int, float], seeds: range, at_once: int, bar: tqdm[object]
) -> Iterator[float]:
    """Way minus policy, seed by seed. What the policy itself reached is kept for the next way."""
    for start in range(0, len(seeds), at_once):
        group = seeds[start : start + at_once]
        if group[0] not in own:
            own.update(zip(group, checked(play(Denoising(), group)), strict=True))
        for seed, reached in zip(group, checked(play(way, group)), strict=True):
            bar.update()
            yield reached - own[seed]


def checked(results: Sequence[float]) -> Sequence[float]:
    """The same results.

    Raises:
        ValueError: One is not in [0, 1].
    """
    if not all(0 <= result <= 1 for result in results):
        raise ValueError(f"results of episodes must be in [0, 1], got {[round(float(r), 3) for r in results]}")
    return results


def _choosing(tuned: Tuned, trial: Trial) -> Tuned:
    """The tuning with another choice, which gets the old one's fingerprint. Its error was not measured again."""
    if trial is tuned.chosen:
        return tuned
    signed = replace(trial, denoising=replace(trial.denoising, fingerprint=tuned.denoising.fingerprint))
    trials = tuple(signed if other is trial else other for other in tuned.trials)
    return replace(tuned, chosen=signed, trials=trials, neighbours=())
