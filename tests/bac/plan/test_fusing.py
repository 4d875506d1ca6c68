"""The passes that put operators of whole sublayers into programs, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bac.plan.packed import Kernels, plain
from bac.plan.passes import addup, fuse, fuse_sublayers
from bac.plan.passes.dce import drop_dead_code
from bac.plan.passes.early import draw_first
from bac.plan.program import interpret
from tests.bac.plan.runs import names, numbers, taped

TOKENS, WIDTH, HEADS, HIDDEN = 5, 12, 3, 22


@pytest.fixture
def _plain(monkeypatch):
    """Operators without a compiler, so that the pass can be tested anywhere."""

    def unpacked(kind: str) -> Callable[..., Any]:
        def operator(*arguments: Any) -> Any:
            features = [WIDTH, 3 * WIDTH, HIDDEN, 7]

            def columns(place: int, packed: Tensor) -> Tensor:
                bias = arguments[place + 1] if kind != "self_attention" or place != 4 else arguments[5]
                assert bias.numel() in features
                return packed.transpose(0, 1).reshape(packed.shape[1], -1)[:, : bias.numel()]

            given = [columns(p, a) if p in fuse._WEIGHTS[kind] else a for p, a in enumerate(arguments)]
            return getattr(plain, kind)(*given)

        operator.__name__ = kind
        return operator

    made = Kernels(**{kind: unpacked(kind) for kind in fuse._WEIGHTS})
    monkeypatch.setattr(fuse, "kernels", lambda: made)
    monkeypatch.setattr(fuse, "_is_fast_enough", lambda *_: True)


class Layer(nn.Module):
    """A layer that normalises first."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.eval()
        torch.manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def attend(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        return self.attention(y, y, y, need_weights=False)[0]

    def feed(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norms[1](x))))


def fused(run: Callable[..., Any], *leaves: Tensor, module: nn.Module) -> list[str]:
    """Names of the operators after the pass; the results must stay what they are."""
    program = taped(run, *leaves, constants=tuple(module.parameters()))
    result = drop_dead_code(fuse_sublayers(program))
    for made, expected in zip(interpret(result, leaves), interpret(program, leaves), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    return [name for name, i in zip(names(result), result.instructions, strict=True) if not result.is_view(i)]


@pytest.mark.usefixtures("_plain")
def test_a_layer_is_an_operator_for_each_sublayer():
    layer = Layer()

    def run(x):
        x = x + layer.attend(x)
        return x + layer.feed(x)

    assert fused(run, numbers(1, TOKENS, WIDTH), module=layer) == ["self_attention", "feed_forward"]


@pytest.mark.usefixtures("_plain")
def test_a_feature_that_is_stored_is_given_beside_the_stream():
    layer = Layer()

    def run(x, other):
        feature = layer.feed(x)
        return x + feature, other + feature

    leaves = numbers(1, TOKENS, WIDTH), numbers(1, TOKENS, WIDTH, seed=9)
    assert fused(run, *leaves, module=layer) == ["feed_forward", "add"]


@pytest.mark.usefixtures("_plain")
def test_features_of_other_steps_are_added_by_the_operator():
    layer = Layer()

    def before(x, other):
        total = layer.feed(x) + other
        return x + total, total

    def after(x, other):
        feature = layer.feed(x)
        return x + feature + other, feature

    def too_late(x, other):
        feature = layer.feed(x)
        return feature + torch.sin(feature), x + feature + torch.cos(feature)

    leaves = numbers(1, TOKENS, WIDTH), numbers(1, TOKENS, WIDTH, seed=9)
    assert fused(before, *leaves, module=layer) == ["feed_forward"]
    assert fused(after, *leaves, module=layer) == ["feed_forward"]
    assert fused(too_late, *leaves, module=layer) == ["feed_forward", "sin", "add", "cos", "add"]


@pytest.mark.usefixtures("_plain")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64])
def test_numbers_of_another_type_are_not_added_by_the_operator(dtype):
    layer = Layer()

    def run(x, other):
        feature = layer.feed(x) + other
        return x + feature.float()

    leaves = numbers(1, TOKENS, WIDTH), torch.ones(1, TOKENS, WIDTH, dtype=dtype)
    assert "add" in fused(run, *leaves, module=layer)


