"""Estimators by the names that schedules and files carry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bac.caching.estimators.estimator import Estimator
from bac.caching.estimators.fitted import Fitted
from bac.caching.estimators.hold import Hold
from bac.caching.estimators.residual import Residual
from bac.caching.estimators.taylor import Taylor
from bac.errors import ScheduleError
from bac.published.adams_bashforth import AdamsBashforth
from bac.published.affine_residual import AffineResidual
from bac.published.fitted_forecast import FittedForecast
from bac.published.increment import Increment
from bac.published.newton import Newton
from bac.published.previous_chunk import PreviousChunk
from bac.published.rescale import Rescale
from bac.published.scale_shift import ScaleShift

_FORECASTS = {forecast.rule: forecast for forecast in (Taylor, Newton, AdamsBashforth)}
_OTHERS: dict[str, Callable[[], Estimator]] = {
    "hold": Hold,
    "rescale": Rescale,
    "residual": Residual,
    "previous_chunk": PreviousChunk,
    "previous_chunk_anchored": lambda: PreviousChunk(anchored=True),
}
_FITTED: dict[str, type[Fitted]] = {cls.name: cls for cls in (ScaleShift, AffineResidual, FittedForecast, Increment)}


def estimator_named(name: str, timesteps: Sequence[float] = ()) -> Estimator:
    """The estimator that a schedule names: ``hold``, ``taylor-1``, ``newton-2-timestep``.

    Args:
        timesteps: Noise levels of the solver, `[K]`, for forecasts along them.

    Raises:
        ScheduleError: The estimator is unknown or needs fitted parameters, or it extrapolates along noise levels that
            are unknown.
    """
    if name in _OTHERS:
        return _OTHERS[name]()
    if name in _FITTED:
        cls = _FITTED[name].__name__
        raise ScheduleError(
            f"estimator: {name} has fitted parameters, which a schedule does not hold. Give them: "
            f"bac.Denoising(schedule=schedule, estimator=bac.published.{cls}.fit(schedule, features))"
        )
    match = re.fullmatch(r"(\w+)-(\d)(-timestep)?", name)
    if match is None or match[1] not in _FORECASTS:
        known = [*_OTHERS, *_FITTED, *(f"{rule}-1" for rule in _FORECASTS)]
        raise ScheduleError(f"estimator: must be one of {', '.join(known)}, got {name!r}")
    if match[3] and not timesteps:
        raise ScheduleError(f"estimator: {name} extrapolates along timesteps, which this policy's solver does not list")
    return _FORECASTS[match[1]](int(match[2]), tuple(timesteps) if match[3] else ())


def fitted_class(name: str) -> type[Fitted] | None:
    """The class of a fitted estimator; None if the named estimator is not fitted."""
    return _FITTED.get(name)
