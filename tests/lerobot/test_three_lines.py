"""The three lines that use `bac` on a policy of LeRobot: wrap it, wrap it as a file says, unwrap it.

Whatever is on a policy, between two chunks it is as LeRobot loaded it: solver, number of steps, configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import Interceptor, interceptors
from bac.solvers import Multistep
from tests.lerobot import models

pytestmark = pytest.mark.slow

POLICIES: dict[str, Callable[[], nn.Module]] = {
    "diffusion": lambda: models.diffusion(num_inference_steps=7),
    "smolvla": models.smolvla,
    "pi0": lambda: models.pi(name="pi0"),
}


def reused(policy: nn.Module) -> bac.Denoising:
    host = find_host(policy)
    updates = dict.fromkeys([block.name for block in host.blocks], (0, 3))
    return bac.Denoising(schedule=bac.Schedule(7, updates, host.fingerprint()))


def fewer(policy: nn.Module) -> bac.Denoising:
    """Three steps: of a fitted solver where the policy takes one, else of its own."""
    host = find_host(policy)
    if not host.takes_solvers:
        return bac.Denoising(num_steps=3, fingerprint=host.fingerprint())
    fitted = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1), (1.0, 0.0, 0.1, 0.0, 0.0)))
    return bac.Denoising(fitted, (90, 50, 10), fingerprint=host.fingerprint())


FILES: dict[str, Callable[[nn.Module], bac.Denoising] | None] = {
    "no file": None,
    "a schedule": reused,
    "fewer steps": fewer,
}


def put_on(policy: nn.Module, file: str, folder: Path) -> None:
    """The first of the three lines, or the second."""
    make = FILES[file]
    if make is None:
        bac.wrap(policy)
        return
    make(policy).save(folder / "bac.json")
    bac.wrap(policy, bac.load(folder / "bac.json"))


def chunk(policy: nn.Module) -> Tensor:
    state = models.observation(2, steps=2, image=False)["observation.state"]
    window = {"observation.state": state, "observation.environment_state": state.flip(-1)}
    torch.manual_seed(0)
    with torch.no_grad():
        return find_host(policy).predict(window if policy.name == "diffusion" else models.observation(2))


@dataclass(frozen=True, eq=False)
class Itself:
    """Equal to the same object alone."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.value is other.value


def state(policy: nn.Module) -> dict[str, Any]:
    """Every attribute of every module but interceptors, and what the noise scheduler and the configuration hold."""
    found: dict[str, Any] = {"config": asdict(policy.config), "steps": find_host(policy).num_steps}
    for path, module in policy.named_modules():
        own = {name: value for name, value in vars(module).items() if not isinstance(value, Interceptor)}
        parts = {
            f"{name}.{key}": part for name, held in own.items() if isinstance(held, dict) for key, part in held.items()
        }
        found |= {f"{path}.{name}": Itself(value) for name, value in {**own, **parts}.items()}
    if find_host(policy).takes_solvers:
        held = vars(policy.diffusion.noise_scheduler)
        found["noise scheduler"] = {name: v.tolist() if isinstance(v, Tensor) else v for name, v in held.items()}
    return found


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> nn.Module:
    return POLICIES[request.param]()


@pytest.mark.parametrize("file", FILES)
def test_between_chunks_and_after_unwrap_the_policy_is_as_it_was_loaded(policy, file, tmp_path):
    dense = chunk(policy)
    before = state(policy)
    put_on(policy, file, tmp_path)
    assert state(policy) == before
    for _ in range(3):
        chunk(policy)
        assert state(policy) == before
    assert bac.describe(policy).num_replays == 1, bac.describe(policy)  # met, recorded, replayed
    assert bac.unwrap(policy) is policy
    assert state(policy) == before and not list(interceptors(policy))
    assert torch.equal(chunk(policy), dense)
    assert state(policy) == before


@pytest.mark.parametrize("file", FILES)
def test_a_replayed_chunk_is_the_interpreted_one(policy, file, tmp_path):
    expected = chunk(policy)
    if (make := FILES[file]) is not None:
        expected = chunk(bac.wrap(policy, make(policy), replay=False))
        bac.unwrap(policy)
    put_on(policy, file, tmp_path)
    assert all(torch.equal(chunk(policy), expected) for _ in range(3))


def test_a_file_of_fewer_steps_is_followed_until_unwrap(policy, tmp_path):
    counts: list[int] = []
    last = policy.diffusion.unet if policy.name == "diffusion" else policy.model.action_out_proj
    last.register_forward_hook(lambda *_: counts.append(1))
    put_on(policy, "fewer steps", tmp_path)
    chunk(policy)
    assert len(counts) == 3
    bac.unwrap(policy)
    chunk(policy)
    assert len(counts) == 3 + 7


@pytest.mark.parametrize(("name", "setting"), [("smolvla", "num_steps"), ("pi0", "num_inference_steps")])
def test_fewer_steps_of_a_flow_are_those_it_makes_if_configured_so(name, setting, tmp_path):
    policy, configured = POLICIES[name](), POLICIES[name]()
    setattr(configured.config, setting, 3)
    put_on(policy, "fewer steps", tmp_path)
    assert torch.equal(chunk(policy), chunk(configured))
