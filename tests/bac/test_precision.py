"""Another precision of float32 products holds during a chunk, in replays too, and leaves PyTorch as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bac
import bac.plan
from bac.errors import ScheduleError
from bac.plan.settings import settings
from bac.precision import BF16, TF32, computing_in
from tests.bac.models import TinyTransformerPolicy, obs

IN_BF16 = bac.Denoising(precision=BF16)


class OneProduct(nn.Module):
    """Multiplies by 1 + 2^-10, which bfloat16 rounds to 1, in a loop of one step."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.num_steps = 1
        self.block = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.block.weight, 1 + 2**-10)
        self.to(dtype).eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.block(batch["obs"])


def wrapped(policy: nn.Module, precision: str, **options) -> nn.Module:
    blocks = [bac.Block("block", bac.caching.block.BlockKind.FEED_FORWARD, 0, policy.block)]
    return bac.wrap(policy, bac.Denoising(precision=precision), blocks=blocks, **options)


@torch.no_grad()
def chunk(policy: nn.Module) -> float:
    return policy.predict_action_chunk({"obs": torch.ones(1, 1)}).float().item()


def test_bf16_rounds_what_float32_does_not_and_the_policy_itself_is_back_after_unwrap():
    policy = OneProduct()
    assert chunk(policy) == 1 + 2**-10
    assert chunk(wrapped(policy, BF16)) == 1
    assert chunk(bac.unwrap(policy)) == 1 + 2**-10


def test_a_replayed_chunk_equals_the_interpreted_one_in_bf16():
    interpreted, replayed = (TinyTransformerPolicy() for _ in range(2))
    replayed.load_state_dict(interpreted.state_dict())
    bac.wrap(interpreted, IN_BF16, replay=False)
    bac.wrap(replayed, IN_BF16, replay=bac.Replay(record="first"))
    for seed in range(3):
        torch.manual_seed(seed)
        expected = interpreted.predict_action_chunk(obs(seed=seed))
        torch.manual_seed(seed)
        with torch.no_grad():
            assert torch.equal(replayed.predict_action_chunk(obs(seed=seed)), expected)
    assert bac.describe(replayed).num_replays == 2


def test_a_part_that_leaves_autocast_by_itself_is_replayed_in_its_own_precision():
    class Careful(OneProduct):
        def predict_action_chunk(self, batch):
            with torch.autocast("cpu", enabled=False):
                return self.block(batch["obs"])

    policy = wrapped(Careful(), BF16, replay=bac.Replay(record="first"))
    assert [chunk(policy) for _ in range(2)] == [1 + 2**-10] * 2
    assert bac.describe(policy).num_replays == 1


@pytest.mark.parametrize("precision", [BF16, TF32])
def test_pytorch_is_as_it_was_after_a_chunk_even_if_the_chunk_fails(precision):
    before = settings()
    with pytest.raises(ZeroDivisionError), computing_in(precision, "cpu"):
        assert settings() != before
        raise ZeroDivisionError
    assert settings() == before


def test_tf32_is_allowed_within_the_chunk_alone():
    assert not torch.backends.cuda.matmul.allow_tf32
    with computing_in(TF32, "cuda"):
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_tf32_leaves_the_newer_switches_of_a_caller_as_they_were():
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("PyTorch before 2.9 has no newer switches")
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        with computing_in(TF32, "cuda"):
            assert matmul.fp32_precision == "tf32"
        assert matmul.fp32_precision == "ieee"
    finally:
        torch._C._set_fp32_precision_setter("cuda", "matmul", before)


def test_it_is_part_of_the_value_its_name_and_its_file(tmp_path):
    IN_BF16.save(tmp_path / "bac.json")
    assert bac.load(tmp_path / "bac.json") == IN_BF16
    assert bac.Denoising() != IN_BF16
    assert IN_BF16.name.endswith("bf16")


def test_describe_shows_it_on_top_of_the_stack():
    policy = wrapped(OneProduct(), BF16)
    assert bac.describe(policy).stack[0] == ("precision", "computes products of float32 numbers in bf16")


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(ScheduleError, match='one of "as loaded", "tf32", "bf16", got \'int4\''):
        bac.Denoising(precision="int4")


def test_tf32_on_a_cpu_is_refused():
    with pytest.raises(ScheduleError, match="needs an NVIDIA GPU, and OneProduct is on 'cpu'; .* take \"bf16\""):
        wrapped(OneProduct(), TF32)


def test_a_policy_without_float32_weights_is_refused():
    with pytest.raises(ScheduleError, match="parts left in float32, and OneProduct has none; leave precision out"):
        wrapped(OneProduct(torch.bfloat16), BF16)
