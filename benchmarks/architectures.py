"""The architectures of the sweep: name -> how to build each and what to call it with.

All have random weights. `settle` makes them behave somewhat like trained ones: statistics of
batch norms come from data, and what is initialised to nothing (heads, layer scales) is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision
import transformers
from peer_models import images, settle_batch_norms
from torch import Tensor, nn

Inputs = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True)
class Architecture:
    """build() makes the module; inputs(batch, seed, length) its call, with length 0 as usual."""

    build: Callable[[], nn.Module]
    inputs: Inputs
    length: int = 0  # another length of the sequence to try


def settle(model: nn.Module, inputs: Inputs) -> nn.Module:
    """Give statistics to batch norms and weights to what is zero; see the module's docstring."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if p.numel() > 1 and not name.endswith("bias") and p.abs().max() < 1e-3:
            p.copy_(0.02 * torch.randn(p.shape, generator=generator) + (0.2 if p.dim() == 1 else 0))
    return settle_batch_norms(model, (inputs(4, seed) for seed in range(3)))


# ---- images


def image(size: int, batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    return (next(images(batch, batch, seed, size)),), {}


def of_torchvision(name: str, size: int) -> Architecture:
    kwargs = {"weights": None}
    if name in torchvision.models.list_models(torchvision.models.segmentation):
        kwargs["weights_backbone"] = None
    return Architecture(partial(torchvision.models.get_model, name, **kwargs), partial(image, size))


def of_timm(name: str, size: int) -> Architecture:
    return Architecture(partial(timm.create_model, name), partial(image, size))


def backbone(name: str) -> nn.Module:
    fpn = torchvision.models.detection.backbone_utils
    norm = nn.BatchNorm2d  # the default is frozen, which only trained statistics are right for
    if name.startswith("mobilenet"):
        return fpn.mobilenet_backbone(backbone_name=name, weights=None, fpn=True, norm_layer=norm)
    return fpn.resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=norm)


def detector(name: str) -> nn.Module:
    kwargs = {"weights": None, "weights_backbone": None}
    return torchvision.models.get_model(name, **kwargs)


