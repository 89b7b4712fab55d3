import itertools

import pytest
import torch
from torch import nn

import octavo
from octavo import CaptureError, DataError
from octavo.capture.export import capture


class Layer(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.linear, self.body = nn.Linear(8, 8), forward

    def forward(self, x):
        return self.body(self.linear, x)


def over_batch(linear, x):
    return torch.stack([linear(row) for row in x])


def over_time(linear, x):
    state = torch.zeros(x.shape[0], 8)
    for t in range(x.shape[1]):
        state = torch.tanh(linear(x[:, t]) + state)
    return state


class Cached(nn.Module):
    """Makes its grid again when the shape changes, as detection heads do."""

    def __init__(self):
        super().__init__()
        self.linear, self.shape = nn.Linear(8, 8), None

    def forward(self, x):
        y = self.linear(x)
        if self.shape != y.shape:
            self.shape, self.grid = y.shape, torch.arange(float(y.shape[1]))[:, None]
        return (y + self.grid).reshape(y.shape)


@pytest.mark.parametrize(
    "forward, shape, dimension",
    [(over_batch, (4, 8), 0), (over_batch, (1, 8), 0)],
)
def test_a_size_at_which_the_graph_is_not_the_model_is_fixed(forward, shape, dimension):
    net, x = Layer(forward).eval(), torch.rand(shape)
    graph, signature = capture(net, (x,))
    assert signature.inputs[0][1][dimension] == shape[dimension]
    torch.testing.assert_close(graph(x)[0], net(x))
    assert [f[:2] for f in signature.fixed] == [(0, dimension)]
    assert "the graph captured from the model differs from it" in signature.fixed[0][2]
    other = [n + 1 if d == dimension else n for d, n in enumerate(shape)]
    with pytest.raises(CaptureError, match=f"Dimension {dimension} is fixed at {shape[dimension]}"):
        signature.flatten((torch.rand(other),), {})


def test_calibration_data_of_another_size_is_refused_with_the_reason():
    net, data = Layer(over_time).eval(), [torch.rand(4, 5, 8), torch.rand(4, 7, 8)]
    with pytest.raises(DataError, match=r"(?s)batches differ.*fixed at 5.*loop over this size"):
        octavo.quantize(net, data, config="fast")
    q = octavo.quantize(net, [torch.rand(4, 5, 8)] * 2, config="fast")
    x = torch.rand(3, 5, 8)
    assert octavo.sqnr(net(x), q(x)) > 25
    assert "dimension" not in str(q.report())  # a size that all calls share needs no words


@pytest.mark.parametrize("warm", [False, True])
def test_a_cache_by_shape(warm):
    net, x = Cached().eval(), torch.rand(4, 5, 8)
    if warm:
        net(x)
    graph, signature = capture(net, (x,))
    assert net.shape == (x.shape if warm else None)
    for batch in (4, 2, 7):
        x = torch.rand(batch, 5, 8)
        if signature.inputs[0][1][0] in (None, batch):
            torch.testing.assert_close(graph(x)[0], Cached.forward(fresh(net), x))
        else:
            with pytest.raises(CaptureError, match="is fixed at 4"):
                signature.flatten((x,), {})


def fresh(net):
    other = Cached().eval()
    other.load_state_dict(net.state_dict())
    return other


def test_a_batch_of_one_that_the_model_treats_differently_is_refused():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, x):
            return self.linear(x) if x.shape[0] > 1 else self.linear(x)[0]

    net = Squeezed().eval()
    graph, signature = capture(net, (torch.rand(4, 8),))
    assert signature.inputs[0][1] == (None, 8)
    x = torch.rand(2, 8)
    torch.testing.assert_close(graph(x)[0], net(x))
    with pytest.raises(CaptureError, match="may not be 1"):
        signature.flatten((torch.rand(1, 8),), {})


def test_a_batch_of_one_in_a_second_input_is_tried_too():
    class Squeezed(nn.Module):
        def forward(self, x, y):
            y = y.mean(-1).squeeze()
            return y.reshape(y.shape[0], -1)

    _, signature = capture(Squeezed().eval(), (torch.rand(4, 8), torch.rand(4, 3, 5)))
    assert [place[:2] for place in signature.fixed] == [(1, 0)]
    with pytest.raises(CaptureError, match="may not be 1"):
        signature.flatten((torch.rand(1, 8), torch.rand(1, 3, 5)), {})


