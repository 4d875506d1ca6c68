"""Ways beside the policy itself, on the same episodes. Here a way's results are what its number of steps says."""

import json

import numpy as np
import pytest

import bac
from bac.adapters import find_host
from bac.errors import BacError, ScheduleError
from bac.tuning.bench import Quantiles
from bac.tuning.comparison import Comparison
from bac.tuning.rivals import as_fast, rivals
from bac.tuning.side_by_side import play_all
from bac.tuning.standings import ITSELF, Contender
from tests.bac.models import TinyTransformerPolicy


def contender(name, steps, results, *, steps_of="own solver", p50_ms=None):
    p50_s = 1e-3 * (steps if p50_ms is None else p50_ms)
    return Contender(name, steps, steps_of, steps, Quantiles(p50_s, 1.1 * p50_s), tuple(results))


N = 128  # four faster ways share the confidence; then 118 pairs that do not differ show that less than .05 is lost
ALWAYS, SEVEN_EIGHTHS, HALF = [1.0] * N, [float(i % 8 > 0) for i in range(N)], [float(i % 2) for i in range(N)]
MADE = contender("bac.json: fitted, 3 steps", 3, ALWAYS, steps_of="")
WAYS = (
    contender(ITSELF, 10, ALWAYS, steps_of=""),
    MADE,
    contender("5 own steps", 5, SEVEN_EIGHTHS),
    contender("3 own steps", 3, HALF),
    contender("2 own steps", 2, HALF),
)
COMPARISON = Comparison(WAYS, Quantiles(0.020, 0.022), facts={"env": "pusht"})


def test_the_rival_is_the_policy_with_as_many_of_its_own_steps():
    assert COMPARISON.rival(MADE).name == "3 own steps"
    assert COMPARISON.rival(WAYS[0]) is COMPARISON.rival(WAYS[2]) is None


def test_more_own_steps_are_the_rival_where_they_take_no_longer():
    slow = contender("bac.json: reuse", 3, ALWAYS, steps_of="", p50_ms=5.0)
    assert Comparison((WAYS[0], slow, *WAYS[2:]), Quantiles(0.02, 0.02)).rival(slow).name == "5 own steps"


def test_of_two_solvers_with_as_many_steps_the_better_one_is_the_rival():
    better = contender("DPM-Solver++, 3 steps", 3, SEVEN_EIGHTHS, steps_of="DPM-Solver++")
    assert Comparison((*WAYS, better), Quantiles(0.02, 0.02)).rival(MADE) is better


def test_the_policy_itself_is_the_rival_of_what_is_no_faster():
    slow = contender("bac.json: bf16", 10, ALWAYS, steps_of="", p50_ms=10.0)
    assert Comparison((WAYS[0], slow, *WAYS[2:]), Quantiles(0.02, 0.02)).rival(slow) is WAYS[0]


def test_differences_are_taken_pair_by_pair():
    # Every second pair is lost.
    assert COMPARISON.difference(WAYS[3], WAYS[0]).value == -0.5
    assert COMPARISON.difference(WAYS[0], WAYS[0]).value == 0.0
    assert COMPARISON.mean(WAYS[2]).value == 0.875


def test_the_fastest_that_is_shown_to_lose_less_is_recommended():
    assert COMPARISON.recommended is MADE
    told = str(COMPARISON)
    assert (
        "bac.json: fitted, 3 steps is the fastest way that is shown to lose less than 0.05: +0.000, and above " in told
    )
    assert "with 95% confidence, shared among 4 ways" in told
    assert "It is 6.7 times as fast as PyTorch" in told  # 3 ms of 20
    assert "bac.json: fitted, 3 steps minus its rival, 3 own steps: +0.500 [" in told


def verdict(*ways, quantity="success"):
    comparison = Comparison(ways, Quantiles(0.02, 0.02), quantity)
    assert comparison.recommended is None
    return str(comparison).splitlines()[-1]


