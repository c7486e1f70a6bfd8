"""The decoder: queries attend to each other and the memory, then to the image tokens of all cameras.

L layers, B batch, Q queries (learned and propagated), M memory entries that are keys only, T image tokens, C channels.
Paper section 3.3; layer order and post-norm as published.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_core.attention import MultiheadAttention
from streampetr_core.config import ModelConfig


class DecoderLayer(nn.Module):
    """Self-attention with the memory as extra keys, cross-attention to the images, feed-forward; post-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, dropout = config.channels, config.dropout
        self.self_attention = MultiheadAttention(channels, config.num_heads, dropout)
        self.cross_attention = MultiheadAttention(channels, config.num_heads, dropout)
        self.ffn_in = nn.Linear(channels, config.ffn_channels)
        self.ffn_out = nn.Linear(config.ffn_channels, channels)
        self.norm_self = nn.LayerNorm(channels)
        self.norm_cross = nn.LayerNorm(channels)
        self.norm_ffn = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.ffn_in, self.ffn_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x_BQC: Tensor,
        position_BQC: Tensor,
        memory_BMC: Tensor,
        memory_position_BMC: Tensor,
        tokens_BTC: Tensor,
        token_keys_BTC: Tensor,
        query_allowed: Tensor | None,
        token_allowed: Tensor | None,
    ) -> Tensor:
        """Return the queries' next content (B, Q, C). Positions enter queries and keys, never values."""
        values = torch.cat([x_BQC, memory_BMC], dim=1)
        keys = values + torch.cat([position_BQC, memory_position_BMC], dim=1)
        attended = self.self_attention(x_BQC + position_BQC, keys, values, query_allowed)
        x_BQC = self.norm_self(x_BQC + self.dropout(attended))
        attended = self.cross_attention(x_BQC + position_BQC, token_keys_BTC, tokens_BTC, token_allowed)
        x_BQC = self.norm_cross(x_BQC + self.dropout(attended))
        hidden = self.dropout(F.relu(self.ffn_in(x_BQC)))
        return self.norm_ffn(x_BQC + self.dropout(self.ffn_out(hidden)))


class Decoder(nn.Module):
    """A stack of layers whose outputs share one final norm; the un-normed content goes on to the next layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.post_norm = nn.LayerNorm(config.channels)

    def forward(
        self,
        x_BQC: Tensor,
        position_BQC: Tensor,
        memory_BMC: Tensor,
        memory_position_BMC: Tensor,
        tokens_BTC: Tensor,
        token_position_BTC: Tensor,
        query_allowed: Tensor | None = None,
        token_allowed: Tensor | None = None,
    ) -> Tensor:
        """Return the normed output of every layer, (L, B, Q, C).

        The masks are bool, True where attention may look: `query_allowed` broadcasts to (B, heads, Q, Q + M),
        `token_allowed` to (B, heads, Q, T).
        """
        outputs = []
        token_keys_BTC = tokens_BTC + token_position_BTC
        for layer in self.layers:
            x_BQC = layer(
                x_BQC,
                position_BQC,
                memory_BMC,
                memory_position_BMC,
                tokens_BTC,
                token_keys_BTC,
                query_allowed,
                token_allowed,
            )
            outputs.append(self.post_norm(x_BQC))
        return torch.stack(outputs)
