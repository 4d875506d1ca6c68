import torch
from torch import nn

from policies.master_weights import MasterWeights


def one_weight():
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    return module


def test_working_weights_are_the_master_rounded():
    module = nn.Linear(3, 5)
    originals = {name: p.detach().clone() for name, p in module.named_parameters()}
    master = MasterWeights(module)
    master.round_to_working()
    for name, working in module.named_parameters():
        assert working.dtype == torch.bfloat16
        assert torch.equal(master.parameters[name], originals[name])
        assert torch.equal(working, originals[name].bfloat16())


def test_updates_too_small_for_bfloat16_add_up_in_the_master():
    module = one_weight()
    master = MasterWeights(module)
    optimizer = torch.optim.SGD(master.groups([{"params": list(module.parameters())}]), lr=2.0**-10)
    for _ in range(8):  # 8 updates of 2^-10; the neighbours of 1 in bfloat16 are 2^-8 below and 2^-7 above
        (-module(torch.ones(1, 1, dtype=torch.bfloat16))).sum().backward()
        master.take_gradients()
        optimizer.step()
        master.round_to_working()
    assert master.parameters["weight"].item() == 1 + 2.0**-7
    assert module.weight.item() == 1 + 2.0**-7


def test_gradients_move_to_the_master():
    module = one_weight()
    master = MasterWeights(module)
    (3 * module(torch.ones(1, 1, dtype=torch.bfloat16))).sum().backward()
    master.take_gradients()
    assert master.parameters["weight"].grad.item() == 3.0
    assert module.weight.grad is None
