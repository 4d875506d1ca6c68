"""A small DP-T with sizes that no two axes share, and the same network written out in plain tensor operations."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import zarr
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Tensor

from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy

STATE, ENVIRONMENT, ACTIONS, HORIZON, EXECUTED, OBSERVED = 3, 5, 7, 11, 4, 2


def small_config(**options: object) -> DiffusionTransformerConfig:
    """Two layers, two heads of 13; `options` override."""
    sizes = {"n_layer": 2, "n_head": 2, "n_emb": 26, "n_obs_steps": OBSERVED, "horizon": HORIZON}
    features = {
        "input_features": {
            OBS_STATE: PolicyFeature(FeatureType.STATE, (STATE,)),
            OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (ENVIRONMENT,)),
        },
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
    }
    rest = {"n_action_steps": EXECUTED, "device": "cpu", "push_to_hub": False, "num_inference_steps": 5}
    return DiffusionTransformerConfig(**{**sizes, **features, **rest, **options})


def small_policy(**options: object) -> DiffusionTransformerPolicy:
    """A policy with weights from seed 0, in evaluation mode."""
    torch.manual_seed(0)
    return DiffusionTransformerPolicy(small_config(**options)).eval()


def observations(batch_size: int) -> dict[str, Tensor]:
    """Normalised observations of `batch_size` windows, from seed 1."""
    generator = torch.Generator().manual_seed(1)
    return {
        OBS_STATE: torch.randn(batch_size, OBSERVED, STATE, generator=generator),
        OBS_ENV_STATE: torch.randn(batch_size, OBSERVED, ENVIRONMENT, generator=generator),
    }


def reference_denoiser(
    weights: dict[str, Tensor], sample: Tensor, timestep: int, cond: Tensor, num_heads: int, norm_first: bool = True
) -> Tensor:
    """DP-T with the MLP encoder and the causal masks, from its state dict, without `nn.Module`."""
    width = weights["pos_emb"].shape[-1]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(x: Tensor, memory: Tensor, name: str, shift: int) -> Tensor:
        weight, bias = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
        q, k, v = (
            (source @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width])
            .unflatten(-1, (num_heads, width // num_heads))
            .transpose(1, 2)
            for i, source in enumerate((x, memory, memory))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // num_heads)
        for query in range(x.shape[1]):
            scores[:, :, query, query + shift + 1 :] = -math.inf
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return linear(mixed, f"{name}.out_proj")

    frequencies = torch.tensor([math.exp(-math.log(10000) * i / (width // 2 - 1)) for i in range(width // 2)])
    angles = timestep * frequencies
    time_token = torch.cat([angles.sin(), angles.cos()]).expand(sample.shape[0], 1, width)
    memory = torch.cat([time_token, linear(cond, "cond_obs_emb")], 1) + weights["cond_pos_emb"]
    memory = linear(F.mish(linear(memory, "encoder.0")), "encoder.2")
    x = linear(sample, "input_emb") + weights["pos_emb"]
    layer = 0
    while f"decoder.layers.{layer}.norm1.weight" in weights:
        name = f"decoder.layers.{layer}"
        branches = (
            lambda y, name=name: attention(y, y, f"{name}.self_attn", 0),
            lambda y, name=name: attention(y, memory, f"{name}.multihead_attn", 1),
            lambda y, name=name: linear(F.gelu(linear(y, f"{name}.linear1")), f"{name}.linear2"),
        )
        for i, branch in enumerate(branches, 1):
            x = x + branch(norm(x, f"{name}.norm{i}")) if norm_first else norm(x + branch(x), f"{name}.norm{i}")
        layer += 1
    return linear(norm(x, "ln_f"), "head")


def write_demonstrations(path: Path, lengths: list[int]) -> dict[str, np.ndarray]:
    """Write a replay buffer whose actions are a fixed linear map of the states; returns its arrays."""
    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, (sum(lengths), STATE)).astype(np.float32)
    environment_state = rng.uniform(-1, 1, (sum(lengths), ENVIRONMENT)).astype(np.float32)
    action = state @ rng.uniform(-1, 1, (STATE, ACTIONS)).astype(np.float32)
    arrays = {"state": state, "environment_state": environment_state, "action": action}
    group = zarr.open_group(path, mode="w", attributes={"env": "toy", "task": "follow", "control_hz": 10.0})
    for name, array in arrays.items():
        group.create_array(f"data/{name}", data=array)
    group.create_array("meta/episode_ends", data=np.cumsum(lengths))
    return arrays
