"""The picture of the README, from tables of two lines."""

from eval.experiments.flow.rows import EVEN, FITTED
from eval.experiments.overview import CACHE, FEW, FEWER, OWN, draw, of_diffusion, of_flow
from eval.experiments.vla.ways import REUSE


def diffusion(name: str, score: float, lost: tuple[float, float] | None) -> dict:
    low, high = lost or (None, None)
    difference = None if lost is None else sum(lost) / 2
    return {
        "name": name, "score": score, "latency_p50_ms": 20.0,
        "paired_diff": difference, "paired_low": low, "paired_high": high,
    }  # fmt: skip


def flow(name: str, group: str, success: float) -> dict:
    return {
        "name": name, "group": group, "latency": {"p50_ms": 10.0}, "all": {"success": [success, success - 0.1, 1.0]}
    }  # fmt: skip


DIFFUSION = [
    diffusion("DDPM-100", 0.9, None),
    diffusion("DDIM-4 leading", 0.8, (-0.2, 0.0)),
    diffusion("fitted multistep-4", 0.9, (-0.05, 0.05)),
    diffusion("BAC S=10 n=5", 0.7, (-0.3, -0.1)),
]
FLOW = [flow("Euler-10", EVEN, 0.8), flow("Euler-2", EVEN, 0.7), flow("fitted-2", FITTED, 0.8), flow("BAC", REUSE, 0.8)]


def test_the_first_row_is_the_policy_as_it_is_and_the_others_find_their_groups():
    for points in (list(of_diffusion(DIFFUSION)), list(of_flow(FLOW))):
        assert [point.group for point in points] == [OWN, FEWER, FEW, CACHE]


def test_a_score_has_the_interval_of_its_difference_to_the_policy_as_it_is():
    _, fewer, *_ = of_diffusion(DIFFUSION)
    assert (fewer.hz, fewer.value) == (50, 0.8)
    assert round(fewer.low, 9) == 0.7 and round(fewer.high, 9) == 0.9


def test_solvers_that_the_picture_has_no_room_for_are_left_out():
    more = ("DPM-Solver++-4 leading", "DDIM-100", "BAC S=10 n=5, last 3 forced", "BAC S=10 n=5 on DDIM-100")
    rows = DIFFUSION[:1] + [diffusion(name, 0.8, (-0.2, 0.0)) for name in more]
    assert len(list(of_diffusion(rows))) == 1


def test_both_policies_are_drawn(tmp_path):
    panels = {("one", "score"): list(of_diffusion(DIFFUSION)), ("two", "success"): list(of_flow(FLOW))}
    draw(tmp_path / "overview.png", panels)
    assert (tmp_path / "overview.png").stat().st_size > 0
