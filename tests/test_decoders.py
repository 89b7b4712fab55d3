"""A language model's decoder with its cache as inputs and outputs, all the way through."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from octavo import Config

HEADS, WIDTH, WORDS = 4, 64, 100


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x, mask, past):
        parts = self.qkv(self.before(x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in parts)
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.after(x)))), (k, v)


class Decoder(nn.Module):
    """Token ids, a mask of past and new tokens, and a cache; a head that shares the table."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids, attention_mask, past):
        new, old = input_ids.shape[1], past[0][0].shape[2]
        places = old + torch.arange(new, device=input_ids.device)
        x = self.tokens(input_ids) + self.places(places)
        seen = torch.arange(old + new, device=input_ids.device) <= places[:, None]
        mask = seen & (attention_mask[:, None, None] != 0)
        cache = []
        for block, kept in zip(self.blocks, past, strict=True):
            x, both = block(x, mask, kept)
            cache.append(both)
        return self.head(x), tuple(cache)


def call(batch, new, old):
    def kept():
        return 0.5 * torch.randn(batch, HEADS, old, WIDTH // HEADS)

    ids = torch.randint(0, WORDS, (batch, new))
    mask = torch.ones(batch, old + new, dtype=torch.long)
    return ids, mask, tuple((kept(), kept()) for _ in range(2))


@pytest.fixture(scope="module", params=["static", "dynamic"])
def decoder(request):
    torch.manual_seed(0)
    net = Decoder().eval()
    calls = [call(2, 4, 6), call(3, 2, 9), *(call(2, 3, 7) for _ in range(4))]
    return net, octavo.quantize(net, calls, config=Config(activations=request.param, min_sqnr=0))


OTHERS = [(1, 1, 12), (2, 4, 6), (1, 7, 3), (4, 1, 1)]


@pytest.mark.parametrize("sizes", OTHERS)
def test_other_lengths_of_new_and_of_kept_tokens(decoder, sizes):
    net, q = decoder
    inputs = call(*sizes)
    (logits, cache), (expected, kept) = q(*inputs), net(*inputs)
    assert octavo.sqnr(expected, logits) > 20
    assert octavo.sqnr(kept, cache) > 20


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8"])
def test_engines_compute_what_the_reference_does(decoder, engine, tmp_path):
    _, q = decoder
    octavo.save(q, tmp_path / "decoder.octavo")
    fast = octavo.load(tmp_path / "decoder.octavo").compile(engine)
    for sizes in OTHERS:
        inputs = call(*sizes)
        assert octavo.sqnr(q(*inputs), fast(*inputs)) > 33


@pytest.mark.parametrize("suffix", [".xml", ".onnx"])
def test_files(decoder, suffix, tmp_path):
    with pytest.warns(octavo.SaveWarning, match="sizes"):  # all parts of a cache are of one length
        octavo.export(decoder[1], tmp_path / f"decoder{suffix}")
    assert (tmp_path / f"decoder{suffix}").stat().st_size > 0


def test_a_cache_of_another_depth_is_refused(decoder):
    ids, mask, past = call(2, 4, 6)
    with pytest.raises(octavo.CaptureError):
        decoder[1](ids, mask, past[:1])
