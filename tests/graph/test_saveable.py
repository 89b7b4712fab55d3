import operator

import pytest
import torch
from torch import fx, nn

from octavo import FormatError
from octavo.capture.export import capture
from octavo.graph import ops
from octavo.graph.recurrent import rounded_lstm
from octavo.graph.saveable import (
    HIGHER_ORDER,
    OWN_OPERATORS,
    PYTHON_OPERATORS,
    find_operator,
    operator_in_files,
    subgraph,
    unsaveable,
)

aten = torch.ops.aten


def test_operators_of_octavo_have_the_names_of_the_first_format():
    assert find_operator("octavo.unrounded.default") is ops.fuse_in_accumulator
    assert set(OWN_OPERATORS.values()) == {*ops.ALL, rounded_lstm}


@pytest.mark.parametrize("name", PYTHON_OPERATORS | OWN_OPERATORS | HIGHER_ORDER)
def test_names_in_files_and_operators_are_each_others_inverse(name):
    target = find_operator(name)
    assert operator_in_files(fx.Graph().call_function(target)) == name


@pytest.mark.parametrize(
    "name",
    [
        *("aten.from_file.default", "aten.empty.memory_format", "aten.new_empty.default"),
        *("aten._print.default", "aten.set_.source_Tensor", "aten.resize_.default"),
        *("aten.add.out", "aten.relu.__globals__", "aten.nothing.default", "aten", ""),
        *("quantized.conv2d.new", "octavo.quantize", "operator.methodcaller", "os.system"),
        *("higher_order.flex_attention", "higher_order.triton_kernel_wrapper_mutation"),
        *("builtins.eval", "builtins.getattr", "math.factorial", "torch.load", "torch.ops"),
    ],
)
def test_all_others_are_refused(name):
    with pytest.raises(FormatError, match="a file cannot hold the operator"):
        find_operator(name)


def test_each_node_that_a_file_cannot_hold_is_named_with_the_reason():
    graph = fx.Graph()
    x = graph.placeholder("x")
    kept = graph.call_function(aten.relu.default, (x,))
    graph.call_function(aten.add_.Tensor, (kept, 1))
    graph.call_function(print, (x,))
    graph.call_function(aten.bernoulli.default, (x,), {"generator": torch.Generator()})
    graph.call_function(aten.sum.dim_IntList, (x, [1, {2}]))
    graph.call_method("relu", (x,))
    graph.call_module("layer.0", (x,))
    graph.output((kept,))
    graph.find_nodes(op="call_method")[0].meta["nn_module_stack"] = {"a": ("stem.act", nn.ReLU)}
    assert unsaveable(graph) == [
        "node 'add__tensor' (add_): a file cannot hold the operator aten.add_.Tensor",
        "node 'print_1' (print): a file cannot hold the operator builtins.print",
        "node 'bernoulli_default' (bernoulli): an argument of type Generator cannot be saved",
        "node 'sum_dim_int_list' (sum): an argument of type set cannot be saved",
        "node 'relu' (relu) in module 'stem.act': a file cannot hold a node of kind 'call_method'",
        "node 'layer_0' (layer.0) in module 'layer.0': a file cannot hold a node of kind "
        "'call_module'",
    ]


@torch.library.custom_op("octavo_test::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halved.register_fake
def _(x):
    return torch.empty_like(x)


class Branching(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda v: v.relu(), lambda v: halved(v), (x,))


def test_graphs_inside_the_graph_are_looked_into():
    module = capture(Branching(), (torch.randn(3, 4),)).module
    (fault,) = unsaveable(module.graph)
    assert "'halved'" in fault and "octavo_test.halved.default" in fault
    graphs = [subgraph(n) for n in module.graph.find_nodes(op="get_attr")]
    assert len(graphs) == 2 and all(isinstance(g, fx.GraphModule) for g in graphs)


def test_nothing_is_said_of_an_ordinary_graph():
    class Net(nn.Sequential):
        def forward(self, x):
            high = x.shape[0] // 2 * 2
            return super().forward(x)[:high], {"rows": [high]}

    module = capture(Net(nn.Conv2d(3, 4, 3), nn.SiLU()), (torch.randn(4, 3, 8, 8),)).module
    assert unsaveable(module.graph) == []
    assert any(n.target is operator.floordiv for n in module.graph.nodes)
