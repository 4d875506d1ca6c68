from unittest import mock

import pytest
import torch

from policies.diffusion_transformer.transformer import TransformerForDiffusion
from tests.policies.models import reference_denoiser

SIZES = {"input_dim": 7, "output_dim": 7, "horizon": 11, "n_obs_steps": 2, "cond_dim": 5}


def denoiser(**options):
    torch.manual_seed(0)
    return TransformerForDiffusion(**SIZES, n_layer=2, n_head=2, n_emb=26, **options).eval()


def inputs(batch_size=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch_size, 11, 7, generator=generator), torch.randn(batch_size, 2, 5, generator=generator)


def test_parameters_are_named_and_shaped_as_in_diffusion_policy():
    attention = {"in_proj_weight": (78, 26), "in_proj_bias": (78,), "out_proj.weight": (26, 26), "out_proj.bias": (26,)}
    layer = {f"{kind}.{name}": shape for kind in ("self_attn", "multihead_attn") for name, shape in attention.items()}
    layer |= {f"norm{i}.{name}": (26,) for i in (1, 2, 3) for name in ("weight", "bias")}
    layer |= {"linear1.weight": (104, 26), "linear1.bias": (104,), "linear2.weight": (26, 104), "linear2.bias": (26,)}
    expected = {
        "pos_emb": (1, 11, 26),
        "cond_pos_emb": (1, 3, 26),
        "_dummy_variable": (0,),
        "mask": (11, 11),
        "memory_mask": (11, 3),
        "input_emb.weight": (26, 7),
        "input_emb.bias": (26,),
        "cond_obs_emb.weight": (26, 5),
        "cond_obs_emb.bias": (26,),
        "encoder.0.weight": (104, 26),
        "encoder.0.bias": (104,),
        "encoder.2.weight": (26, 104),
        "encoder.2.bias": (26,),
        "ln_f.weight": (26,),
        "ln_f.bias": (26,),
        "head.weight": (7, 26),
        "head.bias": (7,),
    } | {f"decoder.layers.{i}.{name}": shape for i in (0, 1) for name, shape in layer.items()}
    assert {name: tuple(value.shape) for name, value in denoiser().state_dict().items()} == expected


def test_condition_layers_replace_the_mlp_by_an_encoder():
    names = {name for name in denoiser(n_cond_layers=1).state_dict() if name.startswith("encoder.")}
    assert "encoder.layers.0.self_attn.in_proj_weight" in names
    assert "encoder.0.weight" not in names


def test_without_causal_attention_there_is_no_mask():
    assert not {"mask", "memory_mask"} & set(denoiser(causal_attn=False).state_dict())


@pytest.mark.parametrize("norm_first", [True, False])
def test_prediction_equals_the_network_written_out(norm_first):
    network, (sample, cond) = denoiser(norm_first=norm_first), inputs()
    with torch.no_grad():
        got = network(sample, torch.tensor(42), cond)
        want = reference_denoiser(network.state_dict(), sample, 42, cond, 2, norm_first)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_a_row_has_its_own_timestep():
    network, (sample, cond) = denoiser(), inputs()
    with torch.no_grad():
        together = network(sample, torch.tensor([3, 50, 99]), cond)
        alone = network(sample[1:2], torch.tensor([50]), cond[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


def test_an_action_depends_on_no_later_action_and_no_later_observation():
    network, (sample, cond) = denoiser(), inputs()
    changed_sample, changed_cond = sample.clone(), cond.clone()
    changed_sample[:, 6:] += 1.0
    changed_cond[:, 1] += 1.0
    with torch.no_grad():
        before = network(sample, torch.tensor(7), cond)
        assert torch.equal(network(changed_sample, torch.tensor(7), cond)[:, :6], before[:, :6])
        assert torch.equal(network(sample, torch.tensor(7), changed_cond)[:, :1], before[:, :1])


def test_an_evaluation_reads_no_tensor_value_on_the_host():
    network = denoiser().to("meta")  # where tensors have no values, and asking for one raises
    sample, cond = (tensor.to("meta") for tensor in inputs())
    assert network(sample, torch.tensor(7, device="meta"), cond).shape == (3, 11, 7)


@pytest.mark.parametrize("branch", ["_sa_block", "_mha_block", "_ff_block"])
def test_every_branch_of_every_layer_runs_once_per_evaluation(branch):
    network, (sample, cond) = denoiser(), inputs()
    for layer in network.decoder.layers:
        setattr(layer, branch, mock.Mock(wraps=getattr(layer, branch)))
    with torch.no_grad():
        network(sample, torch.tensor(7), cond)
    assert [getattr(layer, branch).call_count for layer in network.decoder.layers] == [1, 1]


def test_only_weight_matrices_decay():
    network = denoiser()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decaying, constant = ([names[id(p)] for p in group["params"]] for group in network.optim_groups())
    assert sorted(decaying + constant) == sorted(names.values())
    assert {"pos_emb", "cond_pos_emb", "ln_f.weight", "head.bias", "_dummy_variable"} <= set(constant)
    assert all(name.endswith("weight") and "norm" not in name and "ln_f" not in name for name in decaying)
