"""Action heads of vision-language-action policies, observed through encoded tokens."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from bac.adapters import find_host
from bac.adapters.host import at
from bac.errors import UnsupportedPolicyError
from tests.contracts import AdapterContract
from tests.contracts_replay import real_time_calls

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = pytest.mark.slow


class HeadContract(AdapterContract):
    num_steps = 7
    blocks_per_layer = 2
    takes_fewer_steps = True
    policy_class: type[nn.Module]
    num_steps_at: str  # where the policy keeps the number of its denoising steps

    def make_policy(self) -> nn.Module:
        return heads.make(self.policy_class)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return heads.encoded(batch_size)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        owner, _, name = self.num_steps_at.rpartition(".")
        setattr(at(policy, owner), name, num_steps)


class InRealTime(HeadContract):
    """The heads are made with real-time chunking on."""

    def in_real_time(self, policy: nn.Module) -> list[dict[str, Any]]:
        return real_time_calls(heads.ACTIONS)


class TestGroot(InRealTime):
    policy_class = heads.Groot
    num_steps_at = "_groot_model.action_head.num_inference_timesteps"


class TestVLAJEPA(HeadContract):
    policy_class = heads.VLAJEPA
    num_steps_at = "model.action_model.num_inference_timesteps"


class TestEVO1(InRealTime):
    policy_class = heads.EVO1
    num_steps_at = "model.action_head.num_inference_timesteps"


class TestXVLA(HeadContract):
    policy_class = heads.XVLA
    num_steps_at = "config.num_denoising_steps"


class TestMolmoAct2(InRealTime):
    policy_class = heads.MolmoAct2
    blocks_per_layer = 3
    num_steps_at = "config.num_inference_steps"


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # it asks for autocast on a device that is not there
class TestFastWAM(HeadContract):
    policy_class = backbones.FastWAM
    blocks_per_layer = 3
    one_run_per_sample = True
    goes_into_eval_mode = True
    num_steps_at = "config.num_inference_steps"


class TestEO1(HeadContract):
    """The same layers encode the observation before the loop: those calls are no evaluations."""

    policy_class = backbones.EO1
    calls_outside_the_loop = 1
    goes_into_eval_mode = True
    num_steps_at = "config.num_denoise_steps"


@pytest.mark.parametrize("name", ["Groot", "VLAJEPA"])
def test_kinds_alternate_between_observation_and_self(name):
    kinds = [block.kind.value for block in find_host(heads.make(getattr(heads, name))).blocks]
    assert kinds == ["cross_attention", "feed_forward", "self_attention", "feed_forward"] * 2


def test_evo1_attends_to_the_observation_alone():
    kinds = {block.kind.value for block in find_host(heads.make(heads.EVO1)).blocks}
    assert kinds == {"cross_attention", "feed_forward"}


def test_molmoact2_decoding_tokens_is_refused():
    policy = heads.make(heads.MolmoAct2)
    policy.config.inference_action_mode = "discrete"
    with pytest.raises(UnsupportedPolicyError, match="one after the other"):
        find_host(policy)


def test_the_blocks_of_fastwam_are_fed_by_its_projections():
    block = find_host(heads.make(backbones.FastWAM)).blocks[0]
    assert [feeder.attribute for feeder in block.feeders] == ["project_self_attention", "_mixed_attention"]
