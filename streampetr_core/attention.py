"""Multi-head attention through one function with three back-ends.

B batch, H heads, Q queries, S keys, D channels of a head, C = H D channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BACKENDS = ("sdpa", "flash_attn", "explicit")


def attend(
    query_BHQD: Tensor,
    key_BHSD: Tensor,
    value_BHSD: Tensor,
    allowed: Tensor | None = None,
    dropout: float = 0.0,
    backend: str = "sdpa",
) -> Tensor:
    """Return softmax(q k / sqrt(D)) v as (B, H, Q, D).

    `allowed` is a bool mask that broadcasts to (B, H, Q, S), True where a query may look. Back-ends: "sdpa" is
    PyTorch's fused attention; "explicit" is the formula, kept as the reference; "flash_attn" is the flash-attn package
    (CUDA, fp16 or bf16, no mask) and raises ImportError where that is not installed.
    """
    if backend == "sdpa":
        return F.scaled_dot_product_attention(query_BHQD, key_BHSD, value_BHSD, attn_mask=allowed, dropout_p=dropout)
    if backend == "explicit":
        logits_BHQS = query_BHQD @ key_BHSD.transpose(-1, -2) / math.sqrt(query_BHQD.shape[-1])
        if allowed is not None:
            logits_BHQS = logits_BHQS.masked_fill(~allowed, -torch.inf)
        return F.dropout(logits_BHQS.softmax(dim=-1), dropout) @ value_BHSD
    if backend == "flash_attn":
        return _flash_attention(query_BHQD, key_BHSD, value_BHSD, allowed, dropout)
    raise ValueError(f"no attention back-end '{backend}'; there are {', '.join(BACKENDS)}")


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout: float) -> Tensor:
    from flash_attn import flash_attn_func

    if allowed is not None:
        raise ValueError("flash_attn takes no attention mask; use the back-end 'sdpa' for masked attention")
    out_BQHD = flash_attn_func(*(x.transpose(1, 2).contiguous() for x in (query, key, value)), dropout_p=dropout)
    return out_BQHD.transpose(1, 2)


class MultiheadAttention(nn.Module):
    """Projects queries, keys and values, attends, and projects back; batch first.

    Parameter names and shapes equal torch.nn.MultiheadAttention's (packed in q, k, v order).
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0, backend: str = "sdpa") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.backend = backend
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query_BQC: Tensor, key_BSC: Tensor, value_BSC: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return (B, Q, C); `allowed` as in `attend`."""
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        query, key, value = (
            self._split_heads(F.linear(x, weight, bias))
            for x, weight, bias in zip((query_BQC, key_BSC, value_BSC), weights, biases, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        out_BHQD = attend(query, key, value, allowed, dropout, self.backend)
        return self.out_proj(out_BHQD.transpose(1, 2).flatten(2))

    def _split_heads(self, x_BSC: Tensor) -> Tensor:
        return x_BSC.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
