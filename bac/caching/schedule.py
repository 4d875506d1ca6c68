"""The Schedule: for every block, its update steps."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bac.errors import ScheduleError
from bac.fingerprint import Fingerprint

MOST_STEPS = 10_000  # denoising steps; a trained noise schedule has 1,000, and a schedule is drawn column by column


@dataclass(frozen=True, eq=False)
class Schedule:
    """For every block, the denoising steps at which it updates. At all other steps it is reused.

    A schedule is static: it is known before a denoising run starts, and the same for every run. It draws itself::

        Schedule: 3 blocks, 8 denoising steps, 10 of 24 updates        # update  . reuse
          layers.0.self_attn   #..#....
          layers.0.cross_attn  #....#..
          layers.0.ffn         #.##.##.

    Attributes:
        num_steps: Denoising steps K, counted as evaluations of the denoiser, not as timesteps.
        update_steps: Block name to its update steps, in `[0, K)`, increasing, beginning with 0. The order of the
            names is the order of evaluation.
        fingerprint: Identity of the policy it was made for; `bac.wrap` compares it.
        estimator: Name of the estimator that the steps were chosen for; ``hold`` is plain reuse.

    Raises:
        ScheduleError: A rule above is broken.
    """

    num_steps: int
    update_steps: Mapping[str, tuple[int, ...]]
    fingerprint: Fingerprint | None = None
    estimator: str = "hold"

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        if not isinstance(self.estimator, str) or not self.estimator:
            raise ScheduleError(f'estimator: must be a name such as "hold" or "taylor-1", got {self.estimator!r}')
        if not isinstance(self.update_steps, Mapping):
            raise ScheduleError(f"update_steps: must map block names to steps, got {type(self.update_steps).__name__}")
        if not self.update_steps:
            raise ScheduleError("update_steps: a schedule needs at least one block, got none")
        checked = {name: _check_steps(name, steps, self.num_steps) for name, steps in self.update_steps.items()}
        object.__setattr__(self, "update_steps", MappingProxyType(checked))

    @property
    def block_names(self) -> tuple[str, ...]:
        """Blocks in order of evaluation."""
        return tuple(self.update_steps)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True where a block updates, `[K, N]`, columns in block order."""
        mask = np.zeros((self.num_steps, len(self.update_steps)), dtype=bool)
        for column, steps in enumerate(self.update_steps.values()):
            mask[list(steps), column] = True
        return mask

    @property
    def num_updates_total(self) -> int:
        """Updates summed over blocks, at most K N."""
        return sum(len(steps) for steps in self.update_steps.values())

    @property
    def num_sweeps(self) -> float:
        """The schedule's cost in full evaluations: `num_updates_total / N`, in [1, K]."""
        return self.num_updates_total / len(self.update_steps)

    def with_last(self, num_last: int) -> Schedule:
        """Update every block at the final `num_last` steps too.

        Under a solver that injects noise (DDPM), a block never sees the noise drawn after its last update.

        Raises:
            ScheduleError: `num_last` is not in [0, K].
        """
        if not 0 <= num_last <= self.num_steps:
            raise ScheduleError(f"force_last: must be in [0, {self.num_steps}], got {num_last}")
        final = set(range(self.num_steps - num_last, self.num_steps))
        return replace(self, update_steps={b: tuple(sorted(final.union(s))) for b, s in self.update_steps.items()})

    def num_changed(self, other: Schedule) -> int:
        """Number of updates of this schedule that `other` lacks.

        Raises:
            ScheduleError: The two differ in blocks or in the number of steps.
        """
        if (self.num_steps, self.block_names) != (other.num_steps, other.block_names):
            raise ScheduleError(
                f"num_changed: schedules of the same blocks and steps are compared, got {len(self.block_names)} blocks"
                f" x {self.num_steps} steps and {len(other.block_names)} x {other.num_steps}"
            )
        return int(np.count_nonzero(self.mask & ~other.mask))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> tuple[Any, ...]:  # a MappingProxyType cannot be pickled
        return Schedule, (self.num_steps, dict(self.update_steps), self.fingerprint, self.estimator)

    def _identity(self) -> tuple[Any, ...]:
        return self.num_steps, tuple(self.update_steps.items()), self.fingerprint, self.estimator

    def __str__(self) -> str:
        cells = self.num_steps * len(self.update_steps)
        title = f"Schedule: {len(self.update_steps)} blocks, {self.num_steps} denoising steps, "
        reuse = "reuse" if self.estimator == "hold" else self.estimator
        title += f"{self.num_updates_total} of {cells} updates        # update  . {reuse}"
        width = max(map(len, self.update_steps))
        cells_of = zip(self.update_steps, self.mask.T, strict=True)
        rows = {name: "".join("#" if cell else "." for cell in row) for name, row in cells_of}
        lines, room = [title], max(10, _terminal_width() - width - 4)
        for first in range(0, self.num_steps, room):
            if self.num_steps > room:
                lines.append(f"  {'':{width}}  from step {first}")
            lines += [f"  {name:{width}}  {row[first : first + room]}" for name, row in rows.items()]
        return "\n".join(lines)


def _terminal_width() -> int:
    """Columns of the terminal that text goes to; no limit for a file or a pipe."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else sys.maxsize


def check_count(name: str, value: object) -> None:
    """Refuse what is no number of denoising steps."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ScheduleError(f"{name}: must be a whole number of at least 1, got {value!r}")
    if value > MOST_STEPS:
        raise ScheduleError(f"{name}: must be at most {MOST_STEPS}, got {value:.3g}")


def _check_steps(block: str, given: Iterable[object], num_steps: int) -> tuple[int, ...]:
    if not isinstance(block, str):
        raise ScheduleError(f"update_steps: block names must be texts, got {block!r}")
    values = tuple(given)
    steps = tuple(int(step) for step in values if isinstance(step, (int, np.integer)) and not isinstance(step, bool))
    if len(steps) < len(values):
        raise ScheduleError(f"{block}: update steps must be whole numbers, got {values[:5]}")
    if not steps or steps[0] != 0:
        raise ScheduleError(f"{block}: the first update must be step 0, got {steps[:3]}")
    if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
        raise ScheduleError(f"{block}: update steps must increase, got {steps!s:.80}")
    if steps[-1] >= num_steps:
        raise ScheduleError(f"{block}: update steps must be below num_steps = {num_steps}, got {steps[-1]}")
    return steps
