"""Four small Fashion-MNIST classifiers with trained weights, and the images.

net = load("resnet")            # nn.Module, eval mode, float32; NETS lists the names
x, y = data("test", 1000)       # (1000, 1, 28, 28) float32 normalised, (1000,) int64
accuracy(net)                   # share of the 10,000 test images it gets right

Float accuracy: resnet 92.50 %, mobilenet 91.71 %, vit 88.42 %, densenet 92.02 %.
The nets are written as users write theirs: one nn.ReLU called from many places,
`out += identity`, torch.cat, x.mean, F.relu, x.view.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

HERE = Path(__file__).resolve().parent
MEAN, STD = 0.2860, 0.3530


# ---- resnet


class BasicBlock(nn.Module):
    def __init__(self, cin, cout, stride, relu):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.relu = relu  # the same nn.ReLU object in the whole net
        self.down = None
        if stride != 1 or cin != cout:
            conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
            self.down = nn.Sequential(conv, nn.BatchNorm2d(cout))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.down is not None:
            identity = self.down(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, widths=(16, 32, 64), blocks=(1, 2, 2), classes=10):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(1, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        layers, cin = [], widths[0]
        for width, count in zip(widths, blocks, strict=True):
            stage = []
            for i in range(count):
                stage.append(BasicBlock(cin, width, 2 if i == 0 else 1, self.relu))
                cin = width
            layers.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(cin, classes)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)


# ---- mobilenet (version 3 style)


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        s = F.relu(self.fc1(s))
        s = F.hardsigmoid(self.fc2(s))
        return x * s


class InvertedResidual(nn.Module):
    def __init__(self, cin, hidden, cout, kernel=3, stride=1, se=False, act=nn.Hardswish):
        super().__init__()
        self.use_res = stride == 1 and cin == cout
        layers = []
        if hidden != cin:
            layers += [nn.Conv2d(cin, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act()]
        pad = kernel // 2
        layers += [
            nn.Conv2d(hidden, hidden, kernel, stride, pad, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            act(),
        ]
        if se:
            layers.append(SqueezeExcite(hidden))
        layers += [nn.Conv2d(hidden, cout, 1, bias=False), nn.BatchNorm2d(cout)]
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        if self.use_res:
            return x + self.block(x)
        return self.block(x)


class MobileNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            InvertedResidual(16, 16, 24, 3, 2, act=nn.ReLU),
            InvertedResidual(24, 72, 24, 3, 1, act=nn.ReLU),
            InvertedResidual(24, 96, 40, 5, 2, se=True),
            InvertedResidual(40, 160, 40, 5, 1, se=True),
            InvertedResidual(40, 160, 40, 5, 1, se=True),
            InvertedResidual(40, 160, 48, 3, 1, se=True),
            nn.Conv2d(48, 192, 1, bias=False),
            nn.BatchNorm2d(192),
            nn.Hardswish(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(192, 128), nn.Hardswish(), nn.Dropout(0.1), nn.Linear(128, classes)
        )

    def forward(self, x):
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, 1)
        x = x.view(x.size(0), -1)
        return self.classifier(x)


# ---- vit


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        x = x.transpose(1, 2).reshape(B, N, C)
        return self.proj(x)


class EncoderBlock(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, dim=64, depth=4, heads=4, hidden=256, patch=7, classes=10):
        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, (28 // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*[EncoderBlock(dim, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.pos_embed
        x = self.blocks(x)
        x = self.norm(x)
        return self.head(x[:, 0])


# ---- densenet


class DenseLayer(nn.Module):
    def __init__(self, cin, growth, bottleneck=4):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, bottleneck * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(bottleneck * growth)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x):
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return torch.cat([x, out], 1)


class Transition(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.bn = nn.BatchNorm2d(cin)
        self.conv = nn.Conv2d(cin, cout, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.pool(self.conv(F.relu(self.bn(x))))


class DenseNet(nn.Module):
    def __init__(self, growth=12, blocks=(5, 7), stem=24, classes=10):
        super().__init__()
        channels = stem
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, 3, 1, 1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        layers = []
        for i, count in enumerate(blocks):
            for _ in range(count):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            if i + 1 < len(blocks):
                layers.append(Transition(channels, channels // 2 + 6))
                channels = channels // 2 + 6
        self.features = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.features(self.stem(x))
        x = F.relu(self.norm(x), inplace=True)
        x = x.mean([2, 3])
        return self.classifier(x)


NETS = {"resnet": ResNet, "mobilenet": MobileNet, "vit": ViT, "densenet": DenseNet}


def load(name):
    """The trained net `name`, in eval mode."""
    net = NETS[name]()
    net.load_state_dict(load_file(str(HERE / f"{name}.safetensors")))
    return net.eval()


def normalise(images):
    """uint8 (N, 28, 28) -> float32 (N, 1, 28, 28), the nets' input."""
    x = torch.as_tensor(images).to(torch.float32).div_(255)
    return x.sub_(MEAN).div_(STD).unsqueeze(1)


def data(split, n=None):
    """The first n images and labels of "test" (10,000) or "calib" (2,000 training images)."""
    with np.load(HERE / f"fashion_{split}.npz") as f:
        images, labels = f["images"][:n], f["labels"][:n]
    return normalise(images), torch.from_numpy(labels.astype(np.int64))


@torch.no_grad()
def accuracy(net, split="test", n=None, batch=500):
    """The share of the first n images of `split` that `net`, any callable, gets right."""
    x, y = data(split, n)
    pairs = zip(x.split(batch), y.split(batch), strict=True)
    return sum((net(a).argmax(1) == b).sum().item() for a, b in pairs) / len(y)