class Pooled(nn.Module):
    """Pools over all of the height of a larger image, which fixes the kernel at that height."""

    def forward(self, x):
        y = nn.functional.interpolate(x, scale_factor=1.5, mode="bilinear")
        return nn.functional.max_pool2d(y, (y.shape[2], 1)), y * 2


def test_pooling_over_the_whole_of_a_dimension_fixes_its_size():
    for seed in range(5):
        torch.manual_seed(seed)
        data = [torch.randn(1, 1, 8, 2), torch.randn(2, 1, 12, 2)]
        _, signature = capture(Pooled().eval(), (data[0],), others=[((data[1],), {})])
        assert signature.inputs == (("float32", (None, 1, 8, 2)),)
        assert "forward depends on trunc(1.5*input0[2]) == 12" in signature.fixed[0]


def test_a_kernel_that_no_condition_tells_of_shows_in_the_numbers(monkeypatch):
    """The largest of random numbers is most often among the first items, which the graph reads."""

    class OfLarge(Pooled):
        def forward(self, x):
            if x.shape[2] < 8:  # else a smaller image shows it
                raise ValueError
            return super().forward(x)

    monkeypatch.setattr("octavo.capture.comparison.conditions", lambda graph: [])
    for seed in range(5):
        torch.manual_seed(seed)
        data = [torch.randn(1, 1, 8, 2), torch.randn(2, 1, 11, 2)]
        _, signature = capture(OfLarge().eval(), (data[0],), others=[((data[1],), {})])
        ((*place, reason),) = signature.fixed
        assert place == [0, 2] and "at 11 the graph captured from the model differs" in reason


