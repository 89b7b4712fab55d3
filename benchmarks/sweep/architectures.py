"""The architectures of the sweep: name -> how to build each and what to call it with.

All have random weights. `settle` makes them behave somewhat like trained ones: statistics of
batch norms come from data, and what is initialised to nothing (heads, layer scales) is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import nn

from ..random_models import settle_batch_norms
from . import networks, random_inputs

Inputs = Callable[..., random_inputs.Call]


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


# ---- torchvision and timm

TORCHVISION = {  # size of images -> names
    96: "resnet18 resnet50 wide_resnet50_2 resnext50_32x4d mobilenet_v2 mobilenet_v3_small "
    "mobilenet_v3_large mnasnet1_0 efficientnet_b0 efficientnet_v2_s regnet_x_400mf "
    "regnet_y_400mf shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 densenet121 googlenet "
    "vgg11 vgg11_bn alexnet convnext_tiny swin_t swin_v2_t "
    "fcn_resnet50 deeplabv3_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large",
    224: "vit_b_32 maxvit_t",
    299: "inception_v3",
}
VIDEO = {112: "r3d_18 mc3_18 r2plus1d_18 swin3d_t", 224: "s3d"}

TIMM = {  # size of images -> names
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
    256: "botnet26t_256 halonet26t lambda_resnet26t maxvit_nano_rw_256",
}


def of_torchvision(name: str, size: int) -> Architecture:
    kwargs = {"weights": None}
    if name in torchvision.models.list_models(torchvision.models.segmentation):
        kwargs["weights_backbone"] = None
    return Architecture(
        partial(torchvision.models.get_model, name, **kwargs), partial(random_inputs.image, size)
    )


def of_timm(name: str, size: int) -> Architecture:
    return Architecture(partial(timm.create_model, name), partial(random_inputs.image, size))


def backbone(name: str) -> nn.Module:
    fpn = torchvision.models.detection.backbone_utils
    norm = nn.BatchNorm2d  # the default is frozen, which only trained statistics are right for
    if name.startswith("mobilenet"):
        return fpn.mobilenet_backbone(backbone_name=name, weights=None, fpn=True, norm_layer=norm)
    return fpn.resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=norm)


def detector(name: str) -> nn.Module:
    kwargs = {"weights": None, "weights_backbone": None}
    return torchvision.models.get_model(name, **kwargs)


def of_torchvision_all() -> Iterator[tuple[str, Architecture]]:
    for size, names in TORCHVISION.items():
        for name in names.split():
            yield name, of_torchvision(name, size)
    get = torchvision.models.get_model
    for size, names in VIDEO.items():
        for name in names.split():
            build = partial(get, name, weights=None)
            yield name, Architecture(build, partial(random_inputs.clip, size))
    for name in ("resnet18", "mobilenet_v3_large"):
        build = partial(backbone, name)
        yield f"{name} + FPN", Architecture(build, partial(random_inputs.image, 96))
    for name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn"):
        yield name, Architecture(partial(detector, name), partial(random_inputs.boxes, 320))
    raft = partial(get, "raft_small", weights=None)
    yield "raft_small", Architecture(raft, partial(random_inputs.two_images, 128))


def of_timm_all() -> Iterator[tuple[str, Architecture]]:
    for size, names in TIMM.items():
        for name in names.split():
            yield name, of_timm(name, size)
    yield "coatnet_nano_rw_224", of_timm("coatnet_nano_rw_224", 224)


# ---- transformers, from configurations of tiny size

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"intermediate_size": 128}
VISION = TINY | {"image_size": 64, "patch_size": 8}
TEXT = TINY | {"vocab_size": 300}
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


def of_transformers(model: str, inputs: Inputs, length: int = 0, **config: Any) -> Architecture:
    def build() -> nn.Module:
        kind = getattr(transformers, model)
        return kind(kind.config_class(**config))

    return Architecture(build, inputs, length)


def of_clip(model: str, dual: str) -> Architecture:
    def build() -> nn.Module:
        parts = {"text_config": TEXT | {"eos_token_id": 2}, "vision_config": VISION}
        return getattr(transformers, model)(getattr(transformers, dual)(**parts))

    return Architecture(build, random_inputs.text_and_image)


TRANSFORMERS = {
    "Bert": of_transformers("BertModel", random_inputs.tokens, 40, **TEXT),
    "Roberta": of_transformers("RobertaModel", random_inputs.tokens, 40, **TEXT),
    "DistilBert": of_transformers("DistilBertModel", random_inputs.tokens, 40, **DISTIL),
    "BertClassifier": of_transformers(
        "BertForSequenceClassification", random_inputs.tokens, 40, **TEXT
    ),
    "ViT": of_transformers("ViTModel", partial(random_inputs.pixels, 64), **VISION),
    "DeiT": of_transformers("DeiTModel", partial(random_inputs.pixels, 64), **VISION),
    "Swin": of_transformers("SwinModel", partial(random_inputs.pixels, 64), **SWIN),
    "ConvNext": of_transformers("ConvNextModel", partial(random_inputs.pixels, 64), **CONVNEXT),
    "CLIP": of_clip("CLIPModel", "CLIPConfig"),
    "Siglip": of_clip("SiglipModel", "SiglipConfig"),
    "WhisperEncoder": Architecture(
        lambda: transformers.WhisperModel(transformers.WhisperConfig(**WHISPER)).encoder,
        partial(random_inputs.features, "input_features", (20, 100)),
    ),
    "Wav2Vec2": of_transformers(
        "Wav2Vec2Model", partial(random_inputs.features, "input_values", (2000,)), 3000, **WAV
    ),
    "GPT2": of_transformers("GPT2LMHeadModel", random_inputs.tokens, 40, **GPT2),
    "Llama": of_transformers("LlamaForCausalLM", random_inputs.tokens, 40, **LLAMA),
    "T5Encoder": of_transformers("T5EncoderModel", random_inputs.tokens, 40, **T5),
}


# ---- small networks of other kinds


def hand_made(kind: Callable[[], nn.Module], *shape: int, length: int = 0) -> Architecture:
    def call(batch: int, seed: int, length: int = 0) -> random_inputs.Call:
        return (random_inputs.features("x", shape, batch, seed, length)[1]["x"],), {}

    return Architecture(kind, call, length)


SMALL = {
    "UNet": Architecture(networks.UNet, partial(random_inputs.image, 64)),
    "temporal convolutions": hand_made(networks.TemporalConvolutions, 4, 64),
    "3-d convolutions": hand_made(
        lambda: nn.Sequential(
            *(nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()),
            nn.Linear(16, 4),
        ),
        *(1, 16, 16, 16),
    ),
    "LSTM": hand_made(partial(networks.Recurrent, nn.LSTM), 4, 20),
    "bidirectional LSTM": hand_made(partial(networks.Recurrent, nn.LSTM, True), 4, 20),
    "GRU": hand_made(partial(networks.Recurrent, nn.GRU), 4, 20),
    "LSTM cell with state": Architecture(networks.Cells, random_inputs.with_state),
    "siamese": Architecture(networks.Siamese, random_inputs.image_pair),
    "recommender": Architecture(networks.Recommender, random_inputs.visits),
    "buffer updated": Architecture(networks.CallCounter, partial(random_inputs.image, 32)),
    "spectrogram": hand_made(networks.Spectrum, 512),
    "FNet": Architecture(networks.Fourier, partial(random_inputs.sequence, 16)),
    "einsum attention": Architecture(networks.Einsum, random_inputs.masked, 14),
    "MultiheadAttention": Architecture(networks.Attention, random_inputs.masked, 14),
}


# ---- all of them

ARCHITECTURES: dict[str, Architecture] = {
    **{f"torchvision:{name}": made for name, made in of_torchvision_all()},
    **{f"timm:{name}": made for name, made in of_timm_all()},
    **{f"transformers:{name}": made for name, made in TRANSFORMERS.items()},
    **SMALL,
}