def boxes(size: int, batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    return (list(next(images(batch, batch, seed, size)).sigmoid()),), {}


def clip(size: int, batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    frames = torch.stack([next(images(batch, batch, seed + i, size)) for i in range(16)], 2)
    return (frames.cumsum(2) / 4,), {}


def two_images(size: int, batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    first, second = (next(images(batch, batch, seed + i, size)) for i in range(2))
    return (first.tanh(), (0.8 * first + 0.2 * second).tanh()), {}


# ---- transformers, from configurations of tiny size

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"intermediate_size": 128}
VISION = TINY | {"image_size": 64, "patch_size": 8}
TEXT = TINY | {"vocab_size": 300}


def tokens(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    """Sentences of 24 tokens, or `length`, of which one ends early."""
    length, generator = length or 24, torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 300, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 2 * length // 3 :] = 0
    return (), {"input_ids": ids, "attention_mask": mask}


def pixels(size: int, batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    return (), {"pixel_values": next(images(batch, batch, seed, size))}


def features(name: str, shape: tuple[int, ...], batch: int, seed: int, length: int = 0):
    """Random values of a smooth kind under the given name."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [batch, *shape[:-1], length or shape[-1]]
    values = torch.randn(sizes, generator=generator).cumsum(-1) / shape[-1] ** 0.5
    return (), {name: values}


def both(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    return (), tokens(batch, seed, length)[1] | pixels(64, batch, seed)[1]


def of_transformers(model: str, inputs: Inputs, length: int = 0, **config: Any) -> Architecture:
    def build() -> nn.Module:
        kind = getattr(transformers, model)
        return kind(kind.config_class(**config))

    return Architecture(build, inputs, length)


def of_clip(model: str, dual: str) -> Architecture:
    def build() -> nn.Module:
        parts = {"text_config": TEXT | {"eos_token_id": 2}, "vision_config": VISION}
        return getattr(transformers, model)(getattr(transformers, dual)(**parts))

    return Architecture(build, both)


# ---- small networks of other kinds


def conv_block(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(conv_block(i, o) for i, o in ((3, 16), (16, 32), (32, 64)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, o // 2, 2, 2) for o in (64, 32))
        self.merge = nn.ModuleList(conv_block(i, i // 2) for i in (64, 32))
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[1::-1], strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x)


class TemporalConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(16 if i else 4, 16, 3, dilation=2**i) for i in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            y = layer(nn.functional.pad(x, (2 * 2**i, 0))).relu()
            x = y if i == 0 else x + y
        return x


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], bidirectional: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 32, 5, padding=2)
        self.rnn = kind(32, 32, 2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 * (1 + bidirectional), 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().transpose(1, 2)
        return self.head(self.rnn(y)[0])


class Cells(nn.Module):
    """Steps of an LSTM cell, with its state handed in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        for step in x.unbind(2):
            state = self.cell(step, state)
        return self.head(state[0]), state


def with_state(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    x = features("x", (4, 6), batch, seed)[1]["x"]
    return (x, (torch.zeros(batch, 32), torch.zeros(batch, 32))), {}


@dataclasses.dataclass
class Scores:
    near: Tensor
    far: list[Tensor]


torch.export.register_dataclass(Scores, serialized_type_name="architectures.Scores")


class Siamese(nn.Module):
    """Two inputs, one tower, a dataclass out; the second input by keyword only."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv_block(3, 16), conv_block(16, 16), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(256, 8)

    def forward(self, left: Tensor, *, right: Tensor) -> Scores:
        a, b = (self.head(self.tower(x).flatten(1)) for x in (left, right))
        return Scores((a - b).abs(), [a, b])


def pair(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    (left, right), _ = two_images(32, batch, seed)
    return (left,), {"right": right}


class Recommender(nn.Module):
    """Embeddings of integers, summed and joined with numbers; a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.bag = nn.Embedding(100, 16), nn.EmbeddingBag(50, 16)
        self.deep = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 1)

    def forward(self, item: Tensor, seen: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        joined = torch.cat([self.items(item), self.bag(seen), numbers], 1)
        return {"score": self.head(self.deep(joined))[:, 0].sigmoid(), "seen": seen.float().mean(1)}


def visits(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    g = torch.Generator().manual_seed(seed)
    item, seen = torch.randint(100, (batch,), generator=g), torch.randint(50, (batch, 7))
    return (item, seen, torch.randn(batch, 8, generator=g)), {}


class Counter(nn.Module):
    """A buffer that forward updates."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv_block(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.net(x))


class Spectrum(nn.Module):
    """A spectrogram by complex arithmetic, then convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(17, 32, 3), nn.ReLU(), nn.Conv1d(32, 8, 3))
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unfold(1, 32, 16) * self.window
        power = torch.fft.rfft(frames).abs() ** 2
        return self.net((power + 1e-3).log().transpose(1, 2)).mean(2)


class Fourier(nn.Module):
    """Mixing of tokens by a two-dimensional Fourier transform (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(16, 64), nn.Linear(64, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + torch.fft.fft2(x).real)
        return x + self.down(nn.functional.gelu(self.up(x)))


class Einsum(nn.Module):
    """Attention written with einsum, and a mask of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, 4, 8)).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
        scores = scores.masked_fill(~keep[:, None, None], float("-inf"))
        y = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        return self.out(y.flatten(2))


def masked(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
    x = features("x", (32, 10), batch, seed, length)[1]["x"].transpose(1, 2).contiguous()
    keep = torch.ones(x.shape[:2], dtype=torch.bool)
    keep[0, -3:] = False
    return (x, keep), {}


class Attention(nn.Module):
    """nn.MultiheadAttention with keys and values of their own, and the encoder layer around it."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(32, 4, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        y, _ = self.cross(x, x.roll(1, 0), x, key_padding_mask=~keep, need_weights=False)
        return self.layer(x + y)


def hand_made(kind: Callable[[], nn.Module], *shape: int, length: int = 0) -> Architecture:
    def inputs(batch: int, seed: int, length: int = 0) -> tuple[tuple[Any, ...], dict]:
        return (features("x", shape, batch, seed, length)[1]["x"],), {}

    return Architecture(kind, inputs, length)


def sequence(channels: int, batch: int, seed: int, length: int = 0):
    (x, _), _ = masked(batch, seed, length)
    return (x[..., :channels].contiguous(),), {}


# ---- the table

IMAGES = {  # size of image -> torchvision's
    96: "resnet18 resnet50 wide_resnet50_2 resnext50_32x4d mobilenet_v2 mobilenet_v3_small "
    "mobilenet_v3_large mnasnet1_0 efficientnet_b0 efficientnet_v2_s regnet_x_400mf "
    "regnet_y_400mf shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 densenet121 googlenet "
    "vgg11 vgg11_bn alexnet convnext_tiny swin_t swin_v2_t "
    "fcn_resnet50 deeplabv3_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large",
    224: "vit_b_32 maxvit_t",
    299: "inception_v3",
}
TIMM = {  # size of image -> timm's
    96: "convmixer_768_32 convnextv2_atto cspresnet50 cspdarknet53 davit_tiny dla34 "
    "dpn68 edgenext_xx_small efficientnet_lite0 efficientvit_b0 fastvit_t8 focalnet_tiny_srf "
    "gernet_s ghostnet_100 ghostnetv2_100 hardcorenas_a hgnet_tiny hrnet_w18_small "
    "inception_next_tiny lcnet_050 mixnet_s mobilenetv1_100 mobilenetv4_conv_small mobileone_s0 "
    "mobilevit_xxs mobilevitv2_050 nf_regnet_b0 eca_nfnet_l0 poolformer_s12 pvt_v2_b0 regnetz_b16 "
    "repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resnest14d rexnet_100 selecsls42 "
    "semnasnet_075 starnet_s1 skresnet18 swiftformer_xs tinynet_e vovnet39a xception41 "
    "mambaout_femto fbnetc_100 spnasnet_100 rdnet_tiny tf_efficientnetv2_b0 resnetv2_50",
    224: "cait_xxs24_224 coat_lite_tiny convit_tiny deit_tiny_patch16_224 beit_base_patch16_224 "
    "efficientformer_l1 efficientvit_m0 "
    "eva02_tiny_patch14_224 gmlp_s16_224 hiera_tiny_224 levit_128s mixer_s32_224 mvitv2_tiny "
    "nest_tiny pit_ti_224 resmlp_12_224 sequencer2d_s tiny_vit_5m_224 tnt_s_patch16_224 "
    "twins_svt_small visformer_tiny volo_d1_224 xcit_nano_12_p16_224 gcvit_xxtiny "
    "swin_s3_tiny_224 vit_tiny_patch16_224",
    240: "crossvit_tiny_240",
    256: "botnet26t_256 halonet26t lambda_resnet26t maxvit_nano_rw_256 coatnet_nano_rw_224",
}
VIDEO = {112: "r3d_18 mc3_18 r2plus1d_18 swin3d_t", 224: "s3d"}

sized = {"coatnet_nano_rw_224": 224, "halonet26t": 256}
ARCHITECTURES: dict[str, Architecture] = {}
for _size, _names in IMAGES.items():
    for _name in _names.split():
        ARCHITECTURES[f"torchvision:{_name}"] = of_torchvision(_name, _size)
for _size, _names in VIDEO.items():
    for _name in _names.split():
        ARCHITECTURES[f"torchvision:{_name}"] = Architecture(
            partial(torchvision.models.get_model, _name, weights=None),
            partial(clip, sized.get(_name, _size)),
        )
for _name in ("resnet18", "mobilenet_v3_large"):
    ARCHITECTURES[f"torchvision:{_name} + FPN"] = Architecture(
        partial(backbone, _name), partial(image, 96)
    )
for _name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn"):
    ARCHITECTURES[f"torchvision:{_name}"] = Architecture(
        partial(detector, _name), partial(boxes, 320)
    )
ARCHITECTURES["torchvision:raft_small"] = Architecture(
    partial(torchvision.models.get_model, "raft_small", weights=None), partial(two_images, 128)
)
for _size, _names in TIMM.items():
    for _name in _names.split():
        ARCHITECTURES[f"timm:{_name}"] = of_timm(_name, sized.get(_name, _size))

GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "use_cache": False}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 300}
WHISPER = {
    "d_model": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "vocab_size": 300,
}
WHISPER |= {
    "pad_token_id": 0,
    "encoder_ffn_dim": 128,
    "max_source_positions": 50,
    "num_mel_bins": 20,
}
WAV = TINY | {"conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
WAV |= {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16}
SWIN = {"image_size": 64, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
CONVNEXT = {
    "hidden_sizes": (16, 32, 64, 128),
    "depths": (1, 1, 2, 1),
    "layer_scale_init_value": 0.2,
}
LLAMA = TEXT | {"use_cache": False, "num_key_value_heads": 2}
DISTIL = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 300}

ARCHITECTURES |= {
    "transformers:Bert": of_transformers("BertModel", tokens, 40, **TEXT),
    "transformers:Roberta": of_transformers("RobertaModel", tokens, 40, **TEXT),
    "transformers:DistilBert": of_transformers("DistilBertModel", tokens, 40, **DISTIL),
    "transformers:BertClassifier": of_transformers(
        "BertForSequenceClassification", tokens, 40, **TEXT
    ),
    "transformers:ViT": of_transformers("ViTModel", partial(pixels, 64), **VISION),
    "transformers:DeiT": of_transformers("DeiTModel", partial(pixels, 64), **VISION),
    "transformers:Swin": of_transformers("SwinModel", partial(pixels, 64), **SWIN),
    "transformers:ConvNext": of_transformers("ConvNextModel", partial(pixels, 64), **CONVNEXT),
    "transformers:CLIP": of_clip("CLIPModel", "CLIPConfig"),
    "transformers:Siglip": of_clip("SiglipModel", "SiglipConfig"),
    "transformers:WhisperEncoder": Architecture(
        lambda: transformers.WhisperModel(transformers.WhisperConfig(**WHISPER)).encoder,
        partial(features, "input_features", (20, 100)),
    ),
    "transformers:Wav2Vec2": of_transformers(
        "Wav2Vec2Model", partial(features, "input_values", (2000,)), 3000, **WAV
    ),
    "transformers:GPT2": of_transformers("GPT2LMHeadModel", tokens, 40, **GPT2),
    "transformers:Llama": of_transformers("LlamaForCausalLM", tokens, 40, **LLAMA),
    "transformers:T5Encoder": of_transformers("T5EncoderModel", tokens, 40, **T5),
    "UNet": Architecture(UNet, partial(image, 64)),
    "temporal convolutions": hand_made(TemporalConvolutions, 4, 64),
    "3-d convolutions": hand_made(
        lambda: nn.Sequential(
            *(nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()),
            nn.Linear(16, 4),
        ),
        *(1, 16, 16, 16),
    ),
    "LSTM": hand_made(partial(Recurrent, nn.LSTM), 4, 20),
    "bidirectional LSTM": hand_made(partial(Recurrent, nn.LSTM, True), 4, 20),
    "GRU": hand_made(partial(Recurrent, nn.GRU), 4, 20),
    "LSTM cell with state": Architecture(Cells, with_state),
    "siamese": Architecture(Siamese, pair),
    "recommender": Architecture(Recommender, visits),
    "buffer updated": Architecture(Counter, partial(image, 32)),
    "spectrogram": hand_made(Spectrum, 512),
    "FNet": Architecture(Fourier, partial(sequence, 16)),
    "einsum attention": Architecture(Einsum, masked, 14),
    "MultiheadAttention": Architecture(Attention, masked, 14),
}
