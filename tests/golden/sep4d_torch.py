"""SEP-4D in plain PyTorch, written from the design's description and independent of the Rust implementation.

Tensors are channels-first. Letters: B batch, T frames, X Y Z voxels of the full grid, x y z cells of the grid of half
the resolution, C latent channels, F features of a frame, D plane features, K classes.
"""

import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPATIAL = ("xy", "xz", "yz")
TEMPORAL = ("tx", "ty", "tz")
PLANES = SPATIAL + TEMPORAL
FREQUENCIES = 4
CODE = 1 + 2 * FREQUENCIES

# Gives the standard normal numbers for plane `k` (0..5 in the order of PLANES), of the shape of the tensor given.
Noise = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes of the model; no parameter depends on the grid or on the number of frames."""

    classes: int = 11
    latent: int = 16
    features: int = 32
    hidden: int = 128
    head: int = 32
    frame_features: int = 0

    @property
    def made_of(self) -> int:
        """F, the channels of a frame's features: those of the latent unless others were given."""
        return self.frame_features or self.latent


PRESETS = {
    "paper": Config(frame_features=32),
    "base": Config(frame_features=32, hidden=64),
    "demo": Config(frame_features=32, latent=8, hidden=32, head=16),
}


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.1."""
    return F.leaky_relu(x, 0.1)


def positional_code(count: int, like: Tensor) -> Tensor:
    """`[2u-1, sin(pi u), cos(pi u), sin(2 pi u), ..., cos(8 pi u)]` at `u = (i + 1/2) / count`: `[count, 9]`."""
    u = (torch.arange(count, dtype=torch.float64, device=like.device) + 0.5) / count
    columns = [2 * u - 1]
    for frequency in range(FREQUENCIES):
        angle = 2**frequency * math.pi * u
        columns += [angle.sin(), angle.cos()]
    return torch.stack(columns, 1).to(like)


class Pointwise(nn.Linear):
    """A convolution of kernel 1 on `[B, C, ...]`, its weight stored `[O, I]`."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv1d(x.flatten(2), self.weight.unsqueeze(-1), self.bias)
        return y.unflatten(2, x.shape[2:])


