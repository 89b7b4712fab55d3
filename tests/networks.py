"""Small networks that between them use every rule, as users write them, and inputs for them."""

import threading

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Convolution, batch norm, one relu called everywhere, `out += identity`."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.pool(self.relu(self.bn(self.stem(x))))
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        x = self.relu(out)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Mobile(nn.Module):
    """Depthwise, relu6, hardswish, squeeze and excite, dropout."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 5, 2, 2, groups=24), nn.BatchNorm2d(24), nn.Hardswish()
        )
        self.squeeze, self.excite = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.project = nn.Conv2d(24, 12, 1)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, 4))

    def forward(self, x):
        x = self.depthwise(self.expand(x))
        s = x.mean((2, 3), keepdim=True)
        x = x * torch.sigmoid(self.excite(F.silu(self.squeeze(s))))
        return self.head(self.project(x).mean([2, 3]))


class Dense(nn.Module):
    """Batch norm before the convolution, concatenation, average pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)
        self.bn3, self.conv3 = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.conv1(F.relu(self.bn1(x)))], 1)
        x = F.avg_pool2d(self.conv2(F.relu(self.bn2(x))), 2)
        return self.conv3(self.bn3(x)).flatten(2).mean(-1)


class UNet(nn.Module):
    """Transposed convolution, concatenation read by a convolution, padding, nearest."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding="same")
        self.inner = nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.upbn = nn.BatchNorm2d(8)
        self.merge = nn.Conv2d(16, 4, 3)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        a = F.leaky_relu(self.down(x), 0.1)
        b = F.relu(self.inner(a))
        b = F.relu(self.upbn(self.up(b)))
        y = self.merge(F.pad(torch.cat([a, b], dim=1), (1, 1, 1, 1)))
        return self.last(F.interpolate(y, scale_factor=2.0, mode="nearest"))


class Transformer(nn.Module):
    """Layer norm, attention written out, GELU, class token."""

    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.heads = heads
        self.embed = nn.Conv2d(3, dim, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, dim))
        self.head = nn.Linear(dim, 6)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        x = x + self.proj((a @ v).transpose(1, 2).reshape(b, n, c))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class Shuffle(nn.Module):
    """Split, channel shuffle by view and transpose, pixel shuffle, prelu."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.PReLU(8))
        self.up = nn.Conv2d(16, 8, 1)
        self.last = nn.Conv2d(2, 2, 3, padding=1, dilation=1)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, dim=1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.last(F.pixel_shuffle(self.up(x), 2))


class Sequence1d(nn.Module):
    """Dilated 1-d convolutions and a residual."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(4, 16, 3, padding=2, dilation=2)
        self.b = nn.Conv1d(16, 16, 3, padding=4, dilation=4)
        self.up = nn.ConvTranspose1d(16, 4, 4, 2, 1, groups=2)

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.up(F.relu(y + self.b(y)))


class Volume(nn.Module):
    """3-d convolution and pooling."""

    def __init__(self):
        super().__init__()
        self.a, self.bn = nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8)
        self.b = nn.Conv3d(8, 4, 3)

    def forward(self, x):
        return self.b(F.max_pool3d(F.relu(self.bn(self.a(x))), 2)).amax((2, 3, 4))


class Structured(nn.Module):
    """Two inputs, one by keyword, a shared tower, a dict with a tuple out."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
        self.head = nn.Linear(8 * 144, 3)

    def forward(self, left, right=None, *, scale=1.0):
        a, b = self.tower(left), self.tower(right)
        return {"score": self.head(a - b) * scale, "both": (a, b)}


