"""Checkpoints of LeRobot's own policies, complete with processors and all that LeRobot would fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch import nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

import bac
from bac.adapters import find_host
from tests.lerobot import models


def multi_task_dit(folder: Path, **options: Any) -> Path:
    """`multi_task_dit` for Push-T: it sees where the agent is, makes 7 denoising steps and executes 5 actions."""
    from lerobot.policies.multi_task_dit.processor_multi_task_dit import make_multi_task_dit_pre_post_processors

    clip = folder / "clip"
    CLIPTextModel(models.clip_words()).save_pretrained(clip)
    _tokenizer().save_pretrained(clip)
    ranges = {"prediction_type": "sample", "clip_sample": False}  # or random weights hit the limits of every action
    options = {"num_inference_steps": 7, "text_encoder_name": str(clip), **ranges, **options}
    policy = models.multi_task_dit(state=2, **options)
    return _saved(policy, folder / "multi_task_dit", make_multi_task_dit_pre_post_processors(policy.config))


def smolvla(folder: Path, **options: Any) -> Path:
    """`smolvla` with a camera, three joints, two actions and 7 denoising steps; it executes 4 actions."""
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    vlm = folder / "vlm"
    marks = ("<image>", "<video>", "<fake_token_around_image>", "<global-img>")
    tokenizer = _tokenizer(
        fake_image_token=marks[2], global_image_token=marks[3], image_token=marks[0], video_token=marks[1]
    )
    models.smolvlm().save_pretrained(vlm)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor()).save_pretrained(vlm)
    policy = models.smolvla(vlm_model_name=str(vlm), **options)
    return _saved(policy, folder / "smolvla", make_smolvla_pre_post_processors(policy.config))


def pi0(folder: Path, **options: Any) -> Path:
    """`pi0` with a camera, three joints, two actions and 7 denoising steps; it executes 4 actions.

    Load it within `models.small_gemma("pi0")`: a checkpoint does not say how large its Gemma is.
    """
    from lerobot.policies.pi0 import processor_pi0 as processors

    words, step = folder / "words", processors.TokenizerProcessorStep
    _tokenizer().save_pretrained(words)
    policy = models.pi(name="pi0", **options)

    def with_few_words(**given: Any) -> Any:
        return step(**{**given, "tokenizer_name": str(words)})

    with mock.patch.object(processors, "TokenizerProcessorStep", with_few_words):
        return _saved(policy, folder / "pi0", processors.make_pi0_pre_post_processors(policy.config))


def put_schedule(checkpoint: Path, policy: nn.Module, *steps: int) -> bac.Schedule:
    """Lay a schedule beside it under which every block updates at `steps`."""
    host = find_host(policy)
    schedule = bac.Schedule(
        host.num_steps, dict.fromkeys([block.name for block in host.blocks], steps), host.fingerprint()
    )
    bac.Denoising(schedule=schedule).save(checkpoint / "bac.json")
    return schedule


def put_guard(checkpoint: Path, **options: Any) -> bac.Guard:
    """Lay a guard beside its schedule that looks everywhere in every chunk and takes any error for one too many."""
    schedule = bac.load(checkpoint / "bac.json").schedule
    errors = {
        (name, step): np.zeros(50)
        for name, updates in schedule.update_steps.items()
        for step in set(range(schedule.num_steps)) - set(updates)
    }
    options = {"probe_every": 1, "num_cells": 10**4, "patience": 1, **options}
    guard = bac.Guard.of_errors(schedule, errors, fingerprint=schedule.fingerprint, **options)
    guard.save(checkpoint / "guard.json")
    return guard


def _saved(policy: Any, path: Path, processors: tuple[Any, ...]) -> Path:
    policy.config.push_to_hub = False
    policy.save_pretrained(path)
    for processor in processors:
        processor.save_pretrained(path)
    put_schedule(path, policy, 0, 3)
    return path


def _tokenizer(**marks: str) -> PreTrainedTokenizerFast:
    """Knows the words of a task that fits on a hand."""
    words = ["<pad>", "<unk>", "push", "the", "block", *marks.values()]
    backend = Tokenizer(tokenizer_models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=marks
    )