class Mlp(nn.Module):
    """`out(lrelu(hidden(x)))` on the channels of `[B, C, ...]`."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = Pointwise(inputs, hidden)
        self.out = Pointwise(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(lrelu(self.hidden(x)))


class Residual(nn.Module):
    """`x + f(IN(conv2(lrelu(IN(conv1(x))))))`, where `f` is the identity or lrelu."""

    def __init__(self, conv1: nn.Module, conv2: nn.Module, activate: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.activate = conv1, conv2, activate

    def forward(self, x: Tensor) -> Tensor:
        branch = F.instance_norm(self.conv2(lrelu(F.instance_norm(self.conv1(x)))))
        return x + (lrelu(branch) if self.activate else branch)


class Extractor(nn.Module):
    """f_theta: labels of a frame `[N, X, Y, Z]` to features `[N, F, x, y, z]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.classes, 4)
        self.down = nn.Conv3d(4, 32, 2, stride=2)
        self.res = Residual(nn.Conv3d(32, 32, 3, padding=1), nn.Conv3d(32, 32, 3, padding=1), activate=False)
        self.out = Pointwise(32, config.made_of)

    def forward(self, labels: Tensor) -> Tensor:
        x = self.embedding(labels).movedim(-1, 1)
        x = F.instance_norm(self.down(x))
        return self.out(lrelu(self.res(x)))


class ValuesAndScores(nn.Module):
    """Two 1x1 convolutions giving the values and the scores of several pools, C channels each."""

    def __init__(self, channels: int, pools: int) -> None:
        super().__init__()
        self.values = Pointwise(channels, pools * channels)
        self.scores = Pointwise(channels, pools * channels)
        nn.init.zeros_(self.scores.weight)
        nn.init.zeros_(self.scores.bias)
        self.pools = pools

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.values(x).chunk(self.pools, 1), self.scores(x).chunk(self.pools, 1), strict=True))


def attention_pool(values: Tensor, scores: Tensor, dims: list[int]) -> Tensor:
    """`sum over dims of softmax_dims(scores) * values`, per channel."""
    weights = (scores - scores.logsumexp(dims, keepdim=True)).exp()
    return (weights * values).sum(dims)


class PlanarFactorisation(nn.Module):
    """PF (Eq. 6): features `[B, F, T, x, y, z]` to the six planes, by separable attention pooling."""

    VOLUME_POOLS = ("t", "yz", "xz", "xy")  # -> V0, tx, ty, tz
    STATIC_POOLS = ("z", "y", "x")  # -> xy, xz, yz

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.volume = ValuesAndScores(channels, len(self.VOLUME_POOLS))
        self.static = ValuesAndScores(channels, len(self.STATIC_POOLS))
        self.bias = nn.ModuleDict(
            {axes: Mlp(CODE * len(axes), 2 * channels, channels) for axes in self.VOLUME_POOLS + self.STATIC_POOLS}
        )

    def pool(self, values: Tensor, scores: Tensor, axes: str, pooled: str) -> Tensor:
        """Pools the axes `pooled` out of a volume `[B, C, *axes]`."""
        dims = [2 + axes.index(axis) for axis in pooled]
        sizes = [values.shape[dim] for dim in dims]
        codes = [positional_code(size, values) for size in sizes]
        if len(codes) == 2:
            first = codes[0].unsqueeze(1).expand(-1, sizes[1], -1)
            second = codes[1].unsqueeze(0).expand(sizes[0], -1, -1)
            code = torch.cat([first, second], -1)
        else:
            code = codes[0]
        bias = self.bias[pooled](code.movedim(-1, 0).unsqueeze(0))  # [1, C, *pooled]
        broadcast = [size if axis in pooled else 1 for axis, size in zip(axes, values.shape[2:], strict=True)]
        return attention_pool(values, scores + bias.reshape(1, -1, *broadcast), dims)

    def forward(self, s: Tensor) -> dict[str, Tensor]:
        v0, tx, ty, tz = (
            self.pool(values, scores, "txyz", pooled)
            for pooled, (values, scores) in zip(self.VOLUME_POOLS, self.volume(s), strict=True)
        )
        xy, xz, yz = (
            self.pool(values, scores, "xyz", pooled)
            for pooled, (values, scores) in zip(self.STATIC_POOLS, self.static(v0), strict=True)
        )
        return {"xy": xy, "xz": xz, "yz": yz, "tx": tx, "ty": ty, "tz": tz}


class Distribution(Mlp):
    """E_k (Eqs. 7-8): a plane `[B, F, ., .]` to its mean and log variance, stacked `[B, 2C, ., .]`."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(features, features, 2 * channels)
        with torch.no_grad():
            self.out.weight[channels:] *= 0.1
            self.out.bias[channels:] = -4


class PlaneBlock(nn.Module):
    """`skip(x) + conv2(lrelu(IN(conv1(x))))`: `[B, C, ., .]` to `[B, D, ., .]`."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.skip = Pointwise(channels, features)
        self.conv1 = nn.Conv2d(channels, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(lrelu(F.instance_norm(self.conv1(x))))


class FusionMlp(nn.Module):
    """`z = out(lrelu(A V + B W + b))`; the static part `A V` has no time axis and is broadcast over T."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.static = Pointwise(features, 2 * features, bias=False)
        self.dynamic = Pointwise(features, 2 * features)
        self.out = Pointwise(2 * features, features)

    def forward(self, v: Tensor, w: Tensor) -> Tensor:
        return self.out(lrelu(self.static(v).unsqueeze(2) + self.dynamic(w)))


class Fusion(nn.Module):
    """g_theta (Eqs. 9-10): six planes of D features to z `[B, D, T, x, y, z]`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.phi = nn.ModuleDict({plane: Mlp(CODE + 2 * features, features, features) for plane in SPATIAL})
        for mlp in self.phi.values():
            nn.init.ones_(mlp.out.bias)
        self.psi = nn.Conv3d(features, 3 * features, 3, padding=1)
        self.mlp = FusionMlp(features)

    def attention(self, planes: dict[str, Tensor], plane: str) -> Tensor:
        """phi_k `[B, D, n]` along the axis that plane k lacks, from its positions and the two other spatial planes."""
        (missing,) = set("xyz") - set(plane)
        means = [planes[other].mean(3 - other.index(missing)) for other in SPATIAL if other != plane]
        code = positional_code(means[0].shape[2], means[0]).T.expand(means[0].shape[0], -1, -1)
        return self.phi[plane](torch.cat([code, *means], 1))

    def forward(self, planes: dict[str, Tensor]) -> Tensor:
        v = (
            torch.einsum("bcz,bcxy->bcxyz", self.attention(planes, "xy"), planes["xy"])
            + torch.einsum("bcy,bcxz->bcxyz", self.attention(planes, "xz"), planes["xz"])
            + torch.einsum("bcx,bcyz->bcxyz", self.attention(planes, "yz"), planes["yz"])
        ) / math.sqrt(3)
        gate_x, gate_y, gate_z = (2 * self.psi(v).sigmoid()).chunk(3, 1)
        w = (
            torch.einsum("bcxyz,bctx->bctxyz", gate_x, planes["tx"])
            + torch.einsum("bcxyz,bcty->bctxyz", gate_y, planes["ty"])
            + torch.einsum("bcxyz,bctz->bctxyz", gate_z, planes["tz"])
        ) / math.sqrt(3)
        return self.mlp(v, w)


class Head(nn.Module):
    """The full-resolution head: `out(lrelu(x + mix(x)))`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.mix = Pointwise(channels, channels)
        self.out = Pointwise(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(lrelu(x + self.mix(x)))


class Decoder(nn.Module):
    """Eq. 11: z of a frame `[N, D, x, y, z]` to logits `[N, K, X, Y, Z]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hid, hr = config.hidden, config.head
        self.add_module("in", Pointwise(config.features, hid))  # "in" is a keyword of Python
        self.res3 = Residual(nn.Conv3d(hid, hid, 3, padding=1), nn.Conv3d(hid, hid, 3, padding=1), activate=True)
        self.res1 = Residual(Pointwise(hid, hid), Pointwise(hid, hid), activate=True)
        self.up = nn.ConvTranspose3d(hid, hr, 2, stride=2)
        self.head = Head(hr, config.classes)

    def forward(self, z: Tensor) -> Tensor:
        # Not by get_submodule, for which torch.compile writes the name as an attribute.
        x = lrelu(self._modules["in"](z))
        return self.head(lrelu(self.up(self.res1(self.res3(x)))))


