"""The experiment on flow-matching policies, on an untrained one: errors, and the tables made of them."""

from types import SimpleNamespace

import pytest

from eval.experiments.flow import experiment
from eval.experiments.flow.report import changed_markdown, correlations, markdown, publish
from eval.measure.closed_loop import closed_loop
from eval.play.rollout import EpisodeResult
from eval.setup.cells import Cell, itself, made_on
from tests.policies.models import observations, small_policy

OPTIONS = SimpleNamespace(
    steps=[2], few_observations=[4], presets=[3], play=["Euler-2"], pairs=[], num_fit=8, num_held_out=6, rounds=2
)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    policy = small_policy(
        n_layer=1, noise_scheduler_type="FlowMatchEuler", prediction_type="velocity", num_inference_steps=10
    )
    settings = SimpleNamespace(folder=tmp_path_factory.mktemp("flow"), make_env=None, n=3, judged_by_score=False)
    comparison = SimpleNamespace(loaded=SimpleNamespace(policy=policy), settings=settings, results=lambda cell: [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "visited", lambda loaded, make_env, seed, count, **_: observations(count))
        return experiment.Flow(comparison, OPTIONS)


@pytest.mark.slow
def test_the_policy_itself_is_at_no_distance_from_its_own_steps(flow):
    errors = flow.errors()
    assert errors["Euler-10"]["to_own"][0] == 0.0 < errors["Euler-10"]["to_flow"][0]
    assert [cell.name for cell in flow.cells] == [
        "Euler-10", "Euler-2", "Euler-2 tuned", "AB2-2 tuned", "fitted-2", "fitted-2 to own", "Euler-50",
        "fitted-3, 4 observations", "preset-3",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_was_fitted_is_nearer_to_the_flow_than_as_many_own_steps(flow):
    errors = flow.errors()
    assert errors["fitted-2"]["to_flow"][1] < errors["Euler-2"]["to_flow"][1]


@pytest.mark.slow
def test_rows_are_read_back_and_know_what_they_were_made_on(flow):
    cell = next(cell for cell in flow.cells if cell.name == "fitted-2")
    assert Cell.from_document(cell.to_document()) == cell and cell.steps == 2
    assert (itself(cell).solver, itself(cell).num_steps) == ("FlowMatchEuler", 10)
    assert made_on(cell.denoising).solver == "DDIM"  # no fingerprint: it was not tuned


@pytest.mark.slow
def test_a_fit_costs_a_hundred_evaluations_for_the_reference_and_one_for_each_step(flow):
    costs = flow.costs()
    assert costs["reference"][0] == 100 and costs["reference and fit"][0] == 103


@pytest.mark.slow
def test_tables_have_a_row_for_every_way(flow, tmp_path, monkeypatch):
    monkeypatch.setattr(type(flow), "latencies_ms", lambda self: {"Euler-2": {"p50_ms": 1.5}})
    table = flow.table()
    lines = markdown(table)
    assert len(lines) == 2 + len(flow.cells)
    assert "| Euler-2 | 2 | even |" in "\n".join(lines) and "| 1.50 |" in "\n".join(lines)
    changed = flow.changed()
    assert set(changed) == {"Euler-2", "fitted-2"} and "noise x 1.5" in changed_markdown(changed)[0]
    publish(tmp_path, "toy", table, changed, flow.costs(), flow.latencies_ms())
    assert {"table.md", "changed.md", "steps.png", "table.json"} <= {file.name for file in tmp_path.iterdir()}


def test_closed_loop_compares_pairs():
    def episode(seed: int, success: bool) -> EpisodeResult:
        return EpisodeResult(seed=seed, success=success, score=float(success), num_control_steps=1)

    own, other = [episode(seed, True) for seed in range(4)], [episode(seed, seed > 0) for seed in range(4)]
    found = closed_loop(own, other, by_score=False)
    assert (found["n"], found["success"][0], found["difference"][0]) == (4, 0.75, -0.25)


def test_a_distance_that_orders_the_rows_as_their_loss_does_has_the_rank_correlation_one():
    def row(name: str, error: float, loss: float) -> dict:
        return {"name": name, "n": 9, "difference": [-loss], "energy": [-error], "to_flow": [error, error],
                "to_own": [error, error]}  # fmt: skip

    found = correlations([row("Euler-10", 9.0, 0.0), row("a", 1.0, 0.1), row("b", 2.0, 0.2), row("c", 3.0, 0.5)])
    assert found["error to the flow, rms"] == pytest.approx(1.0)  # the policy's own row does not count
    assert found["energy distance"] == pytest.approx(-1.0)
