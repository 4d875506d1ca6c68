"""Other papers' schedulers, estimators and online rules: checked against their sources, not default.

One idea per file. Schedulers (`block_ranges`, `by_kind`, `change_threshold`, `global_budget`, `outcome`, `smooth`)
return a `bac.Schedule`. Estimators go beside a schedule::

    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Newton(order=2)))

Fitted estimators are fitted to one schedule in closed form, on features of the untouched policy::

    features = [bac.recording.record_features(policy, batch, seed=i) for i, batch in enumerate(batches)]
    estimator = ScaleShift.fit(schedule, features)

Online rules decide during the run which blocks update. They replace a schedule,
``bac.wrap(policy, FirstBlock(num_steps=100, threshold=0.1))``. Their runs are never replayed, because the updates are
not known before the run. For the same reason a robot cannot know how long its next chunk takes.

Solvers take fewer steps. `PFDiff` needs no fit, and `pas.fit` fits a `PAS` as `bac.solvers.Fitter` fits its solver::

    solver = PFDiff.even(4, num_timesteps=100)
    bac.wrap(policy, bac.Denoising(solver, solver.timesteps))
"""

from bac.caching.interceptors.online import OnlineRule, last_mask
from bac.published.accumulated_change import AccumulatedChange
from bac.published.adams_bashforth import AdamsBashforth
from bac.published.affine_residual import AffineResidual
from bac.published.block_change import BlockChange
from bac.published.codebook import Codebook
from bac.published.first_block import FirstBlock
from bac.published.fitted_forecast import FittedForecast
from bac.published.increment import Increment
from bac.published.naming import estimator_named, fitted_class
from bac.published.newton import Newton
from bac.published.pas import PAS
from bac.published.pfdiff import PFDiff
from bac.published.previous_chunk import PreviousChunk
from bac.published.rescale import Rescale
from bac.published.scale_shift import ScaleShift

__all__ = [
    "PAS",
    "AccumulatedChange",
    "AdamsBashforth",
    "AffineResidual",
    "BlockChange",
    "Codebook",
    "FirstBlock",
    "FittedForecast",
    "Increment",
    "Newton",
    "OnlineRule",
    "PFDiff",
    "PreviousChunk",
    "Rescale",
    "ScaleShift",
    "estimator_named",
    "fitted_class",
    "last_mask",
]