@dataclass
class Output:
    """Logits `[B, T, X, Y, Z, K]` and the distributions of the six planes in the order of PLANES."""

    logits: Tensor
    mu: list[Tensor]
    logvar: list[Tensor]


class Sep4d(nn.Module):
    """The whole model: labels `[B, T, X, Y, Z]` to logits `[B, T, X, Y, Z, K]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.extractor = Extractor(config)
        self.planes = PlanarFactorisation(config.made_of)
        self.distributions = nn.ModuleDict({plane: Distribution(config.made_of, config.latent) for plane in PLANES})
        self.blocks = nn.ModuleDict({plane: PlaneBlock(config.latent, config.features) for plane in PLANES})
        self.fusion = Fusion(config.features)
        self.decoder = Decoder(config)

    def forward(self, labels: Tensor, noise: Noise | None = None) -> Output:
        """Samples the planes with `noise`; without it (evaluation) the means are used."""
        batch = labels.shape[:2]
        s = self.extractor(labels.flatten(0, 1).long()).unflatten(0, batch).movedim(2, 1)
        planes = self.planes(s)
        mu, logvar, features = [], [], {}
        for k, plane in enumerate(PLANES):
            m, v = self.distributions[plane](planes[plane]).chunk(2, 1)
            sample = m if noise is None else m + noise(k, m) * (v / 2).exp()
            features[plane] = self.blocks[plane](sample)
            mu.append(m)
            logvar.append(v)
        z = self.fusion(features)
        logits = self.decoder(z.movedim(2, 1).flatten(0, 1))
        return Output(logits.movedim(1, -1).unflatten(0, batch), mu, logvar)


def load_checkpoint(path: str | Path) -> tuple[Sep4d, dict]:
    """Reads a checkpoint of the Rust program: the model, and the run's configuration (empty if the file has none)."""
    config, tensors, run = read_checkpoint(path)
    if run.get("model", {}).get("align", "none") != "none":
        raise ValueError(f"{path}: its frames are aligned; variants_torch.load_aligned reads it")
    model = Sep4d(config)
    model.load_state_dict(tensors)
    return model, run


def read_checkpoint(path: str | Path) -> tuple[Config, dict[str, Tensor], dict]:
    """The sizes of a checkpoint's model, its tensors, and the run's configuration.

    The sizes are read off the tensors' shapes, so the configuration need not name them.
    """
    from safetensors import safe_open  # here, so that the model itself needs nothing but PyTorch

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if metadata.get("format_version", "1") != "1":
        raise ValueError(f"{path}: format version {metadata['format_version']} is not known, only 1 is")
    config = Config(
        classes=tensors["extractor.embedding.weight"].shape[0],
        latent=tensors["blocks.xy.skip.weight"].shape[1],
        features=tensors["blocks.xy.skip.weight"].shape[0],
        hidden=tensors["decoder.in.weight"].shape[0],
        head=tensors["decoder.head.mix.weight"].shape[0],
        frame_features=tensors["extractor.out.weight"].shape[0],
    )
    return config, tensors, tomllib.loads(metadata.get("config", ""))
