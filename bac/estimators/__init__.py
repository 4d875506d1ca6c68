"""What stands in for a skipped output: one published method per file.

Which of them serves is a question of its own, apart from *when* to update (`bac.schedulers`); any pair works::

    bac.wrap(policy, schedule, estimator=Taylor(order=1))

`Hold`, the default, is plain reuse. Forecasts (`Taylor`, `Newton`, `AdamsBashforth`) continue the last updates,
`Rescale` follows the block's input, `Residual` is plain reuse of whole layers, `PreviousChunk` looks an action chunk
back. The fitted ones (`ScaleShift`, `AffineResidual`, `FittedForecast`, `Increment`) are fitted to one schedule in
closed form, on features of the untouched policy::

    features = [bac.recording.record_features(policy, batch, seed=i) for i, batch in enumerate(batches)]
    bac.wrap(policy, schedule, estimator=ScaleShift.fit(schedule, features))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bac.errors import ScheduleError
from bac.estimators.adams_bashforth import AdamsBashforth
from bac.estimators.affine_residual import AffineResidual
from bac.estimators.estimator import Cell, Estimator
from bac.estimators.fitted_forecast import FittedForecast
from bac.estimators.hold import Hold
from bac.estimators.increment import Increment
from bac.estimators.newton import Newton
from bac.estimators.previous_chunk import PreviousChunk
from bac.estimators.rescale import Rescale
from bac.estimators.residual import Residual
from bac.estimators.scale_shift import ScaleShift
from bac.estimators.taylor import Taylor

__all__ = [
    "AdamsBashforth",
    "AffineResidual",
    "Cell",
    "Estimator",
    "FittedForecast",
    "Hold",
    "Increment",
    "Newton",
    "PreviousChunk",
    "Rescale",
    "Residual",
    "ScaleShift",
    "Taylor",
    "named",
]

_FORECASTS = {forecast.rule: forecast for forecast in (Taylor, Newton, AdamsBashforth)}
_PLAIN: dict[str, Callable[[], Estimator]] = {
    "hold": Hold,
    "rescale": Rescale,
    "residual": Residual,
    "previous_chunk": PreviousChunk,
    "previous_chunk_anchored": lambda: PreviousChunk(anchored=True),
}
_FITTED = {fitted.name: fitted for fitted in (ScaleShift, AffineResidual, FittedForecast, Increment)}


def named(name: str, timesteps: Sequence[float] = ()) -> Estimator:
    """The estimator of a name that a schedule carries: ``hold``, ``taylor-1``, ``newton-2-timestep``.

    Args:
        timesteps: Noise levels of the solver, `[K]`, for forecasts along them.

    Raises:
        ScheduleError: There is no such estimator, it needs parameters that a name does not hold, or the noise levels
            it extrapolates along are not known.
    """
    if name in _PLAIN:
        return _PLAIN[name]()
    if name in _FITTED:
        cls = _FITTED[name].__name__
        raise ScheduleError(
            f"estimator: {name} has fitted parameters, which a schedule does not hold. Fit them or load them: "
            f'bac.wrap(policy, schedule, estimator=bac.estimators.{cls}.load("{name}.npz"))'
        )
    match = re.fullmatch(r"(\w+)-(\d)(-timestep)?", name)
    if match is None or match[1] not in _FORECASTS:
        known = [*_PLAIN, *_FITTED, *(f"{rule}-1" for rule in _FORECASTS)]
        raise ScheduleError(f"estimator: must be one of {', '.join(known)}, got {name!r}")
    if match[3] and not timesteps:
        raise ScheduleError(f"estimator: {name} extrapolates along timesteps, and the policy's solver tells none")
    return _FORECASTS[match[1]](int(match[2]), tuple(timesteps) if match[3] else ())
