"""Floating-point operations of a policy under a schedule, by formula; 2 per multiply-add, batch 1.

The conventions are the BAC paper's, so that our ratios can be compared with the paper's. Counted are the matrix
products of the blocks, the condition encoder, the embeddings and the head. Not counted are norms, activations, softmax,
the noise scheduler and everything before the first denoising step. Attention has two token-by-token products and one is
counted, like a profiler that sees only the causal half; here this is a difference of 1 % of a self-attention block.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bac
from bac.adapters import find_host
from bac.caching.block import BlockKind

LAYER = re.compile(r"\.decoder\.layers\.\d+$")
SUBLAYER = re.compile(r"\.transformer_blocks\.\d+\.(attn|multihead_attn|mlp)$")  # of a Multi-Task DiT
UNIT_PARTS = ("conv1", "cond_encoder", "conv2")  # of a U-Net's residual unit: all but the shortcut


def paper_gflop(num_feed_forward: int, num_self_attention: int, num_cross_attention: int) -> float:
    """GFLOP of one action chunk of the paper's DP-T: T = 10, d = 256, 8 layers, M = 3, K = 100 steps.

    Args:
        num_feed_forward: Updates of feed-forward blocks, summed over layers and steps; 800 if dense.
        num_self_attention: The same for self-attention blocks.
        num_cross_attention: The same for cross-attention blocks.

    Returns:
        GFLOP with the coefficients of Ji et al. (arXiv 2506.13456); 15.770 dense.
    """
    return 0.4116 + 0.01048 * num_feed_forward + 0.005294 * num_self_attention + 0.003424 * num_cross_attention


def block_flops(kind: BlockKind, *, tokens: int, width: int, memory_tokens: int) -> int:
    """FLOP of one evaluation of one block.

    Args:
        kind: Block kind.
        tokens: Action tokens T.
        width: Embedding size d; the feed-forward network is 4 d wide.
        memory_tokens: Tokens M that cross-attention reads.

    Raises:
        ValueError: There is no formula for this kind.
    """
    match kind:
        case BlockKind.FEED_FORWARD:
            return 16 * tokens * width**2
        case BlockKind.SELF_ATTENTION:
            return 8 * tokens * width**2 + 2 * tokens**2 * width
        case BlockKind.CROSS_ATTENTION:
            return 4 * tokens * width**2 + 4 * memory_tokens * width**2 + 2 * tokens * memory_tokens * width
    raise ValueError(f"block kind {kind.value!r}: formulas exist for attention and feed-forward blocks only")


def blocks_of(policy: Any) -> tuple[bac.Block, ...]:
    """The blocks that `bac` finds in a policy, in order of evaluation, without their modules."""
    return tuple(block.described() for block in find_host(policy).blocks)


def fixed_flops(policy: Any) -> int:
    """FLOP of one evaluation of the denoiser outside its decoder layers, which no cache saves.

    PyTorch's counter measures it. Attention is decomposed into matrix products, because the counter sees only those.
    """
    denoiser = policy.diffusion.transformer
    like = denoiser.pos_emb  # the probes go where the denoiser is, in its dtype
    sample = like.new_zeros(1, *denoiser.chunk_shape)
    condition = like.new_zeros(1, denoiser.cond_pos_emb.shape[1] - 1, denoiser.cond_obs_emb.in_features)
    timestep = torch.zeros(1, dtype=torch.long, device=like.device)
    counts, total = _measured(denoiser, sample, timestep, condition)
    return total - sum(flop for name, flop in counts.items() if LAYER.search(name))


def is_counted(policy: Any) -> bool:
    """Whether `policy_flops` knows this kind of policy. It does not know pi0 and SmolVLA."""
    return hasattr(policy, "diffusion") or hasattr(policy, "noise_predictor")


def policy_flops(policy: Any, schedule: bac.Schedule | None, num_steps: int) -> int:
    """FLOP of one action chunk at batch 1: updated blocks by formula, the rest measured.

    Args:
        policy: A `diffusion_transformer` policy, or another policy whose attribute `diffusion` is its sampler; a
            Multi-Task DiT of LeRobot's; or a U-Net of LeRobot's, of which all is measured.
        schedule: The update steps of every block, or None if all blocks update at every step.
        num_steps: Denoising steps K.
    """
    blocks = blocks_of(policy)
    if blocks[0].kind is BlockKind.LAYER:
        by_block, fixed = unet_flops(policy)
    elif hasattr(policy, "noise_predictor"):
        by_block, fixed = multi_task_dit_flops(policy)
    else:
        by_block, fixed = _transformer_blocks_flops(policy, blocks), fixed_flops(policy)
    updates = {name: num_steps if schedule is None else len(schedule.update_steps[name]) for name in by_block}
    return num_steps * fixed + sum(updates[name] * flop for name, flop in by_block.items())


def unet_flops(policy: Any) -> tuple[dict[str, int], int]:
    """FLOP of one evaluation of LeRobot's U-Net, measured: of every block by name, and of what no cache saves."""
    unet, config = policy.diffusion.unet, policy.config
    like = unet.final_conv[1].weight
    sample = like.new_zeros(1, config.horizon, config.action_feature.shape[0])
    told = unet.mid_modules[0].cond_encoder[1].in_features - config.diffusion_step_embed_dim
    timestep = torch.zeros(1, dtype=torch.long, device=like.device)
    counts, total = _measured(unet, sample, timestep, like.new_zeros(1, told))
    units = [block.name.removesuffix(".conv2") for block in blocks_of(policy)]
    by_block = {
        f"{unit}.conv2": sum(counts[f"{type(unet).__name__}.{unit}.{part}"] for part in UNIT_PARTS) for unit in units
    }
    return by_block, total - sum(by_block.values())


def multi_task_dit_flops(policy: Any) -> tuple[dict[str, int], int]:
    """FLOP of one evaluation of LeRobot's Multi-Task DiT: of every block by formula, and of what no cache saves.

    The rest is measured: the modulation by adaLN, and the embeddings and the head.
    """
    denoiser = policy.noise_predictor
    like = denoiser.input_proj.weight
    sample = like.new_zeros(1, denoiser.horizon, denoiser.action_dim)
    counts, total = _measured(denoiser, sample, like.new_zeros(1), like.new_zeros(1, denoiser.conditioning_dim))
    fixed = total - sum(flop for name, flop in counts.items() if SUBLAYER.search(name))
    sizes = {"tokens": denoiser.horizon, "width": denoiser.hidden_size, "memory_tokens": 0}
    return {block.name: block_flops(block.kind, **sizes) for block in blocks_of(policy)}, fixed


def _measured(denoiser: nn.Module, *inputs: Tensor) -> tuple[dict[str, int], int]:
    """FLOP of one evaluation as PyTorch counts them, attention as matrix products: of every module by name, and all."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        denoiser(*inputs)
    return {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}, counter.get_total_flops()


def _transformer_blocks_flops(policy: Any, blocks: Sequence[bac.Block]) -> dict[str, int]:
    denoiser = policy.diffusion.transformer
    memory_tokens, width = denoiser.cond_pos_emb.shape[1:]
    sizes = {"tokens": denoiser.chunk_shape[0], "width": width, "memory_tokens": memory_tokens}
    return {block.name: block_flops(block.kind, **sizes) for block in blocks}
