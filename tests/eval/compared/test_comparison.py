"""The whole comparison on a tiny random policy in Push-T: phases, resuming, pairing, files."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.sim]

KEYS = [
    *("name", "task", "n", "success", "success_low", "success_high", "score", "paired_diff", "paired_low"),
    *("paired_high", "latency_p50_ms", "latency_p95_ms", "speedup", "flops_ratio", "sweeps", "action_error"),
    *("energy_distance", "energy_low", "energy_high"),
]


@pytest.fixture(scope="module")
def settings(pusht_settings):
    return pusht_settings(
        max_episode_steps=11,
        n=3,
        pool_size=2,
        num_bubbled=2,
        num_distance_draws=2,
        num_observations=3,
        num_observation_episodes=2,
        executor="interpret",
        latency_rounds=3,
        few_steps=(2, 3),
        realtime_n=2,
    )


@pytest.fixture(scope="module")
def finished(settings):
    from eval.compared.comparison import Comparison

    comparison = Comparison(settings)
    comparison.calibrate()
    comparison.measure_latency()
    comparison.play()
    return comparison


def test_the_table_has_a_row_for_every_method(finished):
    names = [cell.name for cell in finished.cells]
    sweeps = round(finished.denoising(finished.published).sweeps)
    assert names[:8] == [
        "DDPM-100",
        "BAC S=10 n=2",
        "ACS S=10, no BUA",
        "BAC S=10 n=2, last 3 forced",
        "DDIM-100",
        "BAC S=10 n=2 on DDIM-100",
        f"uniform {sweeps}",
        f"unified {sweeps}",
    ]
    rivals = finished.few_step_cells
    assert [cell.solver for cell in rivals[:3]] == ["DDPM", "DDIM", "DPM-Solver++"]
    assert all(cell.timestep_spacing in ("leading", "trailing", "linspace") for cell in rivals)
    assert {cell.num_steps for cell in rivals[3:]} <= {2, 3}


def test_every_cell_has_every_episode_and_its_latency(finished):
    for cell in finished.cells:
        assert [result.seed for result in finished.results(cell)] == [0, 1, 2]
        assert finished.latencies[cell].num_samples == 3


def test_replayed_cells_are_timed_beside_eager_dense_and_the_interceptors(finished):
    from eval.compared.matching import measure_cells

    cell = finished.published
    batch = {key: values[:1] for key, values in finished.calibrated.observations("fidelity").items()}
    timings = measure_cells(
        finished.loaded,
        {cell: finished.denoising(cell)},
        batch,
        replay=True,
        rounds=3,
        progress=False,
        intercepted=(cell,),
    )
    assert list(timings.cells) == list(timings.intercepted) == [cell]
    assert timings.eager.speedup == 1.0


def test_what_each_cell_puts_on_lies_in_a_file_that_bac_load_reads(finished):
    import bac

    folder = finished.settings.folder / "denoisings"
    assert bac.load(folder / "BAC-S=10-n=2.json") == finished.denoising(finished.published)


def test_the_tuned_policy_is_what_the_file_beside_its_weights_holds(settings, tmp_path):
    import shutil

    import bac
    from eval.compared.comparison import Comparison

    checkpoint = shutil.copytree(settings.checkpoint, tmp_path / "tuned")
    chosen = bac.Denoising("DPM-Solver++", (90, 40, 3))
    chosen.save(checkpoint / "bac.json")
    comparison = Comparison(replace(settings, policy=str(checkpoint), tuned="bac.json", outputs=tmp_path))
    (cell,) = comparison.tuned_cells
    assert (cell.name, comparison.denoising(cell), comparison.sweeps(cell)) == ("DPM-Solver++-3", chosen, 3.0)
    with pytest.raises(bac.BacError, match="four.json: there is no such file"):
        Comparison(replace(settings, tuned="four.json"))  # before anything is calibrated


def test_a_second_run_plays_nothing_again(finished, settings):
    from eval.compared.comparison import Comparison

    before, latencies = finished.log.path.read_text(), finished.latencies
    again = Comparison(settings)
    assert again.latency_is_known
    again.measure_latency()
    again.play()
    assert finished.log.path.read_text() == before and again.latencies == latencies


def test_a_cell_that_has_not_been_timed_is_timed_among_all_others_against_the_same_rivals(finished, settings):
    from eval.compared.comparison import Comparison

    more = Comparison(replace(settings, sweep_updates=(1,), sweep_bubbled=(0,)))
    assert not more.latency_is_known
    rivals, latencies = finished.few_step_cells, finished.latencies
    path = finished._file("latency")
    before = path.read_text()
    more.measure_latency()
    assert more.latency_is_known and more.few_step_cells == rivals
    assert all(more.latencies[cell] != latencies[cell] for cell in rivals)
    path.write_text(before)


def test_more_episodes_only_add(finished, settings):
    from eval.compared.comparison import Comparison
    from eval.play.workers import play_units
    from eval.setup.cells import dense

    more = Comparison(replace(settings, n=4))
    lines = len(finished.log.path.read_text().splitlines())
    play_units(more.settings, [more.unit(dense(2, "DDIM"), (0, 1, 2, 3))], more.log)
    cell = more.unit(dense(2, "DDIM"), ())
    assert sorted(more.log.episodes(cell.key)) == [0, 1, 2, 3]
    assert len(more.log.path.read_text().splitlines()) == lines + 4


def test_an_all_update_schedule_plays_the_dense_episodes(finished, settings):
    from eval.play.rollout import EnvPool, play
    from eval.setup.cells import Cell, build_denoising, dense, running

    calibration = finished.calibrated.calibration(dense())
    everything = Cell("all", cache="uniform", num_updates=100)
    pool = EnvPool(settings.make_env)
    with running(finished.loaded.policy, everything, build_denoising(everything, calibration)):
        cached = sorted(play(finished.loaded, pool, (0, 1, 2), pool_size=3), key=lambda result: result.seed)
    with running(finished.loaded.policy, dense()):
        plain = sorted(play(finished.loaded, pool, (0, 1, 2), pool_size=3), key=lambda result: result.seed)
    assert cached == plain


def test_action_error_is_zero_for_the_reference_and_undefined_for_other_noise(finished):
    errors = finished.action_errors()
    by_name = {cell.name: error for cell, error in errors.items()}
    assert (by_name["DDPM-100"], by_name["DDIM-100"]) == (0.0, 0.0)
    assert errors[finished.few_step_cells[0]] is None
    assert all(error > 0 for name, error in by_name.items() if name.startswith(("BAC", "ACS", "uni")))


def test_the_distance_of_every_cell_is_to_the_policy_itself_with_other_noise(finished):
    distances = finished.distances()
    assert list(distances) == list(finished.cells)
    itself = distances[finished.cells[0]]
    assert itself.low < 0 < itself.high or abs(itself.value) < 0.05  # the floor, unbiased
    far = {cell.name: found.value for cell, found in distances.items() if cell.name.startswith("DDIM")}
    assert max(far.values()) > itself.value
    assert finished.distances() == distances  # kept


def test_relative_errors_are_zero_at_the_first_step_and_then_what_was_held(finished):
    from bac.recording import record_features
    from eval.report.publish import relative_errors
    from eval.setup.cells import dense, running

    errors = relative_errors(finished, finished.published)
    assert errors.shape == (6, 100)
    assert np.all(errors[:, 0] == 0)
    policy = finished.loaded.policy
    with running(policy, dense()):
        features = record_features(policy, finished.calibrated.observations("fidelity"))
    stale = 0
    for row, (name, steps) in enumerate(finished.denoising(finished.published).schedule.update_steps.items()):
        if 1 not in steps:  # at step 1 the block still gives what dense gave at step 0
            held, wanted = features[name][:2].numpy()
            assert errors[row, 1] == pytest.approx(np.abs(held - wanted).mean() / np.abs(wanted).mean(), rel=1e-4)
            stale += 1
    assert stale > 0


def test_publishing_writes_the_table_and_the_pictures(finished, tmp_path):
    from eval.report.publish import publish

    publish(finished, tmp_path)
    table = json.loads((tmp_path / "table.json").read_text())
    assert [list(row) for row in table] == [KEYS] * len(finished.cells)
    first = table[0]
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()
    assert len(episodes) == 1 + 3 * len(finished.cells) + 2 * len(finished.realtime_cells)
    assert (first["name"], first["task"], first["n"], first["speedup"], first["sweeps"]) == (
        *("DDPM-100", "pusht", 3),
        *(1.0, 100.0),
    )
    assert first["paired_diff"] is None
    assert first["flops_ratio"] == 1.0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        *("table.json", "table.md", "report.md", "provenance.json", "bac_schedule.json", "episodes.csv"),
        *("success_vs_hz.png", "schedule.png", "similarity.png", "caching_error.png"),
        *("realtime.mp4", "realtime.gif", "realtime.png"),
    }
    assert (tmp_path / "report.md").read_text().startswith("# tiny on pusht\n\n")


def test_two_workers_play_what_one_plays(finished, settings, tmp_path):
    from eval.play.records import EpisodeLog
    from eval.play.workers import play_units
    from eval.setup.cells import dense

    unit = finished.unit(dense(2, "DDIM"), (0, 1, 2))
    one, two = EpisodeLog(tmp_path / "one.jsonl"), EpisodeLog(tmp_path / "two.jsonl")
    play_units(settings, [unit], one)
    play_units(replace(settings, workers=2), [unit], two)
    assert one.episodes(unit.key) == two.episodes(unit.key)
