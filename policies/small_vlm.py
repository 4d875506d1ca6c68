"""A small vision-language model with random weights, as a local folder that LeRobot's SmolVLA builds on.

`SmolVLAConfig.vlm_model_name` names a model of the hub or a folder. SmolVLA reads the sizes and the tokenizer from it;
with ``load_vlm_weights=False`` it needs no weights. The folder lies in the checkpoint, so nothing is fetched.

The tokenizer has one token per word of the sentences that it was made from. Other words become ``<unk>``.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

PAD, UNKNOWN = "<pad>", "<unk>"
IMAGE_TOKENS = {  # names that SmolVLM's processor and SmolVLA ask for
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_token": "<image>",
    "end_of_utterance_token": "<end_of_utterance>",
}


def word_tokenizer(sentences: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token for each word of the sentences, in lower case, and one for the newline that ends SmolVLA's prompts."""
    normalizer = normalizers.Lowercase()
    splitter = pre_tokenizers.Split(Regex(r"\n|[^\s\w-]|[\w-]+"), behavior="isolated")
    words = {word for text in sentences for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    names = [PAD, UNKNOWN, *IMAGE_TOKENS.values(), "\n", *sorted(word for word in words if word.strip())]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [splitter, pre_tokenizers.Split(Regex("[ \t]+"), behavior="removed")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, extra_special_tokens=IMAGE_TOKENS
    )


def write_small_vlm(
    folder: str | Path,
    sentences: Iterable[str],
    *,
    image_size: int,
    patch_size: int,
    vision_width: int,
    vision_layers: int,
    width: int,
    layers: int,
    heads: int,
    pixel_shuffle: int = 2,
) -> Path:
    """Write the configuration, the tokenizer and the processors of a small SmolVLM.

    Args:
        folder: Folder to write.
        sentences: All sentences whose words the tokenizer shall know.
        image_size: Height and width of the pictures [pixels].
        patch_size: Height and width of a patch [pixels].
        vision_width: Width of the vision transformer; its feed-forward layers are twice as wide.
        vision_layers: Layers of the vision transformer.
        width: Width of the language model; its feed-forward layers are twice as wide.
        layers: Layers of the language model, and of the action expert.
        heads: Attention heads of both transformers.
        pixel_shuffle: This many patches squared become one token of the language model.

    Returns:
        `folder`.

    Raises:
        ValueError: The picture has no whole number of tokens.
    """
    if image_size % (patch_size * pixel_shuffle):
        raise ValueError(
            f"vlm.image_size={image_size}: must be a multiple of {patch_size * pixel_shuffle}, which is "
            f"vlm.patch_size={patch_size} times the pixel shuffle of {pixel_shuffle}"
        )
    folder = Path(folder)
    tokenizer = word_tokenizer(sentences)
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 2 * vision_width,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": heads,
        "patch_size": patch_size,
        "image_size": image_size,
        "hidden_act": "relu",
    }
    config = SmolVLMConfig(
        vision_config=vision,
        text_config=language,
        scale_factor=pixel_shuffle,
        image_token_id=tokenizer.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,  # SmolVLA freezes a head of its own,
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=(image_size // patch_size // pixel_shuffle) ** 2,
    )
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
