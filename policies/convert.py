"""Convert a low-dimensional DP-T checkpoint of Diffusion Policy's authors to a LeRobot checkpoint.

::

    python -m policies.convert epoch=0850-test_mean_score=0.967.ckpt checkpoints/pusht-columbia

Their `.ckpt` is a torch zip whose pickle also names classes of their own program. The converter reads it with
``weights_only=True``: it accepts tensors and plain containers, reads the options through OmegaConf's data classes, and
replaces every other class by an inert placeholder. Nothing in the file is executed, and OmegaConf's resolvers are never
called.
"""

import argparse
import collections
import contextlib
import sys
import typing
import zipfile
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_STATE
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode
from torch import Tensor

from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)

DATA_CLASSES = (
    DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode, typing.Any, collections.defaultdict, dict, list, int
)  # fmt: skip


class ConversionError(ValueError):
    """The file is not a low-dimensional DP-T checkpoint, or no checkpoint of Diffusion Policy at all."""


class _Placeholder:
    """Replaces a class of the checkpoint that the conversion does not need."""

    def __new__(cls, *args: object, **kwargs: object) -> "_Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> "_Placeholder":  # dill writes even `dict` as a call
        return self


def convert(checkpoint: str | Path, output: str | Path, weights: str | None = None) -> DiffusionTransformerPolicy:
    """Read `checkpoint` and write a folder that `policies.load` and LeRobot read.

    All observations become "observation.state", in the order of the checkpoint's "obs". Actions keep their order too.

    Args:
        checkpoint: `.ckpt` of a `DiffusionTransformerLowdimPolicy`.
        output: Folder to write.
        weights: "ema_model" (the averaged weights) or "model"; `None` takes "ema_model" if the file has it.

    Raises:
        ConversionError: The file holds another policy or no checkpoint; the message says which.
    """
    options, state = read_checkpoint(checkpoint, weights)
    denoiser = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    config = make_config(options, denoiser)
    policy = DiffusionTransformerPolicy(config)
    policy.diffusion.transformer.load_state_dict(denoiser, strict=True)
    stats = {
        OBS_STATE: _limits(state, "obs", config.robot_state_feature.shape[0]),
        ACTION: _limits(state, "action", config.action_feature.shape[0]),
    }
    preprocessor, postprocessor = make_diffusion_transformer_pre_post_processors(config, stats)
    policy.save_pretrained(output)
    preprocessor.save_pretrained(output, config_filename="policy_preprocessor.json")
    postprocessor.save_pretrained(output, config_filename="policy_postprocessor.json")
    return policy


