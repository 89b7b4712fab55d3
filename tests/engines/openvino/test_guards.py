import pytest
import torch
from torch import nn

import octavo
from octavo import DataError, EngineError


class Positions(nn.Module):
    """Words and computed positions, each from a table."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(12, 16)
        self.linear = nn.Linear(16, 5)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.linear(self.words(ids) + self.places(places))


class Reads(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.linear, self.read = nn.Linear(6, 6), read

    def forward(self, x, index):
        return self.read(self.linear(x), index)


def ids(*shape, high=20):
    return torch.randint(high, shape)


@pytest.fixture(scope="module")
def positions():
    q = octavo.quantize(Positions().eval(), [ids(4, 6), ids(4, 9)])
    return q, q.compile("openvino")


@pytest.mark.parametrize("outside", [20, 1000, -1])
def test_an_id_outside_of_its_table_is_refused(positions, outside):
    q, fast = positions
    x = ids(2, 7)
    torch.testing.assert_close(fast(x), q(x), rtol=0, atol=1e-5)
    x[1, 3] = outside
    with pytest.raises(IndexError):
        q(x)
    with pytest.raises(DataError, match=r"words/embedding: an index is outside"):
        fast(x)


def test_a_length_beyond_the_table_of_positions_is_refused(positions):
    q, fast = positions
    x = ids(2, 12)
    torch.testing.assert_close(fast(x), q(x), rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="places/embedding"):
        fast(ids(2, 13))


@pytest.mark.parametrize(
    ("read", "index", "right"),
    [
        (lambda x, i: x.index_select(1, i), torch.tensor([0, 5]), True),
        (lambda x, i: x.index_select(1, i), torch.tensor([0, 6]), False),
        (lambda x, i: x.gather(1, i), torch.tensor([[0], [5], [1], [2]]), True),
        (lambda x, i: x.gather(1, i), torch.tensor([[0], [6], [1], [2]]), False),
        (lambda x, i: x[:, i], torch.tensor([0, -6]), True),
        (lambda x, i: x[:, i], torch.tensor([0, -7]), False),
        (lambda x, i: x[i, i + 1], torch.tensor([0, -3, 3]), True),
        (lambda x, i: x[i, i + 1], torch.tensor([0, 4, 3]), False),
    ],
)
def test_reads_by_index(read, index, right):
    net = Reads(read).eval()
    first = index.clamp(0, 2)
    x = torch.randn(4, 6)
    fast = octavo.quantize(net, [(x, first)]).compile("openvino")
    if right:
        assert octavo.sqnr(net(x, index), fast(x, index)) > 25
        return
    with pytest.raises((IndexError, RuntimeError)):
        net(x, index)
    with pytest.raises((DataError, EngineError), match=r"an index is outside|exceed data size"):
        fast(x, index)


def test_threads_and_other_shapes_keep_the_guard(positions):
    _, fast = positions
    for length in range(1, 12):  # more shapes than are kept
        assert fast(ids(2, length)).shape == (2, length, 5)
    fast.use_one_for_any_shape()
    with pytest.raises(DataError, match="words/embedding"):
        fast(ids(2, 5) + 20)
