import pytest
import torch
from torch import fx, nn

from octavo.graph.interpreter import Interpreter, observe_values


def traced():
    return fx.symbolic_trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))


def test_a_hook_sees_each_value_and_those_still_alive():
    seen = {}

    def hook(node, value, env):
        seen[node.name] = sorted(n.name for n in env)
        return value

    module, x = traced(), torch.randn(5, 4)
    assert torch.equal(Interpreter(module, hook).run(x), module(x))
    assert seen["_1"] == ["_0"]  # the input was freed after its last use


def test_what_a_hook_returns_is_what_readers_get():
    module, x = traced(), torch.randn(5, 4)
    run = Interpreter(module, lambda n, v, env: v * 0 if n.name == "_1" else v)
    torch.testing.assert_close(run.run(x), module.get_submodule("2").bias.expand(5, 2))


def test_step_by_step_gives_the_same_and_frees_the_same():
    module, x = traced(), torch.randn(5, 4)
    run = Interpreter(module)
    run.start([x])
    for node in module.graph.nodes:
        run.step(node)
        result = run.env[node]
        run.release(node)
    assert torch.equal(result, module(x))
    assert {n.op for n in run.env} == {"output"}


def test_values_are_kept_where_asked():
    module = traced()
    run = Interpreter(module, keep=True)
    run.run(torch.randn(5, 4))
    assert len(run.env) == len(module.graph.nodes)


def test_an_observer_has_no_gradient_and_returns_the_output():
    module, x, names = traced(), torch.randn(5, 4), []
    with torch.enable_grad():
        out = observe_values(module, [x], lambda n, v: names.append(n.name))
    assert not out.requires_grad
    assert names == ["input_1", "_0", "_1", "_2", "output"]


def test_an_error_leaves_the_node_that_raised_it():
    run = Interpreter(traced())
    with pytest.raises(RuntimeError):
        run.run(torch.randn(5, 7))
    assert run.at.name == "_0"
