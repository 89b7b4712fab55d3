import json
import math

import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.graph.tensors import tensor_bytes
from octavo.report import Report


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.cumsum(self.conv(x).relu().mean((2, 3)), 1))


@pytest.fixture
def report():
    config = octavo.Config(equalize=False)
    return octavo.quantize(Small(), torch.rand(4, 3, 8, 8), config=config).report()


def test_rows_by_hand(report):
    conv, mean, cumsum, fc = report.rows
    assert (conv.path, conv.operator, conv.precision) == ("conv", "conv2d + relu", "int8")
    assert (conv.weight_bits, conv.activation_bits) == (8, 8)
    assert conv.multiply_adds == 4 * 6 * 6 * 3 * 3 * 3
    assert conv.parameters == 4 * 27 + 4
    assert conv.bytes_before == 4 * conv.parameters
    assert conv.bytes_after == 4 * 27 + 4 * 4 + 4 * 4  # int8 weight, scale, bias
    assert (mean.precision, mean.multiply_adds) == ("float", 0)
    assert (cumsum.precision, cumsum.reason) == ("float", "no rule for cumsum")
    assert (fc.path, fc.multiply_adds, fc.low) == ("fc", 8, None)
    assert all(r.sqnr > 20 for r in report.rows if r.sqnr is not None)


def test_totals(report):
    assert report.int8_share == 1.0
    assert report.bytes_before == 4 * (4 * 27 + 4 + 8 + 2)
    assert report.bytes_after < report.bytes_before
    assert report.output_sqnr > 20


def test_the_share_counts_what_stayed_float():
    config = octavo.Config(keep_float=["conv"])
    report = octavo.quantize(Small(), torch.rand(4, 3, 8, 8), config=config).report()
    conv, fc = 4 * 36 * 27, 8
    assert report.int8_share == pytest.approx(fc / (conv + fc))


def test_site_sqnr_is_measured_against_the_float_model():
    net, inputs = make("residual")
    data = calls(inputs, batches=1, size=8)
    q = octavo.quantize(net, data)
    x = data[0][0]
    last = q.report().rows[-1]
    assert last.sqnr == pytest.approx(octavo.sqnr(net(x), q(x)), abs=0.1)
    assert q.report().output_sqnr == pytest.approx(last.sqnr, abs=0.1)


def test_json_and_back(report):
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_infinite_sqnr_survives_json():
    rows = octavo.quantize(nn.Flatten(), torch.rand(4, 2, 2)).report()
    assert rows.output_sqnr == math.inf
    assert Report.from_dict(json.loads(json.dumps(rows.to_dict()))) == rows


def test_the_table_shows_all_of_it(report):
    text = str(report)
    for part in ("conv2d + relu", "no rule for cumsum", "8/8", "100.0% of multiply-adds", "SQNR"):
        assert part in text


def test_shared_tensors_are_counted_once():
    layer = nn.Linear(4, 4)
    assert tensor_bytes(nn.Sequential(layer, layer)) == 4 * 20


def test_a_report_that_is_no_report_is_refused():
    with pytest.raises((KeyError, TypeError)):
        Report.from_dict({"rows": [{"path": 1}]})


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_listed_as_float_work(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    net, x = Net().eval(), torch.randn(8, 5, 4)
    q = octavo.quantize(net, x)
    [row] = [r for r in q.report().rows if r.path == "rnn"]
    assert (row.precision, row.multiply_adds > 0) == ("float", True)
    assert "state" in row.reason
    assert q.report().int8_share < 0.5
    assert octavo.sqnr(net(x), q(x)) > 30
