"""What turns a recorded program into a fast one: one transformation per file, each a function from program to program.

Exact passes leave every remaining operator its recorded arguments, so results are equal bit for bit. Re-associating
passes change the order of roundings; they run only on request, and the result is measured against the exact program.
"""

from __future__ import annotations

from collections.abc import Callable

from bac.plan.passes.cse import share_equal
from bac.plan.passes.dce import drop_dead_code
from bac.plan.passes.fold import fold_constants
from bac.plan.passes.views import merge_views
from bac.plan.program import Program

Pass = Callable[[Program], Program]

EXACT: tuple[Pass, ...] = (drop_dead_code, share_equal, fold_constants, merge_views, drop_dead_code)
