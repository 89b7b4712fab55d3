import copy
import re

import pytest
import torch
from torch import nn

from networks import NETWORKS, make
from octavo import CaptureError
from octavo.capture.export import capture
from octavo.graph.names import module_path
from stages import rewritten


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_is_the_model_at_any_batch_size(name):
    net, inputs = make(name)
    args, kwargs = inputs(1)
    graph, signature = capture(net, args, kwargs)
    for batch in (1, 2, 5):
        args, kwargs = inputs(batch)
        got = signature.unflatten(graph(*signature.flatten(args, kwargs)))
        torch.testing.assert_close(got, net(*args, **kwargs))


def test_a_model_in_training_mode_is_captured_as_eval_and_left_in_training():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    net[1].eval()
    net[2].running_mean += 1
    before = copy.deepcopy(net.state_dict())
    graph, _ = capture(net, (torch.rand(3, 4),))
    x = torch.rand(5, 4)
    torch.testing.assert_close(graph(x)[0], copy.deepcopy(net).eval()(x))
    assert [m.training for m in net] == [True, False, True]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_writing_through_a_view_and_into_a_buffer_is_kept():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x):
            y = x * 2
            y[:, 0] += 1
            return y + self.count

    net, x = Writes(), torch.rand(2, 3)
    graph, _ = capture(net, (x,))
    torch.testing.assert_close(graph(x)[0], net(x))


def last_view(y):
    return y.flatten(1).add_(1)


def base_read_later(y):
    y.flatten(1).add_(1)
    return y


def view_read_later(y):
    view = y.flatten(1)
    y.add_(1)
    return view


def view_made_later(y):
    y.add_(1)
    return y.flatten(1)


def view_of_written_view(y):
    view = y.flatten(1)
    written = y.view(-1).add_(1)
    return written.relu_() + view.reshape(-1)


def other_half_read_later(y):
    left, right = y.split([1, 2], 1)
    left.add_(1)
    return right.sum(1, keepdim=True) * y


@pytest.mark.parametrize(
    "write",
    [
        last_view,
        base_read_later,
        view_read_later,
        view_made_later,
        view_of_written_view,
        other_half_read_later,
    ],
)
def test_writes_in_place_are_seen_by_every_later_reader(write):
    class Net(nn.Module):
        def forward(self, x):
            return write(x * 2)

    x = torch.randn(4, 3, 2)
    graph, _ = capture(Net(), (x,))
    torch.testing.assert_close(rewritten(graph)(x)[0], Net()(x))


def test_module_paths_are_the_users():
    net, inputs = make("mobile")
    graph, _ = capture(net, *inputs(2))
    paths = {module_path(n) for n in graph.graph.nodes if n.op == "call_function"}
    assert {"expand.0", "depthwise.1", "squeeze", "head.1"} <= paths


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def test_a_model_that_cannot_be_exported_names_the_line():
    with pytest.raises(CaptureError, match=r"test_export.py:\d+: if x.sum\(\) > 0"):
        capture(Branches(), (torch.rand(2, 3),))


def test_a_model_that_leaves_pytorch_names_the_line():
    class Numpy(nn.Module):
        def forward(self, x):
            return torch.tensor(x.numpy().sum())

    with pytest.raises(CaptureError, match=r"test_export.py:\d+: return torch.tensor"):
        capture(Numpy(), (torch.rand(2, 3),))


def test_weights_that_are_nan_are_refused():
    net = nn.Linear(3, 3)
    net.weight[0, 0] = float("nan")
    with pytest.raises(CaptureError, match="'weight' holds NaN"):
        capture(net, (torch.rand(2, 3),))


@pytest.mark.parametrize("name", ["class", 'a"b', "a\\"])
def test_a_name_that_python_cannot_spell_is_refused_with_it(name):
    net = nn.Sequential()
    net.add_module(name, nn.Linear(4, 2))
    with pytest.raises(CaptureError, match=re.escape(f"named {[name]}")):
        capture(net, (torch.rand(3, 4),))
