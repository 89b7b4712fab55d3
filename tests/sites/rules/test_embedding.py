import pytest
import torch
from torch import nn

import octavo
from octavo import Config, SiteConfig


class Text(nn.Module):
    """Token and position embeddings, a layer, and a head that may share the table of tokens."""

    def __init__(self, shared=False):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(100, 32, padding_idx=0), nn.Embedding(16, 32)
        self.layer, self.head = nn.Linear(32, 32), nn.Linear(32, 100, bias=False)
        if shared:
            self.head.weight = self.tokens.weight

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.layer(self.tokens(ids) + self.positions(places)).relu())


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(100, 16, mode="sum"), nn.Linear(16, 3)

    def forward(self, ids):
        return self.head(self.bag(ids))


def quantized(net, **settings):
    batches = [torch.randint(0, 100, (4, n)) for n in (9, 7, 9, 9, 9)]
    return octavo.quantize(net.eval(), batches, config=Config(min_sqnr=0, **settings))


def rounded(table):
    step = table.abs().amax(1, keepdim=True).clamp(min=1e-20) / 127
    return (table / step).round() * step


def test_rows_are_int8_with_a_scale_each():
    net = Text()
    q = quantized(net, sites={"Linear": SiteConfig("float", "float")})
    rows = [r for r in q.report().rows if r.operator == "embedding"]
    assert [(r.precision, r.weight_bits, r.path) for r in rows] == [
        ("float", 8, "tokens"),
        ("float", 8, "positions"),
    ]
    assert [r.bytes_after for r in rows] == [100 * (32 + 4), 16 * (32 + 4)]
    assert all(r.reason == "reads rows of a table; weights are int8" for r in rows)
    for table in (net.tokens, net.positions):
        table.weight.data = rounded(table.weight.data)
    ids = torch.randint(0, 100, (3, 5))
    torch.testing.assert_close(q(ids), net(ids))


def test_a_table_shared_with_a_head_is_stored_once():
    q = quantized(Text(shared=True))
    tables = [b for b in q.graph_module.buffers() if b.numel() == 3200]
    assert [b.dtype for b in tables] == [torch.int8]


def test_a_head_kept_float_has_the_float_table():
    q = quantized(Text(shared=True), keep_float=["head"])
    tables = [b for b in q.graph_module.buffers() if b.numel() == 3200]
    assert {b.dtype for b in tables} == {torch.int8, torch.float32}


def test_a_table_kept_float():
    q = quantized(Text(), keep_float=["tokens"])
    (row,) = [r for r in q.report().rows if r.path == "tokens"]
    assert (row.weight_bits, row.reason) == (None, "keep_float='tokens'")


def test_bags_read_rounded_rows():
    net = Bag()
    q = quantized(net, sites={"head": SiteConfig("float", "float")})
    net.bag.weight.data = rounded(net.bag.weight.data)
    ids = torch.randint(0, 100, (3, 5))
    torch.testing.assert_close(q(ids), net(ids))
    (row,) = [r for r in q.report().rows if r.operator == "embedding_bag"]
    assert row.bytes_after == 100 * (16 + 4)


def test_a_goal_that_forbids_it_turns_a_table_float():
    q = quantized(Text(), target_sqnr=100.0)
    assert q.sqnr > 100
    assert all(r.weight_bits is None for r in q.report().rows)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8"])
@pytest.mark.parametrize("shared", [True, False])
def test_engines_gather_what_the_reference_does(engine, shared, tmp_path):
    q = quantized(Text(shared), sites={"Linear": SiteConfig("dynamic", group_size=16)})
    octavo.save(q, tmp_path / "text.octavo")
    fast = octavo.load(tmp_path / "text.octavo").compile(engine)
    for shape in ((1, 1), (3, 8), (5, 16)):
        ids = torch.randint(0, 100, shape)
        assert octavo.sqnr(q(ids), fast(ids)) > 60


def test_ids_outside_of_the_table_are_refused():
    fast = quantized(Text()).compile("openvino")
    with pytest.raises(octavo.DataError, match="outside"):
        fast(torch.full((2, 5), 100))
