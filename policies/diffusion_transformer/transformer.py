"""DP-T's denoiser. Parameters and buffers have Diffusion Policy's names and shapes, so its weights can be loaded.

::

    noisy actions [B, T, Da] --input_emb--> + pos_emb ---> decoder: n_layer x (SA, CA, FFN) --> ln_f --> head
    timestep --time_emb--+                                              ^
    observations [B, To, Do] --cond_obs_emb--+--> + cond_pos_emb --> encoder

The architecture is that of Chi et al., "Diffusion Policy", RSS 2023 (arXiv 2303.04137), conditioned on time and
observations.
"""

import math

import torch
from torch import Tensor, nn


class SinusoidalPosEmb(nn.Module):
    """Sines, then cosines, of a timestep at geometrically spaced frequencies (Vaswani et al., 2017)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, timestep: Tensor) -> Tensor:
        """Embed timesteps `[B]`.

        Returns:
            `[B, dim]` float32.
        """
        half = self.dim // 2
        exponent = torch.arange(half, device=timestep.device) * -(math.log(10000) / (half - 1))
        angle = timestep[:, None] * exponent.exp()[None, :]
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class TransformerForDiffusion(nn.Module):
    """Predicts the noise in an action chunk from its noise level and the observations.

    Args:
        input_dim: Size of an action (Da).
        output_dim: Size of a prediction per action, Da as well.
        horizon: Actions per chunk (T).
        n_obs_steps: Observation steps (To); the memory has 1 + To tokens.
        cond_dim: Size of an observation (Do).
        n_layer: Decoder layers.
        n_head: Attention heads.
        n_emb: Token width.
        p_drop_emb: Dropout of the embeddings, in [0, 1).
        p_drop_attn: Dropout inside the layers, in [0, 1).
        causal_attn: Action token t sees only action tokens 0..t, the timestep and observation tokens 0..t.
        n_cond_layers: Encoder layers over the memory; 0 takes an MLP instead.
        norm_first: Normalise before each branch, or after it.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_obs_steps: int,
        cond_dim: int,
        *,
        n_layer: int = 8,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.3,
        causal_attn: bool = True,
        n_cond_layers: int = 0,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.empty(1, horizon, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = SinusoidalPosEmb(n_emb)
        self.cond_obs_emb = nn.Linear(cond_dim, n_emb)
        self.cond_pos_emb = nn.Parameter(torch.empty(1, 1 + n_obs_steps, n_emb))

        layer_options = {
            "d_model": n_emb,
            "nhead": n_head,
            "dim_feedforward": 4 * n_emb,
            "dropout": p_drop_attn,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": norm_first,
        }
        self.encoder = _memory_encoder(n_emb, n_cond_layers, layer_options)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer_options), n_layer)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)

        self.register_buffer("mask", _causal_mask(horizon, horizon) if causal_attn else None)
        # The timestep is memory token 0, so observation s is token s + 1.
        self.register_buffer("memory_mask", _causal_mask(horizon, 1 + n_obs_steps, 1) if causal_attn else None)
        # Holds no information, but Diffusion Policy's checkpoints store it, and weights are loaded strictly.
        self._dummy_variable = nn.Parameter(torch.empty(0))
        self.apply(_initialise)
        nn.init.normal_(self.pos_emb, std=0.02)
        nn.init.normal_(self.cond_pos_emb, std=0.02)

    def forward(self, sample: Tensor, timestep: Tensor, cond: Tensor) -> Tensor:
        """Evaluate the denoiser.

        Args:
            sample: Noisy actions, normalised, `[B, T, Da]`.
            timestep: Timestep (noise level), `[B]` or scalar, 0..num_train_timesteps - 1.
            cond: Observations, normalised, `[B, To, Do]`.

        Returns:
            Predicted noise (or clean actions), `[B, T, Da]`.
        """
        timestep = timestep.expand(sample.shape[0])
        time_token = self.time_emb(timestep).to(sample.dtype).unsqueeze(1)
        memory = torch.cat([time_token, self.cond_obs_emb(cond)], dim=1)
        memory = self.encoder(self.drop(memory + self.cond_pos_emb))
        tokens = self.drop(self.input_emb(sample) + self.pos_emb)
        # None instead of False would make torch inspect the masks' values, a host synchronisation on a GPU.
        tokens = self.decoder(
            tokens,
            memory,
            tgt_mask=self.mask,
            memory_mask=self.memory_mask,
            tgt_is_causal=False,
            memory_is_causal=False,
        )
        return self.head(self.ln_f(tokens))

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Shape of a chunk: actions per chunk T, and size of an action Da."""
        return self.pos_emb.shape[1], self.head.out_features

    def optim_groups(self) -> list[dict[str, object]]:
        """Parameters in two groups: weight matrices, and all others, which do not decay."""
        embeddings = {"pos_emb", "cond_pos_emb"}
        named = list(self.named_parameters())
        matrices = [p for name, p in named if p.ndim >= 2 and name not in embeddings]
        others = [p for name, p in named if p.ndim < 2 or name in embeddings]
        return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]


def _memory_encoder(n_emb: int, n_cond_layers: int, layer_options: dict) -> nn.Module:
    if n_cond_layers > 0:
        return nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**layer_options), n_cond_layers, enable_nested_tensor=False
        )
    return nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))


def _causal_mask(num_queries: int, num_keys: int, shift: int = 0) -> Tensor:
    """Make an additive mask `[num_queries, num_keys]`: query q sees keys 0..q + shift."""
    visible = torch.arange(num_queries)[:, None] >= torch.arange(num_keys)[None, :] - shift
    return torch.zeros(num_queries, num_keys).masked_fill(~visible, float("-inf"))


def _initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02^2) and set biases to zero, as Diffusion Policy (and minGPT before it) does."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
