"""The image model that flow matching trained, and its few-step solvers."""

import json
from pathlib import Path

import pytest
import torch

from eval.experiments.images.data import load
from eval.experiments.images.features import load_classifier
from eval.experiments.images.flow import FINE, FITTED, OWN, TUNED, FlowRow, make_flow_loop, measure, table
from eval.experiments.images.model import FLOW_CHECKPOINT, load_transformer
from eval.experiments.images.sampling import batch_of, pictures
from eval.experiments.images.train import train_transformer, velocity_loss

PUBLISHED = Path(__file__).parents[3] / "results/images/flow"


@pytest.fixture(scope="module")
def rows():
    loop = make_flow_loop(load_transformer(FLOW_CHECKPOINT))
    return list(measure(loop, load_classifier(), steps=(3,), own_steps=(10,), count=20, seeds=(0,)))


def test_the_loss_of_predicting_no_velocity_is_that_of_noise_minus_picture():
    class Still(torch.nn.Module):
        def forward(self, x, timestep, class_labels):
            self.told = timestep
            return type("Output", (), {"sample": torch.zeros_like(x)})

    model, images = Still(), torch.full((5, 1, 8, 8), 2.0)
    torch.manual_seed(0)
    loss = velocity_loss(model, images, torch.zeros(5, dtype=torch.long))
    torch.manual_seed(0)
    noise, share = torch.randn(5, 1, 8, 8), torch.rand(5)
    torch.testing.assert_close(loss, (noise - 2).square().mean())
    torch.testing.assert_close(model.told, 1000 * share)


@pytest.mark.slow
def test_the_shipped_model_paints_digits_that_the_classifier_reads(rows):
    assert [row.way for row in rows] == [FINE, OWN, TUNED, FITTED, OWN]
    assert rows[0].accuracy > 0.85 and rows[0].psnr == ()


@pytest.mark.slow
def test_three_fitted_steps_are_nearer_to_the_flow_than_three_at_tuned_times_and_than_even_ones(rows):
    even, tuned, fitted = (row.psnr[0] for row in rows[1:4])
    assert fitted > tuned + 2 > even + 4
    assert fitted == pytest.approx(_published(FITTED, 3), abs=1.5)  # of 60 pictures fewer


@pytest.mark.slow
def test_measuring_leaves_the_loop_as_it_was():
    loop = make_flow_loop(load_transformer(FLOW_CHECKPOINT), 4)
    before = pictures(loop, batch_of(2, 0))
    list(measure(loop, load_classifier(), steps=(), own_steps=(2,), count=40, seeds=(0,)))
    assert torch.equal(pictures(loop, batch_of(2, 0)), before)


@pytest.mark.slow
def test_training_by_flow_matching_lowers_the_loss():
    losses = []

    def watched(model, images, labels):
        losses.append(velocity_loss(model, images, labels))
        return losses[-1]

    train_transformer(load()[0], 40, watched)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_published_table_is_that_of_its_rows():
    record = json.loads((PUBLISHED / "rows.json").read_text())
    rows = [FlowRow(**row) for row in record["rows"]]
    assert record["provenance"]["command"] == "python -m eval.experiments.images.flow results/images/flow"
    assert (PUBLISHED / "table.md").read_text().splitlines() == list(table(rows))


def _published(way, num_steps):
    record = json.loads((PUBLISHED / "rows.json").read_text())
    (row,) = (row for row in record["rows"] if (row["way"], row["num_steps"]) == (way, num_steps))
    return sum(row["psnr"]) / len(row["psnr"])
