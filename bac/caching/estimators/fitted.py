"""The base of fitted estimators: parameters by block and step, fitted from streamed sums."""

from __future__ import annotations

from abc import abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bac.caching.estimators.estimator import Estimator
from bac.caching.schedule import Schedule
from bac.errors import ScheduleError

Array = npt.NDArray[np.float32]
Features = Mapping[str, Tensor]  # by block, `[K, B, ..., D]`, as `bac.recording.record_features` returns them
LARGEST = 1e12  # of a slope, near one in a good fit, and of an offset; the square of what they give is a float32
Self = TypeVar("Self", bound="Fitted")
LinesSelf = TypeVar("LinesSelf", bound="FittedLines")


class Fitted(Estimator):
    """Parameters of an estimator: for every block, arrays by name.

    Each run makes tensors from the NumPy arrays anew, so that a plan records them as constants.

    Args:
        parameters: Block name to parameter name to array; the first axis of each counts denoising steps.

    Raises:
        ScheduleError: A number is not finite, or too large.
    """

    name: ClassVar[str]
    is_fitted = True

    def __init__(self, parameters: Mapping[str, Mapping[str, Array]]) -> None:
        self.parameters = {
            block: {key: np.ascontiguousarray(values, dtype=np.float32) for key, values in arrays.items()}
            for block, arrays in parameters.items()
        }
        for block, arrays in self.parameters.items():
            for key, values in arrays.items():
                if not (np.abs(values) <= LARGEST).all():  # NaN is neither
                    raise ScheduleError(
                        f"{block}, {key}: holds a number that is not finite or beyond {LARGEST:g}; fit the "
                        "estimator again"
                    )

    def parameter(self, block: str, name: str, step: int, like: Tensor) -> Tensor:
        """One parameter at one step, of the dtype and on the device of `like`.

        Raises:
            ScheduleError: It was fitted for other blocks or fewer steps.
        """
        try:
            values = self.parameters[block][name][step]
        except (KeyError, IndexError) as error:
            raise ScheduleError(
                f"{self.name}: was not fitted for step {step} of {block}; fit it on this policy's features: "
                f"{type(self).__name__}.fit(schedule, features)"
            ) from error
        return torch.from_numpy(np.asarray(values)).to(like)

    def to_document(self) -> dict[str, Any]:
        """All parameters in plain JSON types: by block and name, the shape and the base64 of little-endian float32."""
        return {
            block: {name: _encoded(values) for name, values in arrays.items()}
            for block, arrays in self.parameters.items()
        }

    @classmethod
    def from_document(cls: type[Self], document: Mapping[str, Any]) -> Self:
        """Inverse of `to_document`.

        Raises:
            ScheduleError: An array is damaged.
        """
        return cls(
            {
                block: {name: _decoded(f"{block}, {name}", values) for name, values in arrays.items()}
                for block, arrays in document.items()
            }
        )

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_document() == other.to_document()

    def __hash__(self) -> int:
        return hash((self.name, *self.parameters))


def _encoded(values: Array) -> dict[str, Any]:
    return {"shape": list(values.shape), "float32": b64encode(values.astype("<f4").tobytes()).decode()}


def _decoded(what: str, document: Mapping[str, Any]) -> Array:
    try:
        numbers = np.frombuffer(b64decode(document["float32"], validate=True), dtype="<f4")
        return numbers.reshape(document["shape"]).copy()  # a tensor shares its memory, so it must be writable
    except (ValueError, TypeError) as error:
        raise ScheduleError(f"{what}: its numbers are damaged ({error}); fit the estimator again") from error


class LineSums:
    """Streamed sums for the least-squares lines ``y = slope x + offset`` of many independent pairs at once."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: list[Tensor] | None = None

    def add(self, x: Tensor, y: Tensor, over: int | tuple[int, ...]) -> None:
        """Take in pairs. Sums run over the dimensions `over`; each element of the remaining ones gets its own line."""
        x, y = x.double(), y.double()
        sums = [part.sum(dim=over) for part in (x, y, x * x, x * y)]
        self.count += x.numel() // sums[0].numel()
        self._sums = sums if self._sums is None else [a + b for a, b in zip(self._sums, sums, strict=True)]

    def line(self, default_slope: float) -> tuple[Tensor, Tensor]:
        """Slopes and offsets. Where x never varied, the slope is `default_slope` and the offset fits the mean."""
        means, variance, covariance = self.centred()
        slope = torch.where(variance > 0, covariance / variance.where(variance > 0, 1.0), default_slope)
        return slope, means[1] - slope * means[0]

    def centred(self) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Means of x and y; the sum of squares of x, and of products of x and y, around these means."""
        if self._sums is None:
            raise ScheduleError("features: none were given to fit on; pass those of at least one batch")
        x, y, xx, xy = self._sums
        noise = 1e-12 * xx  # rounding makes a zero variance this large at most
        variance = xx - x * x / self.count
        return (x / self.count, y / self.count), variance.where(variance > noise, 0.0), xy - x * y / self.count


class FittedLines(Fitted):
    """Fitted estimators whose parameters are least-squares lines, fitted for one schedule.

    A subclass names the pairs to fit and makes its parameters of their sums.
    """

    @classmethod
    def fit(cls: type[LinesSelf], schedule: Schedule, features: Iterable[Features]) -> LinesSelf:
        """Least squares for each block and step, on the outputs that the schedule's last updates would have stored.

        Args:
            schedule: The schedule to fit to; it decides which stored step each step reuses.
            features: Outputs of the untouched policy's blocks, batch by batch: by block, `[K, B, ..., D]`.

        Raises:
            ScheduleError: Features are missing or of another number of steps.
        """
        sums = {block: LineSums() for block in schedule.block_names}
        for batch in checked(features, schedule):
            for block, line in sums.items():
                x, y = cls._pairs(batch[block], schedule, block)
                line.add(x, y, over=1)
        return cls({block: cls._solved(line) for block, line in sums.items()})

    @staticmethod
    @abstractmethod
    def _pairs(outputs: Tensor, schedule: Schedule, block: str) -> tuple[Tensor, Tensor]:
        """x and y, `[K, N, ...]`: what is known at a step, and what to predict from it; sums run over N."""

    @staticmethod
    @abstractmethod
    def _solved(sums: LineSums) -> dict[str, Array]:
        """The parameters of one block by name; the first axis counts denoising steps."""


def last_updates(schedule: Schedule, block: str, back: int = 0) -> Tensor:
    """For every denoising step, the step of the block's last update, or of the update `back` before it (or step 0)."""
    steps = np.array(schedule.update_steps[block])
    rank = np.searchsorted(steps, np.arange(schedule.num_steps), side="right") - 1
    return torch.from_numpy(steps[np.maximum(rank - back, 0)])


def checked(features: Iterable[Features], schedule: Schedule) -> Iterator[Features]:
    """Yield the features batch by batch, each checked against `schedule`.

    Raises:
        ScheduleError: A block is missing, or the number of steps is not the schedule's.
    """
    for batch in features:
        missing = [name for name in schedule.block_names if name not in batch]
        if missing:
            raise ScheduleError(f"features: lack {len(missing)} of the schedule's blocks, first {missing[0]}")
        num_steps = len(batch[schedule.block_names[0]])
        if num_steps != schedule.num_steps:
            raise ScheduleError(
                f"features: are of {num_steps} denoising steps, the schedule of {schedule.num_steps}; record them with "
                "the solver that the schedule is for"
            )
        yield batch
