import pytest
import torch.nn.functional as F
from torch import nn

from networks import Bottlenecks, images
from octavo.tune.channels import find_groups
from stages import matched as captured


def test_groups_are_closed_by_layers_that_take_the_scale_in():
    graph = captured(Bottlenecks(), images(4)).graph.graph
    names = [sorted(n.name for n in (*g.producers, *g.consumers)) for g in find_groups(graph)]
    stream = ["conv2d", "conv2d_1", "conv2d_3", "conv2d_4", "conv2d_6", "linear"]
    assert stream in names
    assert ["conv2d_1", "conv2d_2"] in names  # expand -> depthwise
    assert ["conv2d_2", "conv2d_3"] in names  # depthwise -> project
    assert len(names) == 5


def test_no_group_where_something_else_reads_a_value():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = F.relu(self.a(x))
            return self.b(y), y.amax()

    assert find_groups(captured(Leaky(), images(2)).graph.graph) == []


def test_no_group_with_a_layer_that_is_called_twice():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.b(F.relu(self.a(F.relu(self.a(x)))))

    assert find_groups(captured(Shared(), images(2, channels=8)).graph.graph) == []


def test_only_graphs_have_groups():
    with pytest.raises(AttributeError):
        find_groups(nn.ReLU())
