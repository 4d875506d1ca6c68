"""Every name of LeRobot that `bac` relies on. A test looks each of them up in the installed LeRobot.

A name that is gone costs what hangs on it, never a command: `bac` says so in one line. The attributes of a policy,
which its adapter reads, stand in the adapter.
"""

from __future__ import annotations

import importlib
from typing import Any

VERSIONS = ("0.6.1",)  # tested; others may work

POLICIES = {
    "diffusion": "lerobot.policies.diffusion.modeling_diffusion.DiffusionPolicy",
    "multi_task_dit": "lerobot.policies.multi_task_dit.modeling_multi_task_dit.MultiTaskDiTPolicy",
    "pi0": "lerobot.policies.pi0.modeling_pi0.PI0Policy",
    "pi05": "lerobot.policies.pi05.modeling_pi05.PI05Policy",
    "smolvla": "lerobot.policies.smolvla.modeling_smolvla.SmolVLAPolicy",
    "groot": "lerobot.policies.groot.modeling_groot.GrootPolicy",
    "xvla": "lerobot.policies.xvla.modeling_xvla.XVLAPolicy",
    "evo1": "lerobot.policies.evo1.modeling_evo1.Evo1Policy",
    "vla_jepa": "lerobot.policies.vla_jepa.modeling_vla_jepa.VLAJEPAPolicy",
    "molmoact2": "lerobot.policies.molmoact2.modeling_molmoact2.MolmoAct2Policy",
    "eo1": "lerobot.policies.eo1.modeling_eo1.EO1Policy",
    "wall_x": "lerobot.policies.wall_x.modeling_wall_x.WallXPolicy",
    "fastwam": "lerobot.policies.fastwam.modeling_fastwam.FastWAMPolicy",
    "lingbot_va": "lerobot.policies.lingbot_va.modeling_lingbot_va.LingBotVAPolicy",
}
"""Policies that `bac` takes."""

NOT_DENOISING = {
    "act": "lerobot.policies.act.modeling_act.ACTPolicy",
    "vqbet": "lerobot.policies.vqbet.modeling_vqbet.VQBeTPolicy",
    "tdmpc": "lerobot.policies.tdmpc.modeling_tdmpc.TDMPCPolicy",
    "pi0_fast": "lerobot.policies.pi0_fast.modeling_pi0_fast.PI0FastPolicy",
    "gaussian_actor": "lerobot.policies.gaussian_actor.modeling_gaussian_actor.GaussianActorPolicy",
}
"""Policies that it knows not to fit."""

LOOKUP = "lerobot.policies.factory._get_policy_cls_from_policy_name"
"""Returns the class of a policy by its name; the plug-in takes its place."""

RTC_CLOCK = "lerobot.rollout.inference.rtc.time"
"""Python's module `time`, by which the engine of real-time chunking measures a chunk's latency."""

RTC_OPTIONS = ("inference_delay", "prev_chunk_left_over")
"""What that engine gives `predict_action_chunk`, which hands it on to the sampler."""

RTC_WEIGHTS = "lerobot.policies.rtc.modeling_rtc.RTCProcessor.get_prefix_weights"
"""The only use of `inference_delay` in a guided chunk: how much each action of the last chunk counts."""

GROOT_SAMPLER = "lerobot.policies.groot.groot_n1_7.GR00TN17ActionHead.get_action_with_features"
"""Guides chunks in its own way: it begins them with the rest of the last one."""

GROOT_OPTIONS = ("action_input", "action", "options")
"""What it gets: a batch, the rest of the last chunk in it, and numbers."""

GROOT_NUMBERS = ("action_horizon", "rtc_overlap_steps", "rtc_frozen_steps", "rtc_ramp_rate")
"""Those numbers: rows of the rest, how many of them begin a chunk, how many are kept, and how the others are."""

GROOT_ENCODER = "action_encoder"
"""What a step of it calls first."""

GROOT_UNGUIDED = "use_relative_actions"
"""The setting of the policy under which no chunk is guided."""

COMMANDS = {
    "PreTrainedConfig": "lerobot.configs.PreTrainedConfig",
    "get_policy_class": "lerobot.policies.factory.get_policy_class",
    "make_pre_post_processors": "lerobot.policies.factory.make_pre_post_processors",
    "LeRobotDataset": "lerobot.datasets.LeRobotDataset",
    "LeRobotDatasetMetadata": "lerobot.datasets.LeRobotDatasetMetadata",
    "resolve_delta_timestamps": "lerobot.datasets.factory.resolve_delta_timestamps",
    "make_env": "lerobot.envs.factory.make_env",
    "make_env_config": "lerobot.envs.factory.make_env_config",
    "make_env_pre_post_processors": "lerobot.envs.factory.make_env_pre_post_processors",
    "rollout": "lerobot.scripts.lerobot_eval.rollout",
    "register_third_party_plugins": "lerobot.utils.import_utils.register_third_party_plugins",
    "serve": "lerobot.async_inference.policy_server.serve",
}
"""What the `bac` command calls."""


def look_up(name: str) -> Any:
    """What a dotted name stands for.

    Raises:
        ImportError: The module cannot be imported, or lacks the name.
    """
    path, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}.") or "." not in path:
            raise
        module = look_up(path)  # a class
    if not hasattr(module, attribute):
        raise ImportError(f"there is no {name} in this LeRobot", name=name)
    return getattr(module, attribute)
