"""The image experiment: its measures, its methods, the shipped model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bac
from bac.solvers import SOLVERS
from eval.experiments.images.data import Digits, load
from eval.experiments.images.experiment import Gallery, ImageRow, best_of, measure, steps_in
from eval.experiments.images.features import Classifier, frechet_distance, load_classifier, psnr
from eval.experiments.images.methods import ImageMethods
from eval.experiments.images.model import load_transformer, make_loop, make_pipeline, new_transformer
from eval.experiments.images.report import lines, publish, table, verdict
from eval.experiments.images.sampling import applied, batch_of, generators, labels, pictures, ready
from eval.experiments.images.timing import cell_of_row, compare, steps_as_long
from eval.experiments.methods.catalogue import sweeps_of
from eval.setup.cells import dense

RESULTS = Path(__file__).parents[3] / "results" / "images"


def row(scheduler: str, *psnr: float, rival: float | None = None, **given) -> ImageRow:
    values = {"estimator": "hold", "solver": "DDIM", "num_steps": 50, "share": 0.2, "cells": 0.2, "latency_ms": 1.0}
    judged = {"speedup": 4.0, "frechet_dense": 0.0, "frechet_real": 0.0, "accuracy": 1.0, "rival_steps": 13}
    judged |= {"fit_psnr": sum(psnr)}
    return ImageRow(scheduler=scheduler, psnr=psnr, rival_psnr=rival, **{**values, **judged, **given})


def test_psnr_of_an_error_of_a_tenth_of_the_peak_is_20_db():
    reference = torch.zeros(2, 1, 8, 8)
    assert psnr(reference + 0.2, reference) == pytest.approx(20.0, abs=1e-4)


def test_frechet_distance_of_shifted_features_is_the_shift_squared():
    features = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(features + torch.tensor([3.0, 0.0, 4.0]), features) == pytest.approx(25.0, abs=1e-4)


def test_frechet_distance_of_wider_features_is_the_difference_of_deviations_squared():
    features = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    deviation = float(features.std())
    assert frechet_distance(3 * (features - features.mean()), features - features.mean()) == pytest.approx(
        4 * deviation**2, rel=1e-4
    )


def test_digits_are_split_by_writer_and_span_minus_one_to_one():
    learned_from, held_out = load()
    assert (len(learned_from.images), len(held_out.images)) == (1500, 297)
    assert (learned_from.images.min(), learned_from.images.max()) == (-1, 1)


def test_equal_latency_rounds_in_favour_of_fewer_steps():
    assert steps_in(row("uniform", 30.0)) == 13  # 50 / 4 = 12.5
    assert steps_in(row("uniform", 30.0, speedup=0.9)) == 50


def test_the_best_is_chosen_where_methods_are_made_and_not_where_they_are_judged():
    rows = [
        row("searched", 30.0, fit_psnr=41.0),
        row("uniform", 39.0, fit_psnr=40.0),
        row("fewer steps", fit_psnr=50.0),
    ]
    assert best_of(rows, 0.2).scheduler == "searched"


def test_steps_that_take_as_long_are_read_off_a_line_and_rounded_up():
    assert steps_as_long([10, 20], [1.0, 2.0], cost=1.55) == 16
    assert steps_as_long([10, 20], [2.0, 3.0], cost=2.5) == 15


def test_the_verdict_takes_the_worst_seed():
    rows = [row("uniform", 30.0, 31.0, rival=28.0), row("matched", 39.0, 38.5, rival=28.0, estimator="taylor-1")]
    assert list(verdict(rows)) == [
        "DDIM at 20% of the cells: matched + taylor-1 is +7.5 to +9.0 dB over uniform reuse on 2 seeds (aim +8) and "
        "+10.8 dB over 13 dense steps, which take as long (aim +10): not met."
    ]


def test_the_table_puts_the_best_of_a_share_first():
    lines = list(table([row("uniform", 30.0, rival=28.0), row("matched", 39.0, rival=28.0)]))
    assert [line.split(" | ")[2] for line in lines[2:]] == ["matched", "uniform"]


@pytest.mark.parametrize(("solver", "scheduler"), [("ddim", "fitted"), ("dpm", "fitted")])
def test_the_best_method_of_a_measurement_in_results_can_be_run_again(solver, scheduler):
    stored = json.loads((RESULTS / solver / "rows.json").read_text())["rows"]
    best = best_of(map(ImageRow.from_document, stored), 0.2)
    cell = cell_of_row(make_loop(new_transformer(num_layers=1)), best)
    assert (cell.family, cell.steps, cell.num_steps) == (scheduler, 10, 50)
    assert cell.denoising.timesteps == best.places


@pytest.mark.slow
class TestOnAnUntrainedModel:
    @pytest.fixture
    def loop(self):
        torch.manual_seed(0)
        return make_loop(new_transformer(num_layers=3).eval())

    @pytest.mark.parametrize("solver", ["DDIM", "DPM-Solver++"])
    def test_the_loop_makes_the_pictures_of_the_pipeline(self, loop, solver):
        pipe = make_pipeline(loop.transformer)
        with applied(loop, dense(3, solver)):
            pipe.scheduler = loop.noise_scheduler
            made = pictures(loop, batch_of(2, seed=5))
        options = {"num_inference_steps": 3, "output_type": "np", "guidance_scale": 1.0}
        images = pipe(class_labels=labels(2), generator=generators(2, seed=5), **options).images
        assert torch.equal(made / 2 + 0.5, torch.from_numpy(images).permute(0, 3, 1, 2))

    def test_a_picture_depends_on_its_place_and_seed_only(self, loop):
        with applied(loop, dense(3, "DPM-Solver++")):
            many, few = (pictures(loop, batch_of(count, seed=5)) for count in (5, 2))
        torch.testing.assert_close(many[:2], few, atol=1e-3, rtol=0)

    def test_methods_keep_to_their_share_of_the_cells(self, loop):
        made = ImageMethods(loop, "DDIM", 10, count=2, evaluations=3)
        pairs = [("uniform", "hold"), ("bac", "hold"), ("searched", "newton-2"), ("unified", "fitted_forecast")]
        pairs.append(("fitted", "multistep"))
        cells = list(made.methods(0.3, pairs))
        assert [sweeps_of(cell) for cell in cells if cell.family != "bac"] == [3.0, 3.0, 3.0, 3.0]
        assert 1.0 <= sweeps_of(cells[1]) <= 3.5

    def test_searched_steps_serve_no_worse_than_even_ones_where_they_were_searched(self, loop):
        made = ImageMethods(loop, "DDIM", 6, count=2, evaluations=5)
        uniform, searched = made.methods(0.5, [("uniform", "taylor-1"), ("searched", "taylor-1")])
        assert made.fit_psnr(searched) >= made.fit_psnr(uniform)

    def test_fitted_steps_are_closer_than_as_many_even_ones_and_timed_like_any_method(self, loop):
        made = ImageMethods(loop, "DDIM", 8, count=2, evaluations=1)
        (fitted,) = made.methods(0.5, [("fitted", "multistep")])
        assert made.fit_psnr(fitted) > made.fit_psnr(made.even(4))
        assert (fitted.steps, fitted.num_steps, fitted.denoising.solver.name) == (4, 8, "fitted multistep")
        given = {"places": fitted.denoising.timesteps, "weights": fitted.denoising.solver.coefficients}
        assert cell_of_row(loop, row("fitted", num_steps=8, **given)) == fitted

    def test_timing_compares_a_method_with_dense_runs_in_the_same_rounds(self, loop):
        made = ImageMethods(loop, "DDIM", 8, count=2, evaluations=1)
        (every,) = made.methods(1.0, [("uniform", "hold")])
        timing = compare(loop, every, batch_size=2, rounds=1)
        assert (timing["batch_size"], sorted(timing["speedup_of_fewer"])) == (2, [2, 3])

    def test_fewer_steps_are_placed_by_the_same_search(self, loop):
        made = ImageMethods(loop, "DDIM", 6, count=2, evaluations=3)
        even, first, second = made.fewer(3)
        assert even == replace(dense(3, "DDIM"), name=even.name)
        assert (first.denoising.solver, second.denoising.solver) == SOLVERS
        assert (first.steps, second.steps, sweeps_of(first), sweeps_of(second)) == (3, 3, 3.0, 3.0)

    def test_updating_everywhere_is_the_dense_method_and_so_is_its_replay(self, loop):
        made = ImageMethods(loop, "DDIM", 4, count=2)
        (every,) = made.methods(1.0, [("uniform", "hold")])
        with applied(loop, made.dense):
            uncached = pictures(loop, batch_of(3, 0))
        replayed = ready(loop, every, batch_of(3, 0))
        assert torch.equal(pictures(replayed, batch_of(3, 0)), uncached)
        assert bac.describe(replayed).num_replays >= 1

    def test_a_method_leaves_the_loop_as_it_was(self, loop):
        made = ImageMethods(loop, "DDIM", 4, count=2, evaluations=1)
        before = vars(loop).copy()
        for cell in (*made.methods(0.5, [("uniform", "taylor-1"), ("fitted", "multistep")]), *made.fewer(2)):
            with applied(loop, cell):
                pictures(loop, batch_of(2, 0))
            assert vars(loop) == before

    def test_the_experiment_compares_each_pair_with_its_solver(self, loop, tmp_path):
        real = Digits(torch.rand(40, 1, 8, 8), torch.zeros(40, dtype=torch.long))
        torch.manual_seed(0)
        gallery = Gallery(loop, Classifier().eval(), real, count=3, seeds=[0, 1])
        shown = measure(gallery, _Preset())
        rows = [its.row for its in shown]
        assert [row.scheduler for row in rows][:3] == ["dense", "uniform", "searched"]
        assert rows[0].psnr == () and rows[0].frechet_dense == pytest.approx(0.0, abs=1e-3)
        assert all(len(row.psnr) == 2 and row.rival_psnr is not None for row in rows[1:3])
        json.dumps([vars(row) for row in rows], allow_nan=False)
        assert min(row.latency_ms for row in rows) > 0
        assert [len(its.cpu_s) for its in shown[1].samples] == [2, 2]
        publish(tmp_path / "new", shown, num_images=3)
        stored = json.loads((tmp_path / "new" / "rows.json").read_text())["rows"]
        assert list(map(ImageRow.from_document, stored)) == rows
        assert (tmp_path / "new" / "table.md").read_text().splitlines() == lines(rows)
        assert (tmp_path / "new" / "ddim.png").stat().st_size > 1000


class _Preset:
    num_steps, num_calibration, evaluations, solvers = 5, 2, 3, ("DDIM",)
    pairs = ((0.2, (("uniform", "hold"), ("searched", "taylor-1"))),)


@pytest.mark.slow
def test_the_shipped_model_draws_what_it_is_asked_for():
    loop = make_loop(load_transformer(), 10)
    images = pictures(loop, batch_of(30, seed=0))
    assert load_classifier().accuracy(images, torch.tensor(labels(30))) >= 0.7


def test_the_classifier_reads_digits_of_other_writers():
    assert load_classifier().accuracy(*load()[1]) >= 0.9
