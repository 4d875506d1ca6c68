"""The processors of a small Multi-Task DiT: LeRobot's, with a tokenizer of the words that it was trained on."""

from typing import Any

from lerobot.policies.pi0.processor_pi0 import Pi0NewLineProcessor
from lerobot.processor import (
    PolicyAction,
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)

from policies.small_multi_task_dit.configuration_small_multi_task_dit import SmallMultiTaskDiTConfig
from policies.small_pi0.processor_small_pi0 import WordTokenizerProcessorStep


def make_small_multi_task_dit_pre_post_processors(
    config: SmallMultiTaskDiTConfig,
    dataset_stats: dict[str, dict[str, Any]] | None = None,
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """Rename, add a batch dimension, end the instruction, turn it into tokens, move, normalise; and back.

    Args:
        config: Options of the policy.
        dataset_stats: "min" and "max" of each feature.
    """
    steps = make_default_policy_processor_steps(config, dataset_stats)
    before = [
        steps.rename_observations,
        steps.add_batch_dim,
        Pi0NewLineProcessor(),  # the token at which CLIP takes what it has read
        WordTokenizerProcessorStep(
            max_length=config.tokenizer_max_length,
            padding=config.tokenizer_padding,
            padding_side=config.tokenizer_padding_side,
            truncation=False,  # CLIP refuses what is too long; cut off, it would read the first word alone
            sentences=config.sentences,
        ),
        steps.to_device,
        steps.normalize,
    ]
    return make_policy_processor_pipelines(input_steps=before, output_steps=[steps.unnormalize, steps.to_cpu])
