"""Passes that cut kernels without a compiler, and the number of operators that is left."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

import bac
import bac.plan
from bac.plan.inductor import num_kernels
from bac.plan.passes import EXACT, FAST, add_in_products, attend_in_place, widen_heads
from bac.plan.passes.dce import drop_dead_code
from bac.plan.passes.scale import clamp_undivided, drop_zero_additions
from bac.plan.program import interpret
from tests.bac.plan.runs import taped
from tests.bac.plan.test_diffusion_transformer import observations, small_policy

TOKENS, WIDTH, HEADS = 5, 12, 3


def counts(program):
    return Counter(i.name for i in program.instructions if not program.is_view(i))


@pytest.fixture
def attention():
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    nn.init.normal_(module.in_proj_bias)
    nn.init.normal_(module.out_proj.bias)

    def run(x):
        return x + module(x, x, x, need_weights=False)[0]

    x = torch.randn(1, TOKENS, WIDTH)
    return taped(run, x, constants=tuple(module.parameters())), x


def test_attention_reads_the_packed_product_bit_for_bit(attention):
    program, x = attention
    placed = drop_dead_code(attend_in_place(program))
    assert counts(program)["contiguous"] == 1
    assert counts(placed)["contiguous"] == 0
    assert torch.equal(interpret(placed, (x,))[0], interpret(program, (x,))[0])


def test_the_bias_after_an_attention_goes_through_its_values(attention):
    program, x = attention
    widened = drop_dead_code(widen_heads(program))
    assert counts(widened) == {"linear": 1, "scaled_dot_product_attention": 1, "addmm": 1}
    torch.testing.assert_close(interpret(widened, (x,))[0], interpret(program, (x,))[0])


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU(), nn.Mish()])
def test_the_bias_after_an_activation_becomes_one_more_unit(activation):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(WIDTH, 20), activation, nn.Linear(20, WIDTH))
    x = torch.randn(1, TOKENS, WIDTH)
    program = taped(lambda x: x + network(x), x, constants=tuple(network.parameters()))
    joined = drop_dead_code(add_in_products(program))
    assert counts(joined)["add"] == 0
    torch.testing.assert_close(interpret(joined, (x,))[0], interpret(program, (x,))[0])


def test_the_bias_after_a_norm_becomes_its_shift():
    torch.manual_seed(0)
    head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3))
    x, sample = torch.randn(1, TOKENS, WIDTH), torch.randn(1, TOKENS, 3)
    constants = tuple(head.parameters())
    program = taped(lambda x, sample: torch.sub(sample, head(x), alpha=0.5), x, sample, constants=constants)
    joined = drop_dead_code(add_in_products(program))
    assert counts(joined) == {"layer_norm": 1, "addmm": 1}
    torch.testing.assert_close(interpret(joined, (x, sample))[0], interpret(program, (x, sample))[0])


def test_a_product_that_is_stored_for_other_steps_is_left_alone():
    network = nn.Linear(WIDTH, WIDTH, bias=False)

    def run(x):
        feature = network(x)
        return x + feature, feature

    program = taped(run, torch.randn(1, TOKENS, WIDTH), constants=tuple(network.parameters()))
    assert counts(add_in_products(program)) == counts(program)


def test_a_clamp_needs_no_division_before_it():
    divisor, factor = torch.tensor(0.3), torch.tensor(0.7)

    def run(x):
        return torch.add(x, factor * torch.clamp(x / divisor, -1.0, 1.0) + 0)

    x = torch.linspace(-1, 1, 7)
    program = taped(run, x, constants=(divisor, factor))
    solved = drop_dead_code(clamp_undivided(drop_zero_additions(program)))
    assert counts(solved) == {"clamp": 1, "mul": 1, "add": 1}
    torch.testing.assert_close(interpret(solved, (x,))[0], interpret(program, (x,))[0])


@pytest.mark.parametrize(("passes", "ceiling"), [(EXACT, 570), (FAST, 425)], ids=["exact", "fast"])
def test_operators_of_four_steps_at_the_papers_size(passes, ceiling):
    policy = small_policy(n_layer=8, n_emb=256, n_head=4, horizon=10, num_inference_steps=4)
    policy.diffusion.use_solver("DDIM", 4)
    bac.wrap(policy, replay=bac.Replay(exact=passes is EXACT, record="ahead"))
    plan = bac.plan.record(policy, observations(1))
    assert plan.exact is (passes is EXACT)
    assert plan.num_operations <= ceiling


# Lines of graphs that the compiler wrote: what it launches, and what it only declares, allocates or views.
IN_CPP = """
extern "C"  void  cpp_fused_cat_0(const float* in_ptr0,
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(3, int_array_14, int_array_15, &buf2_handle));
    cpp_fused_cat_0((const float*)(arg0_1.data_ptr()), (float*)(buf0.data_ptr()));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(buf3, arg2_1, arg3_1, buf2, 1L, 1L));
        AOTI_TORCH_ERROR_CODE_CHECK(
            aoti_torch_call_dispatcher("bac::packed_product", "", dispatch_vars.data())
        );
    buf5 = reinterpret_tensor_wrapper(buf4, 2, int_array_19, int_array_20, 0L);
"""
IN_PYTHON = """
        buf0 = empty_strided_cuda((1, 10, 256), (2560, 256, 1), torch.float32)
        triton_poi_fused_cat_0.run(arg0_1, buf0, 2560, stream=stream0)
        extern_kernels.addmm(arg1_1, buf0, arg2_1, alpha=1, beta=1, out=buf1)
        buf2 = torch.ops.aten._scaled_dot_product_flash_attention.default(buf1, buf1, buf1)
        buf3 = buf2[0]
"""


@pytest.mark.parametrize("source", [IN_CPP, IN_PYTHON], ids=["C++", "Python"])
def test_loops_and_operators_of_a_compiled_graph_are_its_kernels(source):
    assert num_kernels(source) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_kernels_of_four_compiled_steps():
    """Of two layers; three for each of the paper's other six in each step (results/latency/README.md)."""
    policy = small_policy(n_layer=2)
    policy.diffusion.use_solver("DDIM", 4)
    bac.wrap(policy, replay=bac.Replay(exact=False, compile=True, record="ahead"))
    plan = bac.plan.record(policy, observations(1))
    assert plan.skipped == ()
    assert plan.num_operations < plan.num_kernels <= 50


def test_a_plan_that_is_not_compiled_launches_a_kernel_for_each_operator():
    policy = small_policy(n_layer=1)
    bac.wrap(policy, replay=bac.Replay(exact=False, record="ahead"))
    plan = bac.plan.record(policy, observations(1))
    assert plan.num_kernels == plan.num_operations
    assert f"{plan.num_kernels} kernels" in str(plan)


def test_a_model_in_bfloat16_is_held_to_the_precision_of_bfloat16():
    policy = small_policy(n_layer=1)
    policy.diffusion.to(torch.bfloat16)
    batch = {name: value.bfloat16() for name, value in observations(1).items()}
    bac.wrap(policy, replay=bac.Replay(exact=False, record="ahead"))
    plan = bac.plan.record(policy, batch)
    assert not plan.exact
    assert plan.tolerance == 4 * torch.finfo(torch.bfloat16).eps
    assert f"{plan.tolerance:.1e} allowed" in str(plan)