def test_where_all_faster_ways_lose_more_it_says_so():
    assert verdict(WAYS[0], WAYS[3], WAYS[4]).startswith("Every faster way loses more than 0.05")


def test_where_nothing_is_shown_yet_it_says_what_it_takes():
    # A pair that does not differ multiplies the wealth by at most 1 + .05 / .95, and 20 are asked for: 59 pairs if the
    # best stake were known, 86 if it is not; episodes come in groups of 8.
    few = [contender(ITSELF, 10, ALWAYS[:20], steps_of=""), contender("3 own steps", 3, ALWAYS[:20])]
    assert verdict(*few).endswith("That takes 88 episodes, even if no pair differs: --episodes 88")
    nearly = contender("5 own steps", 5, [1.0] * (N - 4) + [0.0] * 4)
    assert verdict(WAYS[0], nearly).endswith("Play more: --episodes 256")


def test_more_ways_take_more_episodes_because_each_may_seem_better_by_chance():
    alike = [contender(f"{steps} own steps", steps, ALWAYS[:88]) for steps in (5, 3, 2)]
    own = contender(ITSELF, 10, ALWAYS[:88], steps_of="")
    assert Comparison((own, alike[0]), Quantiles(0.02, 0.02)).recommended is alike[0]
    assert verdict(own, *alike).endswith("That takes 112 episodes, even if no pair differs: --episodes 112")


@pytest.mark.slow
def test_looking_again_and_again_at_many_ways_hardly_ever_recommends_one_that_loses_the_margin():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        own = rng.random(640) < 0.7
        # Each fails in .15 where the policy succeeds, and gains .10 of all: it loses .05, the margin.
        ways = [np.where(own, rng.random(640) > 1 / 7, rng.random(640) < 1 / 6) for _ in range(4)]
        seen = [
            Comparison(
                tuple(contender(str(k), 10 - k, way[:n], steps_of="") for k, way in enumerate([own, *ways])),
                Quantiles(0.02, 0.02),
            ).recommended
            for n in (80, 160, 320, 640)
        ]
        wrong += any(seen)
    assert wrong <= 11  # 3 sigma of 100 beyond .05


def test_a_policy_that_never_succeeds_has_nothing_to_keep():
    never = [contender(ITSELF, 10, [0.0] * N, steps_of=""), contender("3 own steps", 3, [0.0] * N)]
    assert verdict(*never).startswith("The policy itself hardly succeeds here, 0.000 [0.000, 0.029]")


def test_scores_that_are_all_alike_are_shown_no_sooner_than_successes():
    few = [contender(ITSELF, 10, [0.5] * 80, steps_of=""), contender("3 own steps", 3, [0.5] * 80)]
    assert verdict(*few, quantity="score").endswith("--episodes 88")  # the bootstrap's interval has no width here


def test_where_no_way_is_faster_none_is_recommended():
    slow = contender("bac.json: reuse", 10, ALWAYS, steps_of="", p50_ms=12.0)
    assert verdict(WAYS[0], slow) == "No way that was played is faster than the policy itself"


def test_scores_have_an_interval_of_their_mean():
    scores = Comparison((contender(ITSELF, 10, [0.5] * 4, steps_of=""),), Quantiles(0.02, 0.02), "score")
    found = scores.mean(scores.contenders[0])
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_it_is_kept_with_every_episode_and_comes_back(tmp_path):
    COMPARISON.save(tmp_path / "bac.compared.json")
    document = json.loads((tmp_path / "bac.compared.json").read_text())
    assert document["env"] == "pusht" and document["rows"][3]["results"] == HALF
    assert Comparison.load(tmp_path / "bac.compared.json") == COMPARISON


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda document: document.pop("rows"), "rows: is missing"),
        (lambda document: document.update(rows=[]), "rows: must be at least one"),
        (lambda document: document["rows"][0].update(results=[1.0]), "the same number of results"),
        (lambda document: document["rows"][0].update(results=[2.0] * N), r"results: must be in \[0, 1\]"),
        (lambda document: document["rows"][0].update(p50_s=0.0), "must be positive numbers, got 0"),
        (lambda document: document.update(margin="x"), "margin: is of another type"),
        (lambda document: document.update(quantity="joy"), "must be success or score"),
        (lambda document: document.update(version=2), "is no table of bac compare, version 1"),
    ],
)
def test_another_document_is_one_sentence(tmp_path, damage, word):
    document = COMPARISON.to_document()
    damage(document)
    (tmp_path / "bac.compared.json").write_text(json.dumps(document))
    with pytest.raises(BacError, match=f"{word}.*Make it anew: bac compare"):
        Comparison.load(tmp_path / "bac.compared.json")


