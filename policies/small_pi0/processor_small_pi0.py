"""The processors of a small pi0: LeRobot's for pi0, with a tokenizer of the words that it was trained on."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.policies.pi0.processor_pi0 import Pi0NewLineProcessor
from lerobot.processor import (
    PolicyAction,
    PolicyProcessorPipeline,
    ProcessorStepRegistry,
    TokenizerProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)

from policies.small_pi0.configuration_small_pi0 import SmallPI0Config
from policies.small_vlm import word_tokenizer


@dataclass
@ProcessorStepRegistry.register(name="word_tokenizer_processor")
class WordTokenizerProcessorStep(TokenizerProcessorStep):
    """Turns instructions into tokens, one for each word. The words lie in the step itself, so it needs no other file.

    Args:
        sentences: All sentences whose words have a token.
    """

    sentences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer = word_tokenizer(self.sentences)
        super().__post_init__()

    def get_config(self) -> dict[str, Any]:
        """The step's options, as LeRobot saves them."""
        return {**super().get_config(), "sentences": list(self.sentences)}


def make_small_pi0_pre_post_processors(
    config: SmallPI0Config,
    dataset_stats: dict[str, dict[str, Any]] | None = None,
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """Rename, add a batch dimension, end the instruction, turn it into tokens, move, normalise; and back.

    Args:
        config: Options of the policy.
        dataset_stats: "mean" and "std" of each feature.
    """
    steps = make_default_policy_processor_steps(config, dataset_stats)
    before = [
        steps.rename_observations,
        steps.add_batch_dim,
        Pi0NewLineProcessor(),
        WordTokenizerProcessorStep(max_length=config.tokenizer_max_length, sentences=config.sentences),
        steps.to_device,
        steps.normalize,
    ]
    return make_policy_processor_pipelines(input_steps=before, output_steps=[steps.unnormalize, steps.to_cpu])
