"""Programs without their draws, and what is made of them: CUDA graphs, compiled code."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Generator

import bac
import bac.plan
from bac.plan.codegen import generate
from bac.plan.draws import divide
from bac.plan.inductor import compile_pieces
from bac.plan.refusal import Refusal
from tests.bac.models import TinyTransformerPolicy, obs, sweep
from tests.bac.plan.runs import names, taped

X = torch.tensor([1.0, 2.0, 3.0])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def long(x):
    """As many operators as are worth compiling."""
    for _ in range(8):
        x = x.sin().cos().tanh().exp().neg().sigmoid()
    return x


def noisy(x, generator):
    for _ in range(2):
        noise = torch.cat([torch.randn(1, generator=generator), torch.randn(2, generator=generator)])
        x = x * 2 + noise
    return x


def test_the_body_draws_nothing_and_both_parts_together_are_the_program():
    program = taped(noisy, X, Generator())
    divided = divide(program, num_leaves=2)
    assert names(divided.prologue) == ["randn", "randn", "cat"] * 2
    assert names(divided.body) == ["mul", "add"] * 2
    leaves = X * 3, Generator().manual_seed(5)
    arguments = divided.arguments(generate(divided.prologue)[0], leaves)
    assert torch.equal(generate(divided.body)[0](arguments)[0], noisy(X * 3, Generator().manual_seed(5)))


def test_a_draw_that_depends_on_an_argument_cannot_be_taken_out():
    with pytest.raises(Refusal, match="the draw of bernoulli depends on the arguments"):
        divide(taped(lambda x: torch.bernoulli(x / 3), X), num_leaves=1)


class RandnPolicy(TinyTransformerPolicy):
    """Draws by shape, as diffusers does, so that its draws do not depend on a value."""

    def predict_action_chunk(self, batch):
        memory = self.condition(batch["obs"])
        x = torch.randn(len(memory), 5, 2, device=memory.device)
        for _ in range(self.num_steps):
            noise = torch.randn(x.shape, device=x.device)
            x = x - 0.1 * self.head(self.decoder(self.embed(x), memory)) + 0.01 * noise
        return x


def compared(replay, device="cpu"):
    """Largest relative difference of two replayed chunks to interpreted ones, and the plan."""
    batch = {"obs": obs(2)["obs"].to(device)}
    chunks = []
    for how in (False, replay):
        torch.manual_seed(0)
        policy = RandnPolicy(num_steps=4).to(device)
        bac.wrap(policy, sweep(policy, (0, 2), 4), replay=how)
        torch.manual_seed(1)
        with torch.no_grad():
            chunks.append(torch.stack([policy.predict_action_chunk(batch) for _ in range(3)]))
    error = (chunks[1] - chunks[0]).abs().max() / chunks[0].abs().max()
    return float(error), bac.plan.plans(policy)[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_cpu_kernels_are_called_from_cpp_and_not_from_python(monkeypatch):
    compiler, asked = importlib.import_module("torch._inductor.compile_fx"), []
    original = compiler.compile_fx
    monkeypatch.setattr(
        compiler, "compile_fx", lambda *args, **options: asked.append(options) or original(*args, **options)
    )
    program = taped(long, X)
    rolled = compile_pieces(program)
    assert asked[0]["config_patches"] == {"cpp_wrapper": True}
    torch.testing.assert_close(generate(rolled)[0]([X])[0], long(X))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inductor_compiles_a_plan():
    error, plan = compared(bac.Replay(exact=False, compile=True, record="first"))
    assert plan.skipped == ()
    assert error <= 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_plans_stay_valid_while_and_after_the_compiler_runs():
    policies = [RandnPolicy(num_steps=2) for _ in range(2)]
    for policy, compiled in zip(policies, (False, True), strict=True):
        replay = bac.Replay(exact=False, compile=compiled, record="first")
        bac.wrap(policy, sweep(policy, (0,), 2), replay=replay)
        with torch.no_grad():
            for _ in range(3):
                policy.predict_action_chunk(obs(2))
    with torch.no_grad():
        policies[0].predict_action_chunk(obs(2))
    assert [bac.describe(policy).num_replays for policy in policies] == [3, 2]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("exact", [True, False])
def test_a_cuda_graph_replays_fresh_draws(exact):
    error, plan = compared(bac.Replay(exact=exact, record="first"), "cuda")
    assert plan.skipped == ()
    assert error <= 1e-5


@pytest.mark.gpu
@needs_cuda
def test_generators_on_the_host_feed_a_cuda_graph():
    program = taped(lambda x, g: x + torch.randn(3, generator=g).to(x.device), X.cuda(), Generator())
    divided = divide(program, num_leaves=2)
    assert names(divided.body) == ["add"]