@pytest.mark.usefixtures("_plain")
def test_a_scale_of_zero_weighs_all_tokens_alike():
    layer = Layer()

    def run(x):
        packed = F.linear(layer.norms[0](x), layer.attention.in_proj_weight, layer.attention.in_proj_bias)
        parts = packed.view(1, TOKENS, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(*parts, scale=0.0).transpose(1, 2).reshape(x.shape)
        return x + layer.attention.out_proj(attended)

    assert fused(run, numbers(1, TOKENS, WIDTH), module=layer) == ["self_attention"]


@pytest.mark.usefixtures("_plain")
def test_a_head_after_a_norm_is_one_operator():
    head = nn.Sequential(nn.LayerNorm(WIDTH, elementwise_affine=False), nn.Linear(WIDTH, 7))
    assert fused(head, numbers(TOKENS, WIDTH), module=head) == ["norm_product"]


@pytest.mark.usefixtures("_plain")
@pytest.mark.parametrize("rows", [1, 33])
def test_one_row_and_many_rows_stay_as_they_are(rows):
    layer = Layer()
    found = fused(lambda x: x + layer.feed(x), numbers(1, rows, WIDTH), module=layer)
    assert found == ["layer_norm", "linear", "gelu", "linear", "add"]


@pytest.mark.usefixtures("_plain")
def test_rows_that_a_view_cuts_anew_or_leaves_out_are_no_sublayer():
    layer = Layer()
    half = nn.Linear(WIDTH // 2, 7)

    def cut(x):
        return half(layer.norms[0](x).view(-1, WIDTH // 2))

    def shortened(x):
        return layer.feed(layer.norms[0](x).view(-1, WIDTH)[:TOKENS]) + x.view(-1, WIDTH)[:TOKENS]

    def fed(x):
        return layer.up(layer.norms[1](x)[0, :TOKENS])

    leaf = numbers(1, TOKENS + 1, WIDTH)
    module = nn.ModuleList([layer, half])
    assert fused(cut, leaf, module=module) == ["layer_norm", "linear"]
    assert fused(shortened, leaf, module=module) == ["layer_norm", "feed_forward", "add"]
    assert fused(fed, leaf, module=module) == ["layer_norm", "linear"]


@pytest.mark.usefixtures("_plain")
def test_a_result_in_between_that_is_read_elsewhere_is_computed_once():
    layer = Layer()

    def run(x):
        hidden = F.gelu(layer.up(layer.norms[1](x)))
        return x + layer.down(hidden), hidden

    assert fused(run, numbers(1, TOKENS, WIDTH), module=layer) == ["norm_product", "gelu", "linear", "add"]


@pytest.mark.usefixtures("_plain")
def test_what_a_trial_finds_slower_stays(monkeypatch):
    monkeypatch.setattr(fuse, "_is_fast_enough", lambda kind, *_: kind == "feed_forward")
    layer = Layer()
    found = fused(lambda x: layer.feed(x + layer.attend(x)), numbers(1, TOKENS, WIDTH), module=layer)
    assert found.count("feed_forward") == 1
    assert "self_attention" not in found


def test_draws_come_first_and_in_order():
    def run(x):
        y = torch.randn(2) + x
        first = torch.sin(y * torch.rand(2))
        return first + torch.randn_like(first) * torch.rand(2)

    program = taped(run, numbers(2))
    drawn = draw_first(program)
    assert names(drawn)[:2] == names(program)[:1] + ["rand"]
    assert [i.outputs for i in drawn.instructions if i.draws] == [i.outputs for i in program.instructions if i.draws]
    found = []
    for each in (program, drawn):
        torch.manual_seed(0)
        found.append(interpret(each, (numbers(2),))[0])
    assert torch.equal(*found)


def test_without_a_compiler_the_program_stays(monkeypatch):
    monkeypatch.setattr(fuse, "kernels", lambda: Kernels(missing="no compiler"))
    layer = Layer()
    program = taped(lambda x: layer.feed(x), numbers(1, TOKENS, WIDTH), constants=tuple(layer.parameters()))
    assert names(drop_dead_code(fuse_sublayers(program))) == names(program)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_trial_times_the_operator_against_what_it_replaces(monkeypatch):
    asked = []

    def shortest(calls, copies):
        for call in calls:
            call(copies - 1)
        asked.append(len(calls))
        return [1.02, 1.0]

    monkeypatch.setattr(fuse, "shortest", shortest)
    trial = fuse._is_fast_enough.__wrapped__
    both, one = (WIDTH,), (WIDTH, WIDTH)
    norm = ((TOKENS, WIDTH), both, both, 1e-5)
    assert trial("norm_product", (*norm, one, both), 1)
    assert trial("cross_attention", (*norm, (6, WIDTH), (6,), (6, WIDTH), both, 3, both, False), 1)
    monkeypatch.setattr(fuse, "shortest", lambda *_: [1.04, 1.0])
    assert not trial("norm_product", (*norm, one, both), 1)
    assert asked == [2, 2]


@pytest.mark.parametrize("num_terms", [2, 3, 4, 5, 8])
def test_sums_are_added_up_four_at_a_time(monkeypatch, num_terms):
    monkeypatch.setattr(addup, "kernels", lambda: Kernels(add_four=lambda a, b, c, d: a + b + c + d))
    leaves = [numbers(TOKENS, WIDTH, seed=seed) for seed in range(num_terms)]

    def run(*parts):
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    program = taped(run, *leaves)
    result = drop_dead_code(addup.add_up(program))
    assert len(result.instructions) == -(-(num_terms - 1) // 3)
    torch.testing.assert_close(interpret(result, tuple(leaves))[0], run(*leaves))


def test_a_partial_sum_that_is_read_elsewhere_is_not_made_again(monkeypatch):
    monkeypatch.setattr(addup, "kernels", lambda: Kernels(add_four=lambda a, b, c, d: a + b + c + d))
    leaves = [numbers(TOKENS, WIDTH, seed=seed) for seed in range(3)]

    def run(a, b, c):
        partial = a + b
        return partial, partial + c

    program = taped(run, *leaves)
    assert names(drop_dead_code(addup.add_up(program))) == ["add", "add"]
