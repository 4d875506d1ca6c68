from pathlib import Path

import hydra
import pytest
import torch

import policies
from policies.demonstrations import Demonstrations
from policies.train import train
from policies.trainer import Trainer
from tests.policies.models import observations, write_demonstrations

CONFIGS = str(Path(__file__).parents[2] / "configs")
SMALL = ["policy.n_layer=1", "policy.n_head=2", "policy.n_emb=26", "batch_size=17", "log_every=5", "held_out=0.2"]


@pytest.fixture
def options(tmp_path):
    """Compose `configs/train.yaml` for a tiny run under `tmp_path`."""
    write_demonstrations(tmp_path / "demo.zarr", lengths=[23, 19, 29, 31, 37])

    def compose(name, *overrides):
        paths = [f"data={tmp_path}/demo.zarr", f"output={tmp_path}/{name}", f"state={tmp_path}/{name}.pt"]
        with hydra.initialize_config_dir(CONFIGS, version_base=None):
            return hydra.compose("train", [*SMALL, *paths, *overrides])

    return compose


@pytest.mark.slow
def test_training_writes_a_checkpoint_that_loads_and_was_measured(options, tmp_path):
    trainer = train(options("run", "steps=10", "save_every=5"))
    loaded = policies.load(tmp_path / "run", solver="DDIM", num_inference_steps=10)
    batch = observations(3)
    noise = torch.zeros(3, 16, 7)
    chunks = [
        policy.predict_action_chunk(batch, noise=noise, generator=torch.Generator().manual_seed(0))
        for policy in (loaded.policy, trainer.averaged)
    ]
    assert torch.equal(*chunks)
    assert [row["step"] for row in trainer.rows] == [5, 10]
    assert all(row["held_out_error"] > 0 for row in trainer.rows)
    assert "| Steps | 10 of 10 updates, batch 17" in (tmp_path / "run/README.md").read_text()
    assert (tmp_path / "run/train.csv").read_text().startswith("step,loss,held_out_error,learning_rate,seconds\n5,")
    assert (tmp_path / "run/training_curve.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(options, tmp_path, dtype):
    whole = train(options("whole", "steps=10", "save_every=5", f"dtype={dtype}"))
    interrupted = Trainer(options("part", "steps=10", f"dtype={dtype}"), Demonstrations.load(tmp_path / "demo.zarr"))
    for _ in range(5):
        interrupted.update()
    interrupted.save(tmp_path / "part.pt", tmp_path / "part")
    resumed = train(options("part", "steps=10", "save_every=5", "resume=true", f"dtype={dtype}"))
    assert resumed.step == 10
    for name, parameter in whole.averaged.named_parameters():
        assert torch.equal(parameter, resumed.averaged.state_dict()[name]), name


def test_weights_are_saved_in_another_dtype_and_are_what_was_measured(options):
    whole, halved = (train(options(name, "steps=5", f"saved_dtype={name}")) for name in ("float32", "bfloat16"))
    sizes = [(Path(run.cfg.output) / "model.safetensors").stat().st_size for run in (whole, halved)]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = policies.load(halved.cfg.output).policy
    for name, weight in loaded.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, halved.averaged.state_dict()[name]), name
        assert torch.equal(weight, whole.averaged.state_dict()[name].bfloat16().float()), name


@pytest.mark.slow
def test_a_run_resumed_for_other_steps_takes_the_learning_rate_of_those(options):
    train(options("short", "steps=10"))
    longer = train(options("short", "steps=40", "log_every=1", "resume=true"))
    anew = train(options("anew", "steps=40", "log_every=1"))
    rates = [[row["learning_rate"] for row in run.rows if row["step"] > 11] for run in (longer, anew)]
    assert rates[0] == pytest.approx(rates[1]) and rates[0][0] > rates[0][-1] > 0


@pytest.mark.slow
def test_training_lowers_the_loss(options):
    trainer = train(options("run", "steps=150", "save_every=75", "learning_rate=0.005"))
    assert trainer.rows[-1]["loss"] < 0.9 < trainer.rows[0]["loss"]


def test_held_out_episodes_are_the_last_and_are_not_trained_on(options, tmp_path):
    trainer = Trainer(options("run"), Demonstrations.load(tmp_path / "demo.zarr"))
    assert (len(trainer.windows), len(trainer.held_out)) == (23 + 19 + 29 + 31, 37)
    assert trainer.windows.action_rows.max() == 23 + 19 + 29 + 31 - 1


def test_resuming_without_a_state_names_the_remedy(options):
    with pytest.raises(FileNotFoundError, match="nothing to resume.*resume=false"):
        train(options("run", "resume=true"))
