import pytest
import torch
from torch import nn

import octavo
from octavo import FormatError


class Bag(nn.Module):
    """Bags of words, and a linear layer."""

    def __init__(self, **options):
        super().__init__()
        self.bag, self.linear = nn.EmbeddingBag(50, 16, **options), nn.Linear(16, 4)

    def forward(self, ids, offsets=None, weights=None):
        return self.linear(self.bag(ids, offsets, weights))


def agree(net, *calls):
    q = octavo.quantize(net.eval(), list(calls[:1]), config="fast")
    fast = q.compile("onnxruntime")
    for call in calls:
        assert octavo.sqnr(q(*call), fast(*call)) > 30
    assert octavo.sqnr(net(*calls[0]), fast(*calls[0])) > 30
    return q


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 7])
def test_bags_of_any_length(mode, padding):
    ids, starts = torch.randint(50, (20,)), torch.tensor([0, 4, 4, 9, 15])  # the second is empty
    ids[4:9] = 7  # a bag of padding
    net = Bag(mode=mode, padding_idx=padding)
    agree(net, (ids, starts), (ids.flip(0), torch.tensor([0, 1, 2, 3, 19])))


def test_rows_of_one_length_are_bags():
    agree(Bag(mode="mean"), (torch.randint(50, (4, 6)),), (torch.randint(50, (3, 6)),))


def test_weights_of_samples_and_a_last_offset():
    net = Bag(mode="sum", include_last_offset=True)
    agree(net, (torch.randint(50, (20,)), torch.tensor([0, 4, 9, 15, 20]), torch.rand(20)))


def test_an_id_beyond_the_table_is_an_error(tmp_path):
    q = agree(Bag(), (torch.randint(50, (20,)), torch.tensor([0, 4, 9, 15])))
    octavo.export(q, tmp_path / "bag.onnx")
    with pytest.raises(octavo.EngineError, match="out of data bounds"):
        q.compile("onnxruntime")(torch.full((20,), 50), torch.tensor([0, 4, 9, 15]))
    with pytest.raises(FormatError, match="suffix"):
        octavo.export(q, tmp_path / "bag.bags")