@pytest.mark.parametrize(
    "after", [nn.Dropout(0.5), nn.GRU(8, 8, dropout=0.5, num_layers=2), nn.RReLU()]
)
def test_what_is_random_in_training_only_is_compared(after):
    """PyTorch marks these operators as random; int() fixes what is computed from the length."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.after = after

        def forward(self, x):
            return self.after(x * int(x.shape[1] * 0.5))

    data = [torch.randn(2, n, 8) for n in (6, 9)]
    _, signature = capture(Scaled().eval(), (data[0],), None, [((data[1],), {})])
    assert signature.branches == ("trunc(0.5*input0[1]) == 3",)


def test_recurrent_layers_of_one_input_follow_its_own_sizes():
    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(8, 16)

        def forward(self, x, y):
            return self.rnn(y)[0]

    net = Second().eval()
    data = [(torch.randn(n, m, 8), torch.randn(n, m, 8)) for n, m in ((5, 11), (3, 14))]
    fast = octavo.quantize(net, data).compile()
    assert fast.in_pytorch == ()
    for x, y in [*data, (torch.randn(2, 4, 8), torch.randn(7, 6, 8))]:
        assert octavo.sqnr(net(x, y), fast(x, y)) > 40


def test_a_graph_that_is_never_the_model_names_the_first_operator():
    calls = itertools.count(1)

    class Chance(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.b(self.a(x) * next(calls))

    with pytest.raises(CaptureError, match=r"differs from the model.*'b'"):
        capture(Chance().eval(), (torch.rand(4, 8),))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_have_a_free_length(kind, batch_first):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(8, 16, batch_first=batch_first)

        def forward(self, x):
            return self.rnn(x)[0]

    net = Net().eval()
    data = [torch.randn(4, 8, 8), torch.randn(4, 10, 8)]
    if not batch_first:
        data = [x.transpose(0, 1) for x in data]
    graph, signature = capture(net, (data[0],), others=[((data[1],), {})])
    x = torch.randn(3, 12, 8) if batch_first else torch.randn(12, 4, 8)
    torch.testing.assert_close(graph(*signature.flatten((x,), {}))[0], net(x))


def test_independent_samples_are_found_by_running_some_alone():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images):
            return self.conv(torch.stack(images)).mean((2, 3))

    def batch_of(net, *args):
        return capture(net.eval(), args)[1].batch

    assert batch_of(nn.Linear(8, 4), torch.rand(6, 8)) == (0,)
    assert batch_of(Images(), [*torch.rand(4, 3, 8, 8)]) == ()
    assert batch_of(nn.Conv2d(3, 4, 3), torch.rand(3, 8, 8)) == ()  # an image, and no batch
    assert batch_of(Layer(lambda f, x: f(x) - f(x).mean(0)), torch.rand(6, 8)) == ()
    assert batch_of(Layer(lambda f, x: f(x).sum()), torch.rand(6, 8)) == ()
    assert batch_of(nn.LSTM(8, 4), torch.rand(6, 3, 8)) == ()  # one size of batch was seen
    both = Layer(lambda f, pair: (f(pair[0]), pair[1] * 2))
    assert batch_of(both, (torch.rand(6, 8), torch.rand(6))) in ((0, 0), (0, None))


def test_samples_may_be_along_the_second_dimension_of_inputs_or_outputs():
    net = nn.LSTM(8, 4).eval()
    signature = capture(net, (torch.rand(6, 3, 8),), {}, [((torch.rand(7, 5, 8),), {})])[1]
    assert signature.batch == (1,)
    time_first = Layer(lambda f, x: f(x).transpose(0, 1)).eval()  # outputs alone, as for CTC
    assert capture(time_first, (torch.rand(6, 3, 8),))[1].batch == (0,)


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.linear = nn.EmbeddingBag(50, 16), nn.Linear(16, 4)

    def forward(self, ids, offsets):
        return self.linear(self.bag(ids, offsets))


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x, edges):
        return self.linear(torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]))


@pytest.mark.filterwarnings("ignore::octavo.PartitionWarning")
@pytest.mark.parametrize("config", ["fast", "balanced"])
@pytest.mark.parametrize(
    "net, call",
    [
        (Bag, lambda: (torch.randint(50, (20,)), torch.tensor([0, 4, 9, 15]))),
        (Graph, lambda: (torch.randn(30, 8), torch.randint(30, (2, 90)))),
    ],
)
def test_what_is_no_batch_is_never_cut(net, call, config):
    net, data = net().eval(), [call() for _ in range(8)]
    q = octavo.quantize(net, data, config=config)
    assert q.signature.batch == ()
    for engine in ("reference", "openvino", "torch_int8"):
        assert octavo.sqnr(net(*data[0]), q.compile(engine)(*data[0])) > 25


def test_the_second_look_is_kept_for_engines():
    _, signature = capture(nn.Linear(8, 4).eval(), (torch.rand(6, 8) + 2,))
    assert signature.shapes == (((1, 8),), ((3, 8),))
    for (x,) in signature.examples(()):
        assert x.min() >= 2 and x.max() <= 3


def test_states_of_another_batch_are_not_read_beyond_their_end():
    """PyTorch's operators do not check them: that ended the process."""

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.RNN(8, 8), nn.LSTM(8, 16, num_layers=2, batch_first=True)
            self.third = nn.RNN(16, 6)

        def forward(self, x, y):
            return self.third(self.second(self.first(y)[0])[0])[1]

    net = Layers().eval()
    for _ in range(3):
        graph, _ = capture(net, (torch.randn(2, 6, 8), torch.randn(2, 6, 8)))
        x, y = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
        torch.testing.assert_close(graph(x, y)[0], net(x, y))


class Kept(nn.Module):
    """New values after kept ones, under a mask of both, in as many groups as the first call."""

    def forward(self, new, mask, kept):
        return torch.cat([kept, new], 2) * mask[:, None, :, None]


def test_a_size_that_is_the_sum_of_two_others_as_the_calls_show():
    def call(batch, new, kept):
        sizes = (batch, 4, new, 8), (batch, new + kept), (batch, 4, kept, 8)
        return tuple(map(torch.rand, sizes))

    first, second = call(2, 4, 6), call(3, 2, 9)  # 4 new ones, as there are groups, by chance
    graph, signature = capture(Kept(), first, {}, [(second, {})])
    assert [shape for _, shape in signature.inputs] == [
        (None, 4, None, 8),
        (None, None),
        (None, 4, None, 8),
    ]
    for sizes in ((1, 1, 12), (5, 7, 1)):
        inputs = call(*sizes)
        torch.testing.assert_close(graph(*signature.flatten(inputs, {}))[0], Kept()(*inputs))
