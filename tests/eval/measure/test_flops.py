"""FLOP formulas against the paper's numbers and PyTorch's counter."""

import pytest
import torch

import bac
from bac.caching.block import BlockKind
from eval.measure.flops import block_flops, paper_gflop


@pytest.mark.parametrize(("updates", "gflop"), [(100, "15.770"), (10, "1.947"), (15, "2.715")])
def test_the_papers_formula_gives_the_papers_numbers(updates, gflop):
    assert f"{paper_gflop(8 * updates, 8 * updates, 8 * updates):.3f}" == gflop


def test_block_formulas_give_the_papers_coefficients():
    sizes = {"tokens": 10, "width": 256, "memory_tokens": 3}
    giga = {kind: block_flops(kind, **sizes) / 1e9 for kind in list(BlockKind)[:3]}
    assert giga[BlockKind.FEED_FORWARD] == pytest.approx(0.01048, abs=1e-5)
    assert giga[BlockKind.SELF_ATTENTION] == pytest.approx(0.005294, abs=1e-6)
    assert giga[BlockKind.CROSS_ATTENTION] == pytest.approx(0.003424, abs=1e-6)


def test_a_whole_layer_has_no_formula():
    with pytest.raises(ValueError, match="layer"):
        block_flops(BlockKind.LAYER, tokens=2, width=3, memory_tokens=5)


@pytest.mark.slow
def test_blocks_agree_with_the_counter_up_to_attentions_second_product(tiny_checkpoint):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    import policies

    denoiser = policies.load(tiny_checkpoint).policy.diffusion.transformer
    tokens, width, memory = 16, 16, 3
    layer = denoiser.decoder.layers[0]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        layer(torch.zeros(1, tokens, width), torch.zeros(1, memory, width))
    counted = {name.split(".")[-1]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    sizes = {"tokens": tokens, "width": width, "memory_tokens": memory}
    assert counted["linear1"] + counted["linear2"] == block_flops(BlockKind.FEED_FORWARD, **sizes)
    second_product = 2 * tokens**2 * width
    assert counted["self_attn"] == block_flops(BlockKind.SELF_ATTENTION, **sizes) + second_product
    second_product = 2 * tokens * memory * width
    assert counted["multihead_attn"] == block_flops(BlockKind.CROSS_ATTENTION, **sizes) + second_product


@pytest.mark.slow
def test_policy_flops_are_fixed_part_plus_updates(tiny_checkpoint):
    import policies
    from eval.measure.flops import blocks_of, fixed_flops, policy_flops

    policy = policies.load(tiny_checkpoint).policy
    fixed = fixed_flops(policy)
    # encoder 2 x (3 x 16 x 64), action embedding and head 2 x (16 x 2 x 16), observation embedding 2 x 18 x 16
    assert fixed == 2 * (2 * 3 * 16 * 64) + 2 * (2 * 16 * 2 * 16) + 2 * 2 * 18 * 16
    sizes = {"tokens": 16, "width": 16, "memory_tokens": 3}
    layer = sum(block_flops(kind, **sizes) for kind in list(BlockKind)[:3])
    assert policy_flops(policy, None, 7) == 7 * (fixed + 2 * layer)
    steps = {block.name: (0,) for block in blocks_of(policy)}
    steps["decoder.layers.1.ffn"] = (0, 3, 5)
    extra = 2 * block_flops(BlockKind.FEED_FORWARD, **sizes)
    assert policy_flops(policy, bac.Schedule(7, steps), 7) == 7 * fixed + 2 * layer + extra


@pytest.mark.parametrize(("device", "dtype"), [("meta", "float32"), ("cpu", "bfloat16")])
def test_the_probes_go_where_the_denoiser_is(device, dtype):
    from eval.experiments.latency.random_policy import RandomPolicy, Setting
    from eval.measure.flops import fixed_flops

    sizes = {"layers": 1, "width": 16, "heads": 2, "num_steps": 20}
    assert fixed_flops(RandomPolicy(Setting(**sizes, device=device, dtype=dtype))) == fixed_flops(
        RandomPolicy(Setting(**sizes))
    )


@pytest.mark.slow
def test_the_flops_of_a_u_net_are_measured():
    from eval.measure.flops import blocks_of, policy_flops, unet_flops
    from tests.lerobot import models

    policy = models.small_diffusion()
    by_block, fixed = unet_flops(policy)
    # actions 2 x 8 in, 16 out, kernel 5; then 16 to 16; told 8 + 3 + 6 numbers, a scale and a shift for 16 channels
    assert by_block["down_modules.0.0.conv2"] == 2 * 8 * 5 * (2 * 16 + 16 * 16) + 2 * 17 * 32
    assert list(by_block) == [block.name for block in blocks_of(policy)]
    assert policy_flops(policy, None, 7) == 7 * (fixed + sum(by_block.values()))
    steps = dict.fromkeys(by_block, (0,)) | {"down_modules.0.0.conv2": (0, 3, 5)}
    extra = 2 * by_block["down_modules.0.0.conv2"]
    assert policy_flops(policy, bac.Schedule(7, steps), 7) == 7 * fixed + sum(by_block.values()) + extra


@pytest.mark.slow
def test_the_flops_of_a_multi_task_dit_are_a_fixed_part_plus_updates():
    from eval.measure.flops import blocks_of, multi_task_dit_flops, policy_flops
    from tests.lerobot import models

    policy = models.small_multi_task_dit(num_integration_steps=7)
    by_block, fixed = multi_task_dit_flops(policy)
    # 2 layers of 6 modulations of width 18 by 10 + 3 + 6 + 18 numbers; time 10 to 20 to 10; 7 actions of 2 in and out
    assert fixed == 2 * (2 * 37 * 6 * 18 + 2 * 10 * 20 + 2 * 7 * 2 * 18)
    assert list(by_block) == [block.name for block in blocks_of(policy)]
    assert list(by_block.values()) == 2 * [8 * 7 * 18**2 + 2 * 7**2 * 18, 16 * 7 * 18**2]
    steps = dict.fromkeys(by_block, (0,)) | {list(by_block)[1]: (0, 3, 5)}
    extra = 2 * 16 * 7 * 18**2
    assert policy_flops(policy, bac.Schedule(7, steps), 7) == 7 * fixed + sum(by_block.values()) + extra


@pytest.mark.slow
def test_the_flops_of_pi0_are_not_counted():
    from eval.measure.flops import is_counted
    from tests.lerobot import models

    assert is_counted(models.small_diffusion())
    assert is_counted(models.small_multi_task_dit())
    assert not is_counted(models.small_pi0())
