import pytest
import torch
from torch import nn

from octavo.graph.tensors import set_buffer
from octavo.tune.layerwise import LayerwiseRunner, tune_layers
from stages import converted, passed

aten = torch.ops.aten


def net():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def test_all_inputs_pass_an_operator_before_the_next_runs():
    module, batches = passed(net(), torch.rand(3, 4)), [torch.rand(n, 4) for n in (2, 5)]
    runner = LayerwiseRunner(module, [[x] for x in batches])
    for node in runner:
        if node.target is aten.relu.default:
            assert [v.shape for v in runner.values(node)] == [(2, 3), (5, 3)]
        if node.op == "output":
            outputs = [value[0] for value in runner.values(node)]
    for x, out in zip(batches, outputs, strict=True):
        torch.testing.assert_close(out, module(x)[0])


def test_what_is_replaced_is_read_by_what_follows():
    model = net()
    module, x = passed(model, torch.rand(3, 4)), torch.rand(5, 4)
    runner = LayerwiseRunner(module, [[x]])
    for node in runner:
        if node.target is aten.relu.default:
            runner.replace(node, [torch.zeros(5, 3)])
        if node.op == "output":
            (out,) = runner.values(node)[0]
    torch.testing.assert_close(out, model[2].bias.expand(5, 2))


def test_the_emission_that_is_tuned_stays_as_it_is():
    emission = converted(net(), [torch.rand(64, 4)])
    before = {n: b.clone() for n, b in emission.module.named_buffers()}

    def zero(tuned, runner):
        def hook(node):
            if node.target is aten.linear.default:
                weight = node.args[1].args[0].target
                set_buffer(
                    runner.module, weight, torch.zeros_like(runner.module.get_buffer(weight))
                )

        return hook

    tuned = tune_layers(emission, [[torch.rand(8, 4)]], zero)
    assert tuned is not emission
    assert all(torch.equal(before[n], b) for n, b in emission.module.named_buffers())
    weights = [b for n, b in tuned.module.named_buffers() if n.endswith("int8")]
    assert weights and not any(w.any() for w in weights)


def test_inputs_that_the_graph_does_not_take_are_refused():
    runner = LayerwiseRunner(passed(net(), torch.rand(3, 4)), [[torch.rand(3, 7)]])
    with pytest.raises(RuntimeError):
        list(runner)
