"""*What* stands for a block's output at a reuse: plain reuse, a forecast, or a fitted correction.

*When* a block updates is a question of its own (`bac.caching.schedulers`); any pair works::

    bac.wrap(policy, bac.Denoising(schedule=schedule, estimator=Taylor(order=1)))

`Hold`, the default, is plain reuse. `Taylor` continues the last updates along a line or curve. `Residual` reuses what
whole layers add. Estimators of other papers are in `bac.published`.
"""

from bac.caching.block import BlockStep
from bac.caching.estimators.estimator import Estimator
from bac.caching.estimators.hold import Hold
from bac.caching.estimators.residual import Residual
from bac.caching.estimators.taylor import Taylor

__all__ = ["BlockStep", "Estimator", "Hold", "Residual", "Taylor"]
