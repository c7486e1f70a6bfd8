"""The attention back-ends agree with each other and with PyTorch's own module."""

import sys

import pytest
import torch

from streampetr_core.attention import MultiheadAttention, attend


def random_heads(num_queries: int, num_keys: int):
    generator = torch.Generator().manual_seed(num_queries)
    return (torch.randn(2, 3, size, 8, generator=generator) for size in (num_queries, num_keys, num_keys))


MASKS = {
    "none": None,
    "per key": torch.tensor([[True] * 5 + [False] * 6, [True] * 11])[:, None, None],
    "per pair": torch.rand(7, 11, generator=torch.Generator().manual_seed(1)) > 0.4,
}


@pytest.mark.parametrize("allowed", MASKS.values(), ids=MASKS)
def test_sdpa_equals_the_formula(allowed):
    query, key, value = random_heads(7, 11)
    ours, formula = (attend(query, key, value, allowed, backend=backend) for backend in ("sdpa", "explicit"))
    torch.testing.assert_close(ours, formula, rtol=0, atol=1e-5)


def test_a_masked_key_has_no_influence():
    query, key, value = random_heads(7, 11)
    allowed = MASKS["per key"]
    other_key, other_value = key.clone(), value.clone()
    other_key[0, :, 5:], other_value[0, :, 5:] = 100.0, -100.0
    for backend in ("sdpa", "explicit"):
        ours = attend(query, key, value, allowed, backend=backend)
        torch.testing.assert_close(ours, attend(query, other_key, other_value, allowed, backend=backend))


def test_the_module_is_that_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(24, 3), torch.nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, keys, values = torch.randn(2, 5, 24), torch.randn(2, 9, 24), torch.randn(2, 9, 24)
    torch.testing.assert_close(ours(query, keys, values), theirs(query, keys, values)[0], rtol=0, atol=1e-5)


def test_flash_attn_is_missed_by_name_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(ImportError, match="flash_attn"):
        attend(*random_heads(2, 3), backend="flash_attn")


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="no attention back-end 'magic'; there are sdpa, flash_attn, explicit"):
        attend(*random_heads(2, 3), backend="magic")


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    attention = MultiheadAttention(24, 3, dropout=0.5)
    x = torch.randn(1, 6, 24)
    assert not torch.equal(attention(x, x, x), attention(x, x, x))
    attention.eval()
    assert torch.equal(attention(x, x, x), attention(x, x, x))