def images(batch, channels=3, side=16):
    """Smooth random images of different brightness and contrast."""
    small = torch.randn(batch, channels, side // 4, side // 4)
    smooth = F.interpolate(small, size=(side, side), mode="bilinear")
    return smooth * (0.5 + torch.rand(batch, 1, 1, 1)) + torch.randn(batch, channels, 1, 1)


# name -> (network, batch size -> positional inputs, keyword inputs)
class Odd(nn.Module):
    """Odd channels and sizes, groups, strides and padding that differ by side, one pixel left."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 5, (3, 1), (2, 1), (1, 0))
        self.depthwise = nn.Conv2d(5, 5, 3, padding=2, dilation=2, groups=5)
        self.grouped = nn.Conv2d(5, 15, 1, groups=5)
        self.last = nn.Conv2d(15, 17, (7, 7))
        self.fc = nn.Linear(17, 1, bias=False)

    def forward(self, x):
        x = F.relu6(self.depthwise(F.relu(self.stem(x))))
        x = F.max_pool2d(torch.tanh(self.grouped(x)), (1, 3), 1, (0, 1))
        return self.fc(F.relu(self.last(x)).squeeze((2, 3)))


class Outlier(nn.Module):
    """One activation has an outlier a thousand times the rest, which a later layer ignores."""

    def __init__(self):
        super().__init__()
        self.good, self.bad = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.bad.weight[:, 0] = 0

    def forward(self, x):
        y = torch.tanh(self.good(x))
        y = torch.cat([y[:, :1] * 0 + 3000, y[:, 1:]], 1)
        return self.bad(y)


def uneven(channels, least=0.02):
    return torch.logspace(0, torch.tensor(least).log10().item(), channels)


class Bottlenecks(nn.Module):
    """MobileNetV2's plan: expand, depthwise, project, add; small channels count like large."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))
        self.depthwise = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1, groups=16) for _ in range(2))
        self.project = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for conv in (self.stem, *self.project):
                conv.weight *= uneven(8)[:, None, None, None]
                conv.bias *= uneven(8)
            for reader in (*self.expand, self.head):
                reader.weight /= uneven(8).view(1, 8, *[1] * (reader.weight.dim() - 2))
            for conv in self.expand:
                conv.weight *= uneven(16)[:, None, None, None]
                conv.bias *= uneven(16)
            for conv in self.depthwise:
                conv.weight /= uneven(16)[:, None, None, None]

    def forward(self, x):
        x = self.stem(x)
        for expand, depthwise, project in zip(
            self.expand, self.depthwise, self.project, strict=True
        ):
            y = F.relu6(depthwise(F.relu6(expand(x))))
            x = x + project(y)
        return self.head(x.mean((2, 3)))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        return torch.tanh(self.pool(x + self.conv2(x)))


NETWORKS = {
    "residual": (Residual, lambda n: ((images(n),), {})),
    "mobile": (Mobile, lambda n: ((images(n),), {})),
    "dense": (Dense, lambda n: ((images(n),), {})),
    "unet": (UNet, lambda n: ((images(n),), {})),
    "transformer": (Transformer, lambda n: ((images(n, side=32),), {})),
    "shuffle": (Shuffle, lambda n: ((images(n),), {})),
    "sequence1d": (Sequence1d, lambda n: ((torch.randn(n, 4, 24),), {})),
    "volume": (Volume, lambda n: ((torch.randn(n, 1, 8, 8, 8),), {})),
    "odd": (Odd, lambda n: ((torch.randn(n, 1, 13, 7),), {})),
    "structured": (Structured, lambda n: ((images(n),), {"right": images(n)})),
}


def warmed(network, make_inputs):
    """The network in eval mode, its batch norms with the statistics of a few batches."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    for _ in range(4):
        args, kwargs = make_inputs(8)
        network(*args, **kwargs)
    return network.eval()


def make(name):
    """(network, inputs of a batch size) by name."""
    torch.manual_seed(0)
    network, make_inputs = NETWORKS[name]
    return warmed(network(), make_inputs), make_inputs


def calls(make_inputs, batches=4, size=4):
    """Calibration data for `octavo.quantize`: tuples, or dicts where inputs go by keyword."""
    found = []
    for _ in range(batches):
        args, kwargs = make_inputs(size)
        names = ("left",) if kwargs else ()
        found.append(dict(zip(names, args, strict=True)) | kwargs if kwargs else args)
    return found


def wrong_in_threads(fast, inputs, rounds):
    """Numbers of the inputs for which calls from several threads at once give something else."""
    expected = [fast(x) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(rounds):
            if not torch.equal(fast(inputs[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return wrong