def read_checkpoint(path: str | Path, weights: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the options (interpolations unresolved) and one state dict of a checkpoint, without executing it.

    Args:
        path: The `.ckpt` file.
        weights: See `convert`.

    Raises:
        FileNotFoundError: There is no such file.
        ConversionError: The file is not a zip made by torch, lacks options or weights, or holds another policy.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ConversionError(f"{path}: not a checkpoint that torch.save wrote (no zip file)")
    with _only_data_classes(path):
        payload = torch.load(path, map_location="cpu", weights_only=True)
    state_dicts = payload.get("state_dicts", {}) if isinstance(payload, dict) else {}
    if "model" not in state_dicts or "cfg" not in payload:
        raise ConversionError(f"{path}: Diffusion Policy's checkpoints hold 'cfg' and 'state_dicts', this does not")
    weights = weights or ("ema_model" if "ema_model" in state_dicts else "model")
    if weights not in state_dicts:
        raise ConversionError(f"{path}: no {weights!r} weights, it has {sorted(state_dicts)}")
    options = OmegaConf.to_container(payload["cfg"], resolve=False)
    _refuse_other_policies(path, options, state_dicts[weights])
    return options, state_dicts[weights]


def _only_data_classes(path: str | Path) -> contextlib.AbstractContextManager:
    """Let `torch.load` use the real classes of `DATA_CLASSES`, and a placeholder for every other name."""
    with torch.serialization.safe_globals(list(DATA_CLASSES)):
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    placeholders = [(type("Placeholder", (_Placeholder,), {}), name) for name in foreign]
    return torch.serialization.safe_globals([*DATA_CLASSES, *placeholders])


def _refuse_other_policies(path: str | Path, options: dict[str, Any], state: dict[str, Tensor]) -> None:
    name = str(options.get("policy", {}).get("_target_", options.get("_target_", "an unnamed policy"))).split(".")[-1]
    if any(key.startswith("model.down_modules.") for key in state):
        kind = "its denoiser is a convolutional U-Net"
    elif any(key.startswith("obs_encoder.") for key in state):
        kind = "it has image observations"
    elif "model.decoder.layers.0.self_attn.in_proj_weight" not in state:
        kind = "its denoiser is not a transformer decoder"
    elif options.get("pred_action_steps_only") is True:
        kind = "it predicts the executed actions only (pred_action_steps_only)"
    else:
        return
    raise ConversionError(
        f"{path}: this is {name}, {kind}. Only DiffusionTransformerLowdimPolicy with observations as condition "
        "can be converted"
    )


def make_config(options: dict[str, Any], denoiser: dict[str, Tensor]) -> DiffusionTransformerConfig:
    """Make the configuration from the shapes of the weights, and from the options for all that no shape tells.

    Raises:
        ConversionError: A needed option is missing or is an expression.
    """
    model, noise = options["policy"]["model"], options["policy"]["noise_scheduler"]
    state = PolicyFeature(type=FeatureType.STATE, shape=(denoiser["cond_obs_emb.weight"].shape[1],))
    action = PolicyFeature(type=FeatureType.ACTION, shape=(denoiser["input_emb.weight"].shape[1],))
    return DiffusionTransformerConfig(
        input_features={OBS_STATE: state},
        output_features={ACTION: action},
        device="cpu",
        push_to_hub=False,
        horizon=denoiser["pos_emb"].shape[1],
        n_obs_steps=denoiser["cond_pos_emb"].shape[1] - 1,
        n_action_steps=_plain(options, "n_action_steps", int),
        n_layer=_num_layers(denoiser, "decoder"),
        n_cond_layers=_num_layers(denoiser, "encoder"),
        n_emb=denoiser["pos_emb"].shape[2],
        n_head=_plain(model, "n_head", int),
        p_drop_emb=_plain(model, "p_drop_emb", float),
        p_drop_attn=_plain(model, "p_drop_attn", float),
        causal_attn="mask" in denoiser,
        num_train_timesteps=_plain(noise, "num_train_timesteps", int),
        beta_start=_plain(noise, "beta_start", float),
        beta_end=_plain(noise, "beta_end", float),
        beta_schedule=_plain(noise, "beta_schedule", str),
        prediction_type=_plain(noise, "prediction_type", str),
        clip_sample=_plain(noise, "clip_sample", bool),
    )


def _num_layers(denoiser: dict[str, Tensor], stack: str) -> int:
    parts = [key.split(".") for key in denoiser if key.startswith(f"{stack}.layers.")]
    return 1 + max((int(part[2]) for part in parts), default=-1)


def _plain(options: dict[str, Any], name: str, kind: type) -> Any:
    value = options.get(name)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise ConversionError(f"cfg: {name} must be a plain {kind.__name__}, got {value!r}")
    return value


def _limits(state: dict[str, Tensor], key: str, size: int) -> dict[str, Tensor]:
    """The values "min" and "max", `[size]` each, that the normaliser `x * scale + offset` maps to -1 and 1."""
    scale = state[f"normalizer.params_dict.{key}.scale"].expand(size)
    offset = state[f"normalizer.params_dict.{key}.offset"].expand(size)
    return {"min": (-1 - offset) / scale, "max": (1 - offset) / scale}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="Diffusion Policy's .ckpt")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--weights", choices=("ema_model", "model"), help="default: averaged, where there are any")
    arguments = parser.parse_args()
    try:
        policy = convert(arguments.checkpoint, arguments.output, arguments.weights)
    except (ConversionError, FileNotFoundError) as error:
        sys.exit(str(error))
    parameters = sum(p.numel() for p in policy.parameters())
    sys.stdout.write(f"{arguments.output}: {parameters:,} parameters, read by policies.load\n")


if __name__ == "__main__":
    main()
