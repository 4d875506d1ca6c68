"""Passes make a recorded program fast: one transformation per file, each a function from program to program.

Exact passes keep the results equal bit for bit. Re-associating passes change the order of roundings. They run only on
request, and the outcome is measured against the interpreted run before it is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bac.plan.passes.absorb import absorb_projections
from bac.plan.passes.addup import add_up
from bac.plan.passes.attend import attend_in_place
from bac.plan.passes.closed import close_reused_steps
from bac.plan.passes.copies import drop_copies
from bac.plan.passes.cse import share_equal
from bac.plan.passes.dce import drop_dead_code
from bac.plan.passes.early import draw_first
from bac.plan.passes.fold import fold_constants
from bac.plan.passes.fuse import fuse_sublayers
from bac.plan.passes.heads import widen_heads
from bac.plan.passes.masks import index_by_places
from bac.plan.passes.numbers import name_numbers
from bac.plan.passes.own import own_outputs
from bac.plan.passes.pack import pack_products
from bac.plan.passes.parts import drop_empty_parts
from bac.plan.passes.presum import presum_residuals
from bac.plan.passes.relay import relay_weights
from bac.plan.passes.residual import add_in_products
from bac.plan.passes.rows import normalise_rows
from bac.plan.passes.scale import clamp_undivided, drop_zero_additions, fuse_scaled_additions
from bac.plan.passes.slices import write_slices
from bac.plan.passes.split import split_tokens, split_tokens_anyway
from bac.plan.passes.views import merge_views
from bac.plan.plan import Stage
from bac.plan.program import Program

Pass = Callable[[Program], Program]

_FRONT: tuple[Pass, ...] = (drop_dead_code, drop_copies, share_equal, fold_constants, index_by_places)
_BACK: tuple[Pass, ...] = (relay_weights, merge_views, drop_dead_code, own_outputs)
_IN_PLACE: tuple[Pass, ...] = (attend_in_place, drop_dead_code, normalise_rows)
_SHARE: tuple[Pass, ...] = (drop_dead_code, share_equal)
_SUM: tuple[Pass, ...] = (presum_residuals, drop_dead_code, fold_constants, fuse_scaled_additions, close_reused_steps)
_SOLVE: tuple[Pass, ...] = (drop_zero_additions, drop_dead_code, clamp_undivided, drop_dead_code)
_JOIN: tuple[Pass, ...] = (widen_heads, drop_dead_code, add_in_products, drop_dead_code)

EXACT = (*_FRONT, split_tokens, *_SHARE, *_IN_PLACE, *_BACK)
CAUTIOUS = (*_FRONT, *_BACK)  # where a kernel of this processor rounds with the layout
_ASSOCIATE = (split_tokens_anyway, *_SHARE, absorb_projections, *_SHARE, *_SUM)
FAST = (*_FRONT, *_ASSOCIATE, *_SOLVE, *_JOIN, *_IN_PLACE, *_BACK)

# For compilers and other runtimes, which choose layouts themselves: no strides in the program.
_WITHOUT_STRIDES = (drop_empty_parts, write_slices, drop_dead_code, own_outputs, name_numbers)
COMPILED = (
    *_FRONT,
    *_ASSOCIATE,
    *_SOLVE,
    fuse_sublayers,
    drop_dead_code,
    *_JOIN,
    add_up,
    drop_dead_code,
    *_WITHOUT_STRIDES,
    pack_products,
    relay_weights,
    draw_first,
)
BETWEEN = (*_IN_PLACE, merge_views, drop_dead_code)  # for what stays between compiled pieces
PORTABLE = (*_FRONT, write_slices, own_outputs)
PORTABLE_FAST = (*_FRONT, *_ASSOCIATE, write_slices, drop_dead_code, own_outputs)


def specialise(program: Program, passes: Sequence[Pass]) -> tuple[Program, tuple[Stage, ...]]:
    """Apply passes one after the other.

    Returns:
        The program, and its size after each pass.
    """
    stages = [_stage("recorded", program)]
    for transform in passes:
        program = transform(program)
        stages.append(_stage(transform.__name__.replace("_", " "), program))
    return program, tuple(stages)


def _stage(name: str, program: Program) -> Stage:
    return Stage(name, program.num_operations, len(program.instructions))
