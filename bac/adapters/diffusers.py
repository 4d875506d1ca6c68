"""diffusers' pipelines: a transformer or U-Net denoises pictures or films, and one call of the pipeline is one run.

Pipelines and models are known by dotted class name; diffusers itself is never imported here. Read on version 0.39.

Every block lies before its gate and its residual sum, so these stay fresh. State of the current step is never reused:
the residual stream and everything added to or concatenated with it (skip connections, `conv_shortcut`, `skip_linear`,
up- and down-sampling), values that depend on the timestep (its embedding, adaLN modulation, gates), input and output
projections, and the noise scheduler's own memory. Prompt encoders and picture decoders are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, zip_longest
from typing import Any

from torch import nn

from bac.adapters.flow_scheduler import flow_through, why_not
from bac.adapters.host import Host, dotted_name
from bac.adapters.layers import CROSS, FEED, SELF, Branch, layer_blocks
from bac.caching.block import Block, BlockKind, Site
from bac.errors import CalibrationError, UnsupportedPolicyError

PIPELINE = "diffusers.pipelines.pipeline_utils.DiffusionPipeline"
_RESNET = "diffusers.models.resnet.ResnetBlock2D"
_COMPONENTS = ("transformer", "unet")


def host(pipe: Any) -> Host:
    """Take a pipeline apart. Only its call decides the number of steps and contexts.

    Raises:
        UnsupportedPolicyError: Its denoiser is none of `MODELS`, or it has two denoisers.
    """
    name = type(pipe).__name__
    denoiser = next((found for part in _COMPONENTS if (found := getattr(pipe, part, None)) is not None), None)
    blocks = blocks_of(denoiser)
    if denoiser is None or not blocks:
        raise UnsupportedPolicyError(
            f"{name}: its denoiser must be one of {', '.join(NAMES)}, got {type(denoiser).__name__}. Name the blocks "
            "yourself on a policy with predict_action_chunk(batch): bac.wrap(policy, schedule, blocks=[bac.Block(...)])"
        )
    if getattr(pipe, "transformer_2", None) is not None:
        raise UnsupportedPolicyError(
            f"{name}: has two denoisers, transformer and transformer_2, and changes from one to the other within a "
            "run; a schedule is for one. Take a pipeline with one, such as Wan 2.1"
        )
    return Host(
        policy=pipe,
        predict=partial(_call, pipe),
        reset=_nothing,
        denoiser=denoiser,
        sampler_owner=pipe,
        sampler_attribute="__call__",
        blocks=blocks,
        solver=type(pipe.scheduler).__name__,
        noise_scheduler=pipe.scheduler,
        flow=flow_through(pipe, "scheduler", by_call=True),
        why_no_solver=why_not(pipe.scheduler),
        contexts=Site(denoiser, "cache_context") if callable(getattr(denoiser, "cache_context", None)) else None,
    )


def blocks_of(model: object) -> tuple[Block, ...]:
    """The blocks of a model of diffusers, in order of evaluation; empty if the model is unknown."""
    take_apart = next((MODELS[name] for cls in type(model).__mro__ if (name := dotted_name(cls)) in MODELS), None)
    return tuple(take_apart(model)) if take_apart else ()


def blocks_within(policy: nn.Module) -> tuple[Block, ...]:
    """The blocks of a policy's model of diffusers; empty if it holds none.

    Raises:
        UnsupportedPolicyError: The policy holds several such models.
    """
    found = [blocks for module in policy.modules() if (blocks := blocks_of(module))]
    if len(found) > 1:
        raise UnsupportedPolicyError(
            f"{type(policy).__name__}: holds {len(found)} models of diffusers. Name the blocks of the denoiser: "
            "bac.wrap(policy, schedule, blocks=bac.adapters.diffusers.blocks_of(policy.denoiser))"
        )
    return found[0] if found else ()


def _call(pipe: Any, batch: Any) -> Any:
    """Call a pipeline with the arguments in `batch`."""
    if not isinstance(batch, Mapping):
        raise CalibrationError(
            f"batches: must hold the arguments of {type(pipe).__name__}'s call, such as "
            f"{{'num_inference_steps': 50, ...}}, got {type(batch).__name__}"
        )
    return pipe(**batch)


def _nothing() -> None:
    """A pipeline remembers nothing from call to call."""


def _layers(model: Any, *, path: str, branches: tuple[Branch, ...]) -> Iterator[Block]:
    for index, layer in enumerate(getattr(model, path)):
        # Models leave out branches in some layers (SD3's attn2, the last ff_context).
        present = [branch for branch in branches if getattr(layer, branch[0], None) is not None]
        yield from layer_blocks(path, index, layer, present)


def _flux(model: Any) -> Iterator[Block]:
    """Layers of two streams, then layers whose attention and feed-forward share one output projection."""
    yield from _layers(model, path="transformer_blocks", branches=_JOINT)
    first = len(model.transformer_blocks)
    for index, layer in enumerate(model.single_transformer_blocks):
        feeders = (Site(layer.attn), Site(layer.proj_mlp), Site(layer.act_mlp))
        name = f"single_transformer_blocks.{index}.proj_out"
        yield Block(name, BlockKind.LAYER, first + index, layer.proj_out, feeders=feeders)


def _unet(model: Any) -> Iterator[Block]:
    """ResNet branches, up to the sum with their shortcut, and the branches of every transformer layer."""
    for index, (path, unit) in enumerate(_units(model)):
        if dotted_name(type(unit)) == _RESNET:
            # Feeders are skipped with conv2: the whole branch but its activations.
            inner = (unit.norm1, unit.conv1, unit.time_emb_proj, unit.norm2)
            feeders = tuple(Site(module) for module in inner if module is not None)
            yield Block(f"{path}.conv2", BlockKind.LAYER, index, unit.conv2, feeders=feeders)
        else:
            attention = CROSS if unit.only_cross_attention else SELF
            for name, kind in (("attn1", attention), ("attn2", CROSS), ("ff", FEED)):
                if getattr(unit, name) is not None:
                    yield Block(f"{path}.{name}", kind, index, getattr(unit, name))


def _units(model: Any) -> Iterator[tuple[str, Any]]:
    """ResNets and transformer layers with their paths, in order of evaluation. No other module is cached."""
    for path, stage in _stages(model):
        resnets, attentions = _children(path, stage, "resnets"), _children(path, stage, "attentions")
        if path == "mid_block":  # a ResNet, then pairs of attention and ResNet; other stages pair them the other way
            first, pairs = resnets[:1], zip_longest(attentions, resnets[1:])
        else:
            first, pairs = [], zip_longest(resnets, attentions)
        for place in (*first, *chain.from_iterable(pairs)):
            if place is not None:
                yield from _parts(*place)


def _stages(model: Any) -> Iterator[tuple[str, Any]]:
    yield from _children("", model, "down_blocks")
    if model.mid_block is not None:
        yield "mid_block", model.mid_block
    yield from _children("", model, "up_blocks")


def _children(path: str, parent: Any, name: str) -> list[tuple[str, Any]]:
    prefix = f"{path}.{name}" if path else name
    return [(f"{prefix}.{index}", child) for index, child in enumerate(getattr(parent, name, None) or ())]


def _parts(path: str, module: Any) -> Iterator[tuple[str, Any]]:
    if dotted_name(type(module)) == _RESNET:
        yield path, module
    else:
        yield from _children(path, module, "transformer_blocks")


_T = "diffusers.models.transformers"
_ATTENTIONS: tuple[Branch, ...] = (("attn1", SELF), ("attn2", CROSS))
_BASIC = (*_ATTENTIONS, ("ff", FEED))
_JOINT: tuple[Branch, ...] = (("attn", SELF), ("attn2", SELF), ("ff", FEED), ("ff_context", FEED))

MODELS: dict[str, Callable[[Any], Iterator[Block]]] = {
    f"{_T}.dit_transformer_2d.DiTTransformer2DModel": partial(_layers, path="transformer_blocks", branches=_BASIC),
    f"{_T}.pixart_transformer_2d.PixArtTransformer2DModel": partial(
        _layers, path="transformer_blocks", branches=_BASIC
    ),
    f"{_T}.sana_transformer.SanaTransformer2DModel": partial(_layers, path="transformer_blocks", branches=_BASIC),
    f"{_T}.hunyuan_transformer_2d.HunyuanDiT2DModel": partial(_layers, path="blocks", branches=_BASIC),
    f"{_T}.transformer_wan.WanTransformer3DModel": partial(
        _layers, path="blocks", branches=(*_ATTENTIONS, ("ffn", FEED))
    ),
    f"{_T}.transformer_sd3.SD3Transformer2DModel": partial(_layers, path="transformer_blocks", branches=_JOINT),
    f"{_T}.transformer_flux.FluxTransformer2DModel": _flux,
    "diffusers.models.unets.unet_2d_condition.UNet2DConditionModel": _unet,
}
"""Dotted class name of a model to its blocks."""

NAMES = tuple(name.rpartition(".")[2] for name in MODELS)
"""Classes of the models that `bac` takes."""
