import collections

import dill
import pytest
import torch
from lerobot.utils.constants import OBS_STATE
from omegaconf import OmegaConf

import policies
from policies.convert import ConversionError, convert
from policies.diffusion_transformer.transformer import TransformerForDiffusion
from tests.policies.models import reference_denoiser

OBSERVED, ACTIONS, HORIZON, WIDTH = 5, 3, 11, 26

OPTIONS = """
_target_: diffusion_policy.workspace.train_diffusion_transformer_lowdim_workspace.Workspace
horizon: 11
n_obs_steps: 2
n_action_steps: 4
obs_as_cond: true
pred_action_steps_only: false
policy:
  _target_: diffusion_policy.policy.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy
  model:
    input_dim: ${eval:'__import__("os").abort()'}
    horizon: ${horizon}
    n_head: 2
    p_drop_emb: 0.0
    p_drop_attn: 0.01
  noise_scheduler:
    num_train_timesteps: 100
    beta_start: 0.0001
    beta_end: 0.02
    beta_schedule: squaredcos_cap_v2
    variance_type: fixed_small
    clip_sample: true
    prediction_type: epsilon
"""


class Workspace:
    """Stands for a class of the authors' program, whose state a reader must not run."""

    def __setstate__(self, state):
        raise AssertionError("the checkpoint's own code was executed")

    def __getstate__(self):
        return {"epoch": 850}


def authors_state(seed):
    """A policy's state dict in the authors' layout: denoiser, normaliser, mask generator."""
    torch.manual_seed(seed)
    denoiser = TransformerForDiffusion(ACTIONS, ACTIONS, HORIZON, 2, OBSERVED, n_layer=2, n_head=2, n_emb=WIDTH)
    state = collections.OrderedDict((f"model.{name}", value) for name, value in denoiser.state_dict().items())
    for key, size in (("obs", OBSERVED), ("action", ACTIONS)):
        state[f"normalizer.params_dict.{key}.scale"] = torch.rand(size) + 0.5
        state[f"normalizer.params_dict.{key}.offset"] = torch.randn(size)
        for name in ("min", "max", "mean", "std"):
            state[f"normalizer.params_dict.{key}.input_stats.{name}"] = torch.zeros(size)
    state["mask_generator._dummy_variable"] = torch.empty(0)
    state["_dummy_variable"] = torch.empty(0)
    return state


def write(path, options=OPTIONS, **state_dicts):
    """A checkpoint as the authors' workspace writes one, pickled by dill."""
    state_dicts = state_dicts or {"model": authors_state(0), "ema_model": authors_state(1)}
    pickles = {"_output_dir": dill.dumps("data/outputs"), "workspace": Workspace()}
    payload = {"cfg": OmegaConf.create(options), "state_dicts": state_dicts, "pickles": pickles}
    torch.save(payload, path, pickle_module=dill)
    return path


@pytest.mark.parametrize(("weights", "seed"), [(None, 1), ("ema_model", 1), ("model", 0)])
def test_a_converted_policy_acts_as_the_checkpoint_written_out(tmp_path, weights, seed):
    convert(write(tmp_path / "authors.ckpt"), tmp_path / "ours", weights)
    policy, preprocessor, postprocessor = policies.load(tmp_path / "ours")
    policy.diffusion.use_solver("DDIM", 1, "trailing")
    generator = torch.Generator().manual_seed(2)
    observation, noise = torch.randn(7, 2, OBSERVED, generator=generator), torch.randn(7, HORIZON, ACTIONS)
    got = postprocessor(policy.predict_action_chunk(preprocessor({OBS_STATE: observation}), noise=noise))

    state = authors_state(seed)
    scale = {key: state[f"normalizer.params_dict.{key}.scale"] for key in ("obs", "action")}
    offset = {key: state[f"normalizer.params_dict.{key}.offset"] for key in ("obs", "action")}
    denoiser = {name.removeprefix("model."): value for name, value in state.items()}
    cond = observation * scale["obs"] + offset["obs"]
    predicted = reference_denoiser(denoiser, noise, 99, cond, num_heads=2)
    alpha = policy.diffusion.noise_scheduler.alphas_cumprod[99]
    clean = ((noise - (1 - alpha).sqrt() * predicted) / alpha.sqrt()).clamp(-1, 1)
    want = (clean[:, 1:5] - offset["action"]) / scale["action"]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_sizes_come_from_the_weights_and_the_rest_from_the_options(tmp_path):
    config = convert(write(tmp_path / "authors.ckpt"), tmp_path / "ours").config
    assert (config.n_layer, config.n_cond_layers, config.n_emb, config.n_head) == (2, 0, 26, 2)
    assert (config.horizon, config.n_obs_steps, config.n_action_steps) == (11, 2, 4)
    assert (config.causal_attn, config.p_drop_attn, config.clip_sample) == (True, 0.01, True)
    assert (config.beta_schedule, config.num_train_timesteps) == ("squaredcos_cap_v2", 100)


@pytest.mark.parametrize(
    ("key", "target", "kind"),
    [
        ("model.down_modules.0.0.blocks.0.block.0.weight", "DiffusionUnetLowdimPolicy", "convolutional U-Net"),
        ("obs_encoder.obs_nets.image.weight", "DiffusionTransformerHybridImagePolicy", "image observations"),
        ("model.encoder.layers.0.norm1.weight", "DiffusionTransformerLowdimPolicy", "not a transformer decoder"),
    ],
)
def test_another_policy_is_refused_by_name(tmp_path, key, target, kind):
    options = OPTIONS.replace("DiffusionTransformerLowdimPolicy", target)
    path = write(tmp_path / "other.ckpt", options, model={key: torch.zeros(1)})
    with pytest.raises(ConversionError, match=f"this is {target}, .*{kind}.*Only DiffusionTransformerLowdimPolicy"):
        convert(path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_option_that_is_an_expression_is_refused_not_evaluated(tmp_path):
    options = OPTIONS.replace("n_head: 2", "n_head: ${eval:'2 + 2'}")
    with pytest.raises(ConversionError, match=r"n_head must be a plain int, got .\$\{eval"):
        convert(write(tmp_path / "authors.ckpt", options), tmp_path / "ours")


def test_files_that_are_no_such_checkpoint_are_named(tmp_path):
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(ConversionError, match="not a checkpoint that torch.save wrote"):
        convert(tmp_path / "text.ckpt", tmp_path / "ours")
    with pytest.raises(ConversionError, match="hold 'cfg' and 'state_dicts', this does not"):
        convert(tmp_path / "other.ckpt", tmp_path / "ours")
    with pytest.raises(FileNotFoundError, match="no such file"):
        convert(tmp_path / "none.ckpt", tmp_path / "ours")
    with pytest.raises(ConversionError, match=r"no 'ema_model' weights, it has \['model'\]"):
        convert(write(tmp_path / "raw.ckpt", model=authors_state(0)), tmp_path / "ours", "ema_model")
