import pytest
import torch
from torch import fx, nn

import octavo
from networks import NETWORKS, calls, make
from octavo import Config
from octavo.tune import rounding
from octavo.tune.biases import correct_biases
from octavo.tune.layerwise import tune_layers
from octavo.tune.rounding import round_weights
from stages import converted as observed


def correlated(samples, channels, *sides):
    """Inputs that vary together, as those of real layers do."""
    few = torch.randn(samples, 3, *sides)
    if sides:  # neighbours are alike, as pixels are
        few = sum(
            few.roll((i, j)[: len(sides)], tuple(range(2, 2 + len(sides))))
            for i in (0, 1, 2)
            for j in (0, 1, 2)
        )
    mixed = torch.einsum("oi,ni...->no...", torch.randn(channels, 3), few)
    return mixed + 0.2 * torch.randn(samples, channels, *sides) + 1


LAYERS = {
    "linear": (lambda: nn.Linear(16, 8), ()),
    "conv1d": (lambda: nn.Conv1d(16, 8, 3, 2, 2, dilation=2), (20,)),
    "conv2d": (lambda: nn.Conv2d(16, 8, 3, padding=1), (8, 8)),
    "asymmetric": (lambda: nn.Conv2d(16, 8, (1, 5), (2, 1), (0, 2)), (8, 8)),
    "grouped": (lambda: nn.Conv2d(16, 8, 3, groups=4), (8, 8)),
    "depthwise": (lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16), (8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_comes_closer_than_with_the_nearest_integers(name):
    make_layer, sides = LAYERS[name]
    layer = make_layer()
    x = correlated(1024, 16, *sides)
    emission = observed(layer, [x])

    def error(graph):
        """Of the weights alone, about the mean of each channel."""
        ((q, scale),) = [
            (graph.get_buffer(n), graph.get_buffer(n.removesuffix("int8") + "scale"))
            for n, _ in graph.named_buffers()
            if n.endswith("weight_int8")
        ]
        rounded = make_layer()
        rounded.weight.data = q * scale.view(-1, *[1] * (q.dim() - 1))
        rounded.bias.data = layer.bias
        difference = (rounded(x) - layer(x)).transpose(0, 1).flatten(1)
        return float((difference - difference.mean(1, keepdim=True)).square().sum())

    nearest = error(emission.module)
    graph = tune_layers(emission, [[x[:512]], [x[512:]]], round_weights).module
    assert error(graph) < 0.8 * nearest
    assert all(b.dtype == torch.int8 for n, b in graph.named_buffers() if n.endswith("int8"))


@pytest.mark.parametrize("name", LAYERS)
def test_the_covariance_of_inputs_gives_the_variance_of_outputs(name):
    """Of W x it is W C W', per channel; all positions are looked at, so it is exact."""
    make_layer, sides = LAYERS[name]
    layer, x = make_layer(), correlated(8, 16, *sides)
    graph = observed(layer, [x]).sites.graph.graph
    (operator,) = (n for n in graph.nodes if n.target in rounding.LAYERS)
    weight = layer.weight.detach()
    covariance = rounding._covariance(operator, weight, list(x.split(3))).float()
    rows = weight.reshape(len(covariance), -1, covariance.shape[1])
    found = (rows @ covariance * rows).sum(2).flatten()
    with torch.no_grad():
        expected = layer(x).transpose(0, 1).flatten(1).var(1, correction=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_few_samples_leave_a_layer_of_many_inputs_as_it_is():
    layer = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 8))
    x = torch.randn(512, 4)
    emission = observed(layer, [x])
    before = {n: b.clone() for n, b in emission.module.named_buffers()}
    graph = tune_layers(emission, [[x]], round_weights).module
    changed = {n for n, b in graph.named_buffers() if not torch.equal(b, before[n])}
    assert changed and all(n.split("_")[0].endswith("0.weight") for n in changed), changed


@pytest.mark.parametrize("shape", [(3, 30, 30), (4,)])
def test_a_layer_called_without_a_batch_stays_nearest(shape):
    layer = nn.Conv2d(3, 2, 3) if len(shape) == 3 else nn.Linear(4, 2)
    x = [torch.randn(shape) for _ in range(100)]
    emission = observed(layer, x)
    before = emission.module.get_buffer("weight_int8").clone()
    graph = tune_layers(emission, [[b] for b in x], round_weights).module
    assert torch.equal(graph.get_buffer("weight_int8"), before)


def test_a_weight_alone_is_the_nearest_integer_of_the_scale():
    """With one input there is nothing to spread the error over."""
    layer = nn.Linear(1, 6)
    emission = observed(layer, [torch.randn(64, 1)])
    graph = tune_layers(emission, [[torch.randn(64, 1)]], round_weights).module
    q, scale = (graph.get_buffer(f"weight_{kind}") for kind in ("int8", "scale"))
    torch.testing.assert_close(q * scale[:, None], layer.weight.detach(), rtol=1 / 127, atol=0)


def test_two_inputs_that_are_one_share_their_errors():
    """x and x again: only the sum of the two weights counts, to half a step."""
    layer = nn.Linear(3, 100, bias=False)
    layer.weight.data[:, 2] = 1.0  # has the whole range
    x = torch.randn(256, 2)[:, [0, 0, 1]]
    graph = tune_layers(observed(layer, [x]), [[x]], round_weights).module
    q, scale = (graph.get_buffer(f"weight_{kind}") for kind in ("int8", "scale"))
    error = ((q * scale[:, None])[:, :2].sum(1) - layer.weight[:, :2].sum(1)).abs() / scale
    nearest = (layer.weight / scale[:, None]).round() * scale[:, None] - layer.weight
    assert error.max() < 0.55
    assert (nearest[:, :2].sum(1).abs() / scale).max() > 0.8  # what it would be


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_round_in_every_shape_and_stay_the_same_in_both_engines(name):
    net, inputs = make(name)
    q = octavo.quantize(net, calls(inputs, 8), config=Config(round_weights=True, min_sqnr=0))
    args, kwargs = inputs(3)
    assert octavo.sqnr(q(*args, **kwargs), q.compile()(*args, **kwargs)) > 30
    assert octavo.sqnr(net(*args, **kwargs), q(*args, **kwargs)) > 15


def test_out_of_time_all_stay_nearest():
    net, inputs = make("residual")
    batches = [args[0] for args in calls(inputs)]
    emission = observed(net, batches, rounding_seconds=0.0)
    before = {n: b.clone() for n, b in emission.module.named_buffers()}
    graph = tune_layers(emission, [[b] for b in batches], round_weights).module
    assert all(torch.equal(b, before[n]) for n, b in graph.named_buffers())


def test_it_works_on_with_bias_correction():
    net, inputs = make("residual")
    batches = [args[0] for args in calls(inputs, 16)]
    emission = observed(net, batches)
    x = torch.cat([args[0] for args in calls(inputs, 16)])
    plain = octavo.sqnr(net(x), emission.module(x)[0])
    graph = tune_layers(emission, [[b] for b in batches], round_weights, correct_biases).module
    assert octavo.sqnr(net(x), graph(x)[0]) > plain + 1


def test_a_graph_not_emitted_is_refused():
    with pytest.raises(AttributeError):
        tune_layers(fx.symbolic_trace(nn.Linear(2, 2)), [], round_weights)