def test_it_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    COMPARISON.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


class World:
    """Success of an episode is its seed modulo the number of steps; the world may be stopped."""

    def __init__(self, stop_at=None):
        self.asked, self.stop_at = [], stop_at

    def __call__(self, way, seeds):
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append((way.num_steps, tuple(seeds)))
        return [float(seed % way.num_steps == 0) for seed in seeds]


TWO, THREE = bac.Denoising(num_steps=2), bac.Denoising(num_steps=3)


def test_all_ways_play_a_group_before_the_next_one_begins():
    world = World()
    found = play_all(world, {"two": TWO, "three": THREE}, range(6, 10), at_once=2, progress=False)
    assert world.asked == [(2, (6, 7)), (3, (6, 7)), (2, (8, 9)), (3, (8, 9))]
    assert found == {"two": (1.0, 0.0, 1.0, 0.0), "three": (1.0, 0.0, 0.0, 1.0)}


def test_what_was_played_when_it_was_stopped_is_paired():
    found = play_all(World(stop_at=3), {"two": TWO, "three": THREE}, range(6, 10), at_once=2, progress=False)
    assert found == {"two": (1.0, 0.0), "three": (1.0, 0.0)}


def test_if_nothing_is_paired_yet_the_stop_is_passed_on():
    with pytest.raises(KeyboardInterrupt):
        play_all(World(stop_at=1), {"two": TWO, "three": THREE}, range(4), at_once=2, progress=False)


def test_a_result_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        play_all(lambda way, seeds: [7.0], {"two": TWO}, range(1), progress=False)


def test_own_steps_that_take_as_long_lie_on_a_line_through_two_timed_numbers():
    # 1 ms, and 2 ms a step: 100 steps take 201 ms, 25 take 51; 41 ms are 20 steps, with 5 % to spare 21.
    assert as_fast(0.041, (100, 0.201), (25, 0.051)) == 21
    assert as_fast(0.0001, (100, 0.201), (25, 0.051)) == 1
    assert as_fast(9.0, (100, 0.201), (25, 0.051)) == as_fast(0.041, (100, 0.05), (25, 0.06)) == 100


def test_a_policy_whose_number_of_steps_is_its_own_has_no_rivals():
    host = find_host(TinyTransformerPolicy(num_steps=6, num_layers=1))
    with pytest.raises(ScheduleError, match="cannot be changed"):
        rivals(host, [3])
    with pytest.raises(ScheduleError, match="at least 1, got 0"):
        rivals(host, [3, 0])
    assert rivals(host, []) == {}


@pytest.mark.parametrize(("solver", "own"), [("DDPM", "DDPM"), ("DDIM", "DPM-Solver++ 1")])
def test_a_diffusion_policy_has_its_own_solver_and_dpm_solver_for_rivals(solver, own):
    pytest.importorskip("lerobot")
    from tests.policies.models import small_policy

    policy = small_policy(n_layer=1, noise_scheduler_type=solver)
    policy.diffusion.use_solver(solver, 8)
    host = find_host(policy)
    found = rivals(host, [2, 1, 8])
    assert list(found) == [
        f"2 own steps, {own}", f"1 own step, {own}", "2 steps of DPM-Solver++", "1 step of DPM-Solver++"
    ]  # fmt: skip
    assert found[f"2 own steps, {own}"].timesteps == (host.timesteps[0], host.timesteps[4])
