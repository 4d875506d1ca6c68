"""Pictures of schedules, for every kind of block that a policy may have."""

from itertools import cycle

import bac
from bac.caching.block import BlockKind
from eval.report.figures import KINDS, schedule_grid


def test_every_kind_of_block_has_a_colour():
    assert set(KINDS) == set(BlockKind)


def test_the_schedule_of_a_u_net_is_drawn_with_the_names_of_its_layers(tmp_path):
    kinds = cycle(BlockKind)
    blocks = [bac.Block(f"block.{index}", next(kinds), index) for index in range(4)]
    before = bac.Schedule(5, {block.name: (0, 3) for block in blocks})
    after = bac.Schedule(5, {block.name: (0, 2, 3) for block in blocks})
    schedule_grid(tmp_path / "schedule.png", blocks, before, after)
    assert (tmp_path / "schedule.png").read_bytes().startswith(b"\x89PNG")
