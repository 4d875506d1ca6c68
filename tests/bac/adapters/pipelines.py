"""What tests of pipelines share: the laws for what is no module, prompts, and a pipeline of the parts given."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.errors import RunError
from bac.recording import record_features
from tests.contracts import AdapterContract, count_calls

MARKS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
TEXT, TOKENS = 10, 3


def embeddings(batch_size: int, *, tokens: int = TOKENS, size: int = TEXT, seed: int = 0) -> Tensor:
    return torch.randn(batch_size, tokens, size, generator=torch.Generator().manual_seed(seed))


def guided(batch_size: int, **sizes: int) -> dict[str, Tensor]:
    """What a pipeline takes in place of a prompt and of a negative one."""
    prompts = embeddings(batch_size, **sizes), embeddings(batch_size, seed=1, **sizes)
    return {"prompt_embeds": prompts[0], "negative_prompt_embeds": prompts[1]}


def pooled(batch_size: int) -> dict[str, Tensor]:
    """The same where a pipeline also takes one vector of five for the whole prompt."""
    vectors = guided(batch_size, tokens=1, size=5)
    return guided(batch_size) | {name.replace("prompt", "pooled_prompt"): v[:, 0] for name, v in vectors.items()}


def masks(batch_size: int, tokens: int = TOKENS, suffix: str = "") -> dict[str, Tensor]:
    names = ("prompt_attention_mask", "negative_prompt_attention_mask")
    return {name + suffix: torch.ones(batch_size, tokens, dtype=torch.long) for name in names}


class Pixels(nn.Module):
    """Stands where a pipeline has its autoencoder."""

    config = SimpleNamespace(scaling_factor=1.0, scale_factor_temporal=4, scale_factor_spatial=8)

    def decode(self, latents: Tensor) -> Any:
        return SimpleNamespace(sample=latents)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def made(cls: type, **given: Any) -> Any:
    """A pipeline with the components given and none of the others."""
    required = [
        name for name, its in list(inspect.signature(cls.__init__).parameters.items())[1:] if its.default is its.empty
    ]
    return quiet(cls(**{**dict.fromkeys(required), **given}))


class PipelineContract(AdapterContract):
    """The laws of every adapter, for what is no module and has nothing to reset."""

    num_steps = 4
    contexts = 1
    not_replayed = "so it cannot be replayed"
    size: dict[str, Any] = {"height": 16, "width": 16, "output_type": "latent"}

    def arguments(self, batch_size: int) -> dict[str, Any]:
        """Of the pipeline's call, without size and number of steps."""
        raise NotImplementedError

    def make_batch(self, batch_size: int) -> dict[str, Any]:
        return {**self.arguments(batch_size), **self.size, "num_inference_steps": self.steps}

    @property
    def steps(self) -> int:
        return getattr(self, "_steps", self.num_steps)

    def set_num_steps(self, policy: Any, num_steps: int) -> None:
        self._steps = num_steps

    def chunk(self, policy: Any, batch: Any) -> Tensor:
        return torch.as_tensor(np.asarray(policy(**batch, return_dict=False)[0]))

    def predict(self, policy: Any, batch_size: int = 3, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        return self.chunk(policy, self.make_batch(batch_size))

    def test_unwrap_leaves_no_trace(self) -> None:
        pipe = self.make_policy()
        dense = self.predict(pipe)
        parts = [pipe, *find_host(pipe).denoiser.modules()]
        before, cls = [dict(vars(part)) for part in parts], type(pipe)
        bac.wrap(pipe, self.staggered(pipe))
        self.predict(pipe)
        assert isinstance(pipe, cls) and type(pipe).__name__ == cls.__name__
        assert bac.unwrap(pipe) is pipe
        assert type(pipe) is cls
        assert [sorted(vars(part)) for part in parts] == [sorted(names) for names in before]
        assert not list(interceptors(pipe))
        assert torch.equal(self.predict(pipe), dense)

    def test_every_block_is_computed_exactly_at_its_update_steps(self) -> None:
        pipe = self.make_policy()
        schedule, counts = self.staggered(pipe), {}
        for block in find_host(pipe).blocks:
            count_calls(block, counts)
        bac.wrap(pipe, schedule)
        self.predict(pipe)
        assert counts == {name: self.contexts * len(steps) for name, steps in schedule.update_steps.items()}

    def test_training_mode_is_refused_where_the_policy_does_not_leave_it_by_itself(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.staggered(pipe))
        find_host(pipe).denoiser.train()
        with pytest.raises(RunError, match=r"policy\.eval\(\)"):
            self.predict(pipe)

    def test_wrapping_works_in_inference_mode_and_with_gradients(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.staggered(pipe))
        expected = self.predict(pipe)
        for mode in (torch.inference_mode(), torch.enable_grad()):
            with mode:
                assert torch.equal(self.predict(pipe), expected)

    def test_features_are_recorded_by_step_with_contexts_as_samples(self) -> None:
        pipe = self.make_policy()
        batched = 2 if self.contexts == 1 else 1
        features = record_features(pipe, self.make_batch(3))
        assert {values.shape[:2] for values in features.values()} == {(4, 3 * self.contexts * batched)}
