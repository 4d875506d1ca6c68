"""A small pi0: LeRobot's modules, built with other sizes.

LeRobot's constructors name the two sizes that they know. So each class here has a constructor of its own, which sets
what the inherited methods read, and inherits everything else.
"""

from lerobot.policies.pi0.modeling_pi0 import PaliGemmaWithExpertModel, PI0Policy, PI0Pytorch
from lerobot.policies.pi_gemma import PaliGemmaForConditionalGenerationWithPiGemma, PiGemmaForCausalLM
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from torch import Tensor, nn
from transformers import GemmaConfig, PaliGemmaConfig

from policies.small_pi0 import processor_small_pi0  # noqa: F401  registers the step that checkpoints name
from policies.small_pi0.configuration_small_pi0 import HEADS, SmallPI0Config
from policies.small_vlm import word_tokenizer


class SmallPI0Policy(PI0Policy):
    """pi0 (Black et al., 2024) with the sizes of its configuration. Loading is strict, and errors are raised.

    Args:
        config: Options; `config.validate_features` is called first.

    Raises:
        ValueError: The configuration has no sentences.
    """

    config_class = SmallPI0Config
    name = "small_pi0"

    def __init__(self, config: SmallPI0Config, **kwargs: object) -> None:
        PreTrainedPolicy.__init__(self, config)  # not PI0Policy's, which builds a large model
        config.validate_features()
        self.config = config
        self.init_rtc_processor()
        self.model = SmallPI0(config, self.rtc_processor)
        self.model.to(config.device)
        self.reset()

    def _preprocess_images(self, batch: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As PI0Policy does, which would go on without the picture of a camera that it was trained with.

        Raises:
            ValueError: A camera's pictures are missing.
        """
        if missing := [key for key in self.config.image_features if key not in batch]:
            raise ValueError(
                f"{', '.join(missing)}: this policy sees it, and the observation has none. In the worlds of this "
                "repository: lerobot-eval --env.pixels=96 --env.wrist=true, bac --env-option pixels=96 --env-option "
                "wrist=true"
            )
        return super()._preprocess_images(batch)

    # PI0Policy's own converts names of published weights, and goes on with random weights if it cannot load.
    from_pretrained = classmethod(PreTrainedPolicy.from_pretrained.__func__)


class SmallPI0(PI0Pytorch):
    """Vision tower, language model, action expert, and the projections of states, actions and times."""

    def __init__(self, config: SmallPI0Config, rtc_processor: RTCProcessor | None = None) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.rtc_processor = rtc_processor
        self.gradient_checkpointing_enabled = False
        self.paligemma_with_expert = SmallPaliGemmaWithExpert(config)
        width = config.expert_width
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        self.state_proj = nn.Linear(config.max_state_dim, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)


class SmallPaliGemmaWithExpert(PaliGemmaWithExpertModel):
    """PaliGemma and the action expert, layer by layer of the same depth and with the same heads."""

    def __init__(self, config: SmallPI0Config) -> None:
        nn.Module.__init__(self)
        self.freeze_vision_encoder = config.freeze_vision_encoder
        self.train_expert_only = config.train_expert_only
        self.paligemma = PaliGemmaForConditionalGenerationWithPiGemma(_paligemma(config))
        self.gemma_expert = PiGemmaForCausalLM(_gemma(config, config.expert_width))
        self.gemma_expert.model.embed_tokens = None  # the expert reads no words
        self.to_bfloat16_for_selected_params(config.dtype)
        self._set_requires_grad()


def _gemma(config: SmallPI0Config, width: int) -> GemmaConfig:
    if not config.sentences:
        raise ValueError("sentences: must name the instructions whose words the policy knows, got none")
    return GemmaConfig(
        vocab_size=len(word_tokenizer(config.sentences)),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=config.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=config.head_dim,
        hidden_activation="gelu_pytorch_tanh",
        initializer_range=width**-0.5,  # Gemma's own 0.02 suits wide models
        attn_implementation="eager",  # LeRobot's sampler asks for it too
    )


def _paligemma(config: SmallPI0Config) -> PaliGemmaConfig:
    language = _gemma(config, config.width)
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": config.vision_width,
        "intermediate_size": 2 * config.vision_width,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "patch_size": config.patch_size,
        "image_size": config.image_resolution[0],
        "vision_use_head": False,
    }
    return PaliGemmaConfig(
        vision_config=vision,
        text_config=language,
        projection_dim=config.width,
        image_token_index=language.vocab_size,
        attn_implementation="eager",
    )
