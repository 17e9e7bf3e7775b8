import copy

import pytest
import torch
from torch import nn

from utils.training.ranger import Ranger


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 4 * 4, 5))


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.rand(4, 2, 6, 6)) ** 2).mean().backward()
        optimizer.step()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize("steps_before", [1, 5, 6, 10])
def test_state_dict_resumes_exactly(steps_before):
    model = network()
    optimizer = Ranger(model.parameters(), lr=0.01)
    train(model, optimizer, steps_before)
    twin = copy.deepcopy(model)
    resumed = Ranger(twin.parameters(), lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, opt in ((model, optimizer), (twin, resumed)):
        torch.manual_seed(1)
        train(net, opt, 8)
    assert torch.equal(weights(model), weights(twin))


@pytest.mark.parametrize(
    ("options", "centred"),
    [({}, {"conv", "linear"}), ({"gc_conv_only": True}, {"conv"}), ({"use_gc": False}, set())],
)
def test_which_gradients_are_centralised(options, centred):
    model = network()
    optimizer = Ranger(model.parameters(), **options)
    train(model, optimizer, 1)
    for name, layer in (("conv", model[0]), ("linear", model[2])):
        means = layer.weight.grad.flatten(1).mean(dim=1).abs()
        assert (means.max() < 1e-7) == (name in centred), name
    assert model[2].bias.grad.abs().max() > 0


def test_groups_have_their_own_options():
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": [model[2].weight], "k": 2, "alpha": 1.0}]
    optimizer = Ranger(groups, lr=0.1, k=3)
    optimizer.add_param_group({"params": [model[2].bias]})
    assert [group["k"] for group in optimizer.param_groups] == [3, 2, 3]
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 3)
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[2].weight, before["2.weight"])


def test_lookahead_pulls_back_to_the_slow_weights():
    start = torch.tensor([1.0, 2.0])
    fast, slow = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [Ranger([fast], lr=0.1, k=1000), Ranger([slow], lr=0.1, k=4, alpha=0.25)]
    for _ in range(4):
        for parameter, optimizer in zip((fast, slow), optimizers, strict=True):
            parameter.grad = torch.tensor([1.0, -1.0])
            optimizer.step()
    assert torch.allclose(slow - start, 0.25 * (fast - start))


def test_closure():
    parameter = nn.Parameter(torch.tensor([3.0]))
    optimizer = Ranger([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert parameter.item() < 3


@pytest.mark.parametrize("wrong", [{"k": 0}, {"alpha": 0.0}, {"lr": -1.0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError):
        Ranger([nn.Parameter(torch.zeros(1))], **wrong)
