"""The LeRobot plug-in: what happens to a policy that LeRobot's own factory loads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies import factory
from torch import nn

import bac
import lerobot_policy_bac as entry
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.certificate import Certificate, file_hash
from bac.errors import MismatchError, ScheduleError
from bac.solvers import Multistep
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from tests.contracts_flow import TIMES, denoising
from tests.lerobot import checkpoints, models
from tests.policies.models import observations, small_policy

pytestmark = pytest.mark.slow

TYPE = "diffusion_transformer"
Load = Callable[..., nn.Module]


def put_schedule(path: Path, policy: nn.Module | None = None) -> None:
    bac.Denoising(schedule=schedule_for(policy or small_policy(n_layer=1))).save(path)


def put_tuned(path: Path) -> bac.Denoising:
    solver = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))
    fingerprint = find_host(small_policy(n_layer=1)).fingerprint()
    tuned = bac.Denoising(solver, (90, 40), fingerprint=fingerprint)
    tuned.save(path)
    return tuned


@pytest.fixture(autouse=True)
def lerobot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """LeRobot as it was found, with the plug-in installed, and put back afterwards."""
    for name in ("BAC", "BAC_SCHEDULE", "BAC_PRESET", "BAC_EXECUTOR", "BAC_GUARD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(factory, entry._LOOKUP, getattr(factory, entry._LOOKUP))
    had = "from_pretrained" in vars(DiffusionTransformerPolicy)
    assert entry.install()
    yield
    if not had and "from_pretrained" in vars(DiffusionTransformerPolicy):
        del DiffusionTransformerPolicy.from_pretrained


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    small_policy(n_layer=1).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def load() -> Load:
    def loaded(path: Path, **options: Any) -> nn.Module:
        return factory.get_policy_class(TYPE).from_pretrained(path, **options)

    return loaded


def schedule_for(policy: nn.Module) -> bac.Schedule:
    host = find_host(policy)
    return bac.Schedule(host.num_steps, dict.fromkeys([b.name for b in host.blocks], (0, 2)), host.fingerprint())


def chunk(policy: nn.Module) -> torch.Tensor:
    return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))


def is_wrapped(policy: nn.Module) -> bool:
    return any(True for _ in interceptors(policy))


def test_a_policy_with_a_schedule_beside_it_follows_it(checkpoint, load):
    by_hand = small_policy(n_layer=1)
    put_schedule(checkpoint / "bac.json")
    loaded = load(checkpoint)
    assert torch.equal(chunk(loaded), chunk(bac.wrap(by_hand, schedule_for(by_hand), replay=False)))
    assert is_wrapped(loaded)


def test_it_keeps_its_class_and_saves_as_before(checkpoint, load, tmp_path):
    put_schedule(checkpoint / "bac.json")
    loaded = load(checkpoint)
    assert type(loaded) is DiffusionTransformerPolicy
    assert loaded.config.type == TYPE
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (checkpoint / name).read_bytes()


def test_a_policy_beside_which_its_tuned_solver_lies_denoises_with_that(checkpoint, load, monkeypatch):
    tuned, by_hand = put_tuned(checkpoint / "bac.json"), small_policy(n_layer=1)
    loaded = load(checkpoint)
    assert torch.equal(chunk(loaded), chunk(bac.wrap(by_hand, tuned, replay=False)))
    with models.evaluations(loaded.diffusion.transformer) as timesteps:
        chunk(loaded)
    assert timesteps == [90, 40]
    assert loaded.diffusion.num_inference_steps == 5  # its own, between two chunks
    monkeypatch.setenv("BAC_GUARD", "dense")
    with pytest.raises(ScheduleError, match="reuses nothing, so there is nothing to watch"):
        load(checkpoint)


def test_a_flow_matching_policy_beside_which_a_fitted_solver_lies_makes_its_few_steps(tmp_path, monkeypatch):
    options = {"objective": "flow_matching", "num_integration_steps": 7}
    path = checkpoints.multi_task_dit(tmp_path, **options)
    denoising(3).save(path / "bac.json")
    monkeypatch.setenv("BAC", "intercept")
    loaded = factory.get_policy_class("multi_task_dit").from_pretrained(path)
    window = models.observation(2, steps=2, image=False)
    window["observation.state"] = window["observation.state"][..., :2]
    times: list[float] = []  # as the network embeds them; the module's own call is given those of the loop
    hook = loaded.noise_predictor.time_mlp.register_forward_pre_hook(lambda _, given: times.append(float(given[0][0])))
    found = find_host(loaded).predict_seeded(window, 0)
    hook.remove()
    assert times == pytest.approx([1 - time for time in TIMES[3]])
    by_hand = bac.wrap(bac.unwrap(loaded), denoising(3), replay=False)
    assert torch.equal(find_host(by_hand).predict_seeded(window, 0), found)


def test_without_a_schedule_a_policy_is_replayed_as_it_is(checkpoint, load):
    policy, plain = load(checkpoint), small_policy(n_layer=1)
    assert bac.describe(policy).denoising == bac.Denoising()
    for _ in range(3):
        assert torch.equal(chunk(policy), chunk(plain))
    assert bac.describe(policy).plans


def test_bac_intercept_without_a_schedule_leaves_a_policy_alone(checkpoint, load, monkeypatch):
    monkeypatch.setenv("BAC", "intercept")
    assert not is_wrapped(load(checkpoint))


@pytest.mark.parametrize("value", ["off", "OFF", "0"])
def test_bac_off_leaves_the_policy_alone(checkpoint, load, monkeypatch, value):
    put_schedule(checkpoint / "bac.json")
    monkeypatch.setenv("BAC", value)
    loaded = load(checkpoint)
    assert not is_wrapped(loaded)
    assert torch.equal(chunk(loaded), chunk(small_policy(n_layer=1)))


def test_training_is_left_alone(checkpoint, load):
    put_schedule(checkpoint / "bac.json")
    assert not is_wrapped(load(checkpoint, dataset_meta=object()))


def test_a_schedule_can_be_named_by_the_environment(checkpoint, load, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere.json"
    put_schedule(elsewhere)
    monkeypatch.setenv("BAC_SCHEDULE", str(elsewhere))
    assert is_wrapped(load(checkpoint))
    monkeypatch.setenv("BAC_SCHEDULE", str(tmp_path / "nowhere.json"))
    with pytest.raises(ScheduleError, match="there is no file .*nowhere.json"):
        load(checkpoint)


def test_a_preset_can_be_named_by_the_environment_and_goes_before_a_file(tmp_path, load, monkeypatch, caplog):
    flow = {"noise_scheduler_type": "FlowMatchEuler", "prediction_type": "velocity"}
    small_policy(n_layer=1, **flow).save_pretrained(tmp_path)
    bac.Denoising(num_steps=2).save(tmp_path / "bac.json")
    monkeypatch.setenv("BAC_PRESET", "flow-3")
    with caplog.at_level(logging.INFO):
        loaded = load(tmp_path)
    assert bac.describe(loaded).denoising == bac.Denoising.preset("flow", 3)
    assert "follows the preset flow-3: fitted multistep, 3 steps" in caplog.text
    monkeypatch.setenv("BAC_SCHEDULE", str(tmp_path / "bac.json"))
    with pytest.raises(ScheduleError, match="BAC_PRESET: BAC_SCHEDULE names a file already"):
        load(tmp_path)


def test_a_preset_is_refused_where_there_is_no_flow_or_no_such_preset(checkpoint, load, monkeypatch):
    monkeypatch.setenv("BAC_PRESET", "flow-3")
    with pytest.raises(ScheduleError, match=r"shares of noise are for flow-matching policies(.|\n)*BAC=off"):
        load(checkpoint)
    monkeypatch.setenv("BAC_PRESET", "flow-9")
    with pytest.raises(ScheduleError, match="preset: must be one of .*flow-3, .*got 'flow-9'"):
        load(checkpoint)
    monkeypatch.setenv("BAC", "off")
    assert not is_wrapped(load(checkpoint))


def test_a_schedule_beside_an_adapter_comes_first(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "base").mkdir()
    for folder in ("adapter", "base"):
        (tmp_path / folder / "bac.json").write_text("{}")

    class Config:
        pretrained_path = tmp_path / "adapter"

    assert entry.find_schedule(tmp_path / "base", Config()) == tmp_path / "adapter" / "bac.json"
    assert entry.find_schedule(tmp_path / "base") == tmp_path / "base" / "bac.json"
    assert entry.find_schedule("lerobot/a-name-on-the-hub") is None


def test_a_schedule_that_does_not_fit_says_how_to_do_without(checkpoint, load):
    put_schedule(checkpoint / "bac.json", small_policy(n_layer=1, num_inference_steps=7))
    with pytest.raises(MismatchError, match="num_steps: the schedule has 7, the policy has 5") as caught:
        load(checkpoint)
    assert "BAC=off" in str(caught.value)


@pytest.mark.parametrize(("asked", "num_plans"), [(None, 1), ("replay", 1), ("intercept", 0)])
def test_a_policy_that_follows_a_file_is_replayed_unless_the_environment_says_intercept(
    checkpoint, load, monkeypatch, asked, num_plans
):
    put_schedule(checkpoint / "bac.json")
    if asked is not None:
        monkeypatch.setenv("BAC", asked)
    policy = load(checkpoint)
    expected = chunk(bac.wrap(small_policy(n_layer=1), schedule_for(small_policy(n_layer=1)), replay=False))
    for _ in range(3):
        assert torch.equal(chunk(policy), expected)
    assert len(bac.describe(policy).plans) == num_plans


def test_another_value_of_bac_is_an_error_that_names_the_known_ones(checkpoint, load, monkeypatch):
    monkeypatch.setenv("BAC", "fast")
    with pytest.raises(ScheduleError, match="BAC: must be off, intercept or replay, .*got 'fast'; type BAC=replay"):
        load(checkpoint)


def test_the_variable_that_chose_the_executor_is_said_to_be_read_no_more(checkpoint, load, monkeypatch, caplog):
    monkeypatch.setenv("BAC_EXECUTOR", "interpret")
    load(checkpoint)
    assert "BAC_EXECUTOR is no longer read: policies are replayed; BAC=intercept replays nothing" in caplog.text


def test_a_policy_that_makes_its_chunk_in_one_evaluation_runs_as_it_is_and_a_line_says_so(tmp_path, caplog):
    from lerobot.policies.act.modeling_act import ACTConfig, ACTPolicy

    options = {"pretrained_backbone_weights": None, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16}
    config = ACTConfig(**models.features(), **options, chunk_size=5, n_action_steps=5, push_to_hub=False)
    ACTPolicy(config).save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="lerobot_policy_bac"):
        assert not is_wrapped(factory.get_policy_class("act").from_pretrained(tmp_path))
    assert "bac: ACTPolicy runs as it is: It makes an action chunk in one evaluation" in caplog.text


def test_what_was_wrapped_is_logged(checkpoint, load, caplog):
    put_schedule(checkpoint / "bac.json")
    with caplog.at_level(logging.INFO, logger="lerobot_policy_bac"):
        load(checkpoint)
    assert "DiffusionTransformerPolicy follows" in caplog.text
    assert "bac.json: hold, own solver, 5 steps; 6 of 15 updates in 3 blocks and 5 denoising steps" in caplog.text


def test_a_tuned_solver_is_logged_in_one_line(checkpoint, load, caplog):
    put_tuned(checkpoint / "bac.json")
    with caplog.at_level(logging.INFO, logger="lerobot_policy_bac"):
        load(checkpoint)
    assert "bac.json: fitted multistep, 2 steps (BAC=off to leave it alone)" in caplog.text


@pytest.mark.parametrize("store", [put_schedule, put_tuned])
def test_what_was_certified_is_logged(checkpoint, load, caplog, store):
    path = checkpoint / "bac.json"
    store(path)
    verdict = "refuted", "pusht", "BAC", "DDPM-100", "score", 61, -0.2, -0.3, -0.1, 0.05, 0.95, 0
    hashes = file_hash(path), file_hash(checkpoint / "model.safetensors")
    Certificate(*verdict, *hashes, "", "", "").save(checkpoint / "certificate.json")
    with caplog.at_level(logging.WARNING, logger="lerobot_policy_bac"):
        load(checkpoint)
    assert "REFUTED: BAC, score minus DDPM-100 -0.200" in caplog.text


def test_installing_twice_wraps_once(checkpoint, load):
    assert entry.install()
    first = factory.get_policy_class(TYPE).from_pretrained.__func__
    assert factory.get_policy_class(TYPE).from_pretrained.__func__ is first


def test_a_lerobot_without_the_private_name_is_left_alone_with_a_warning(monkeypatch, caplog):
    monkeypatch.delattr(factory, entry._LOOKUP)
    assert not entry.install()
    assert "has no lerobot.policies.factory._get_policy_cls_from_policy_name" in caplog.text
    assert "bac.wrap(policy, schedule)" in caplog.text
