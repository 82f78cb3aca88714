"""DynamicCity's HexPlane VAE in plain PyTorch, written from docs/rivals.md alone.

The letters are those of `sep4d_torch.py`; C, Q, h, r, M, L and H are `latent`, `query`, `hidden`, `head`, `mlp`,
`depth` and `heads` of the configuration.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses import kl_divergence, segmentation_losses
from sep4d_torch import PLANES, SPATIAL, TEMPORAL, Noise, Output, Pointwise, Residual, lrelu

KL_WEIGHT = 0.0015
FREQUENCIES = (1, 2, 4)


@dataclass(frozen=True)
class Config:
    """Sizes of the model; `dropout` is in per cent."""

    classes: int = 11
    latent: int = 16
    query: int = 64
    hidden: int = 128
    head: int = 32
    mlp: int = 32
    depth: int = 2
    heads: int = 2
    dropout: int = 10


class Embedding(nn.Embedding):
    """Rows of labels `[...]`, `[..., C]`; zeros where a label is no class."""

    def forward(self, labels: Tensor) -> Tensor:
        known = labels < self.num_embeddings
        return super().forward(labels.where(known, 0)) * known.unsqueeze(-1)


class VoxelEncoder(nn.Module):
    """Embedded frames `[N, I, X, Y, Z]` to features `[N, C, x, y, z]`."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv0 = self.convolution(inputs, channels)
        self.res0 = self.residual(channels)
        self.down = nn.Conv3d(channels, channels, 2, stride=2)
        self.res1 = self.residual(channels)

    @staticmethod
    def convolution(inputs: int, outputs: int) -> nn.Conv3d:
        """Of kernel 3, padded by replicating the edge."""
        return nn.Conv3d(inputs, outputs, 3, padding=1, padding_mode="replicate")

    def residual(self, channels: int) -> Residual:
        """A residual block whose branch ends with its norm."""
        return Residual(self.convolution(channels, channels), self.convolution(channels, channels), activate=False)

    def forward(self, e: Tensor) -> Tensor:
        return self.res1(F.instance_norm(self.down(self.res0(self.conv0(e)))))


class TransformerLayer(nn.Module):
    """Self-attention and an MLP, each after a layer norm and added to what came in: `[P, S, C]` to the same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = config.latent
        self.heads, self.dropout = config.heads, config.dropout / 100
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, config.mlp)
        self.fc2 = nn.Linear(config.mlp, channels)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout, in training."""
        return F.dropout(x, self.dropout, self.training)

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head attention before its projection."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [P, H, S, C/H]
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return y.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.proj(self.attention(self.norm1(x))))
        return x + self.drop(self.fc2(self.drop(F.gelu(self.fc1(self.norm2(x))))))


class Projection(nn.Module):
    """A volume `[B, C, *axes]` to what keeps the axes `kept` of it, `[B, C, *kept]`.

    `sizes` are the cells along each axis.
    """

    def __init__(self, config: Config, axes: str, kept: str, sizes: dict[str, int]) -> None:
        super().__init__()
        channels = config.latent
        gone = [axis for axis in axes if axis not in kept]
        self.kept = len(kept)
        self.order = [0, *(2 + axes.index(axis) for axis in [*kept, *gone]), 1]
        tokens = 1
        for axis in gone:
            tokens *= sizes[axis]
        self.token = nn.Parameter(torch.randn(channels))
        self.positions = nn.Parameter(torch.randn(tokens + 1, channels))
        self.layers = [f"layer{i + 1}" for i in range(config.depth)]
        for layer in self.layers:
            self.add_module(layer, TransformerLayer(config))
        self.out1 = nn.Linear(channels, channels)
        self.out2 = nn.Linear(channels, channels)

    def forward(self, volume: Tensor) -> Tensor:
        cells = volume.permute(self.order)  # [B, *kept, *gone, C]
        batch = cells.shape[: 1 + self.kept]
        x = cells.flatten(0, self.kept).flatten(1, -2)
        x = torch.cat([x, self.token.expand(len(x), 1, -1)], 1) + self.positions
        for layer in self.layers:
            x = self._modules[layer](x)
        return self.out2(self.out1(x[:, 0]).tanh()).unflatten(0, batch).movedim(-1, 1)


class Encoder(nn.Module):
    """Labels `[B, T, X, Y, Z]` to the six planes, of which tx, ty and tz have T/2 places along t."""

    def __init__(self, config: Config, shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        channels, frames = config.latent, shape[0]
        sizes = {"t": frames} | {axis: n // 2 for axis, n in zip("xyz", shape[1:], strict=True)}
        self.embedding = Embedding(config.classes, channels)
        self.space = VoxelEncoder(channels, channels)
        self.time = VoxelEncoder(channels + frames, channels)
        axes = {"xyz": "txyz", **dict.fromkeys(SPATIAL, "xyz"), **dict.fromkeys(TEMPORAL, "txyz")}
        self.projection = nn.ModuleDict({kept: Projection(config, axes[kept], kept, sizes) for kept in axes})
        self.down = nn.ModuleDict({plane: nn.Conv2d(channels, channels, (2, 1), stride=(2, 1)) for plane in TEMPORAL})

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        batch, grid = labels.shape[:2], labels.shape[2:]
        e = self.embedding(labels).movedim(-1, 2)  # [B, T, C, X, Y, Z]
        number = torch.eye(batch[1], device=e.device, dtype=e.dtype)[..., None, None, None].expand(*batch, -1, *grid)

        def frames(encoder: VoxelEncoder, x: Tensor) -> Tensor:
            y = encoder(x.flatten(0, 1))
            if y.requires_grad:
                # The backward pass of torch's instance norm is wrong for gradients that lie channels last (2.15, on CPUs).
                y.register_hook(Tensor.contiguous)
            return y.unflatten(0, batch).movedim(2, 1)  # [B, C, T, x, y, z]

        still = self.projection["xyz"](frames(self.space, e))
        moving = frames(self.time, torch.cat([e, number], 2))
        spatial = {plane: self.projection[plane](still) for plane in SPATIAL}
        return spatial | {plane: self.down[plane](self.projection[plane](moving)) for plane in TEMPORAL}


class PlaneBlock(nn.Module):
    """`conv2(silu(IN(conv1(x)))) + skip(x)`, where IN has an affine part: `[B, C, ., .]` to `[B, Q, ., .]`."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, padding=1)
        self.norm = nn.InstanceNorm2d(features, eps=1e-6, affine=True)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        self.skip = Pointwise(channels, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.silu(self.norm(self.conv1(x)))) + self.skip(x)


class PlaneUp(nn.Module):
    """A transposed convolution with kernel and stride (`factor`, 1), and a convolution."""

    def __init__(self, features: int, factor: int) -> None:
        super().__init__()
        self.transposed = nn.ConvTranspose2d(features, features, (factor, 1), stride=(factor, 1))
        self.conv = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return lrelu(F.instance_norm(self.conv(lrelu(F.instance_norm(self.transposed(x))))))


class Head(nn.Module):
    """`out(lrelu(IN(hidden(x))))`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.hidden = Pointwise(channels, classes)
        self.out = Pointwise(classes, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(lrelu(F.instance_norm(self.hidden(x))))


def coordinates(batch: torch.Size, grid: torch.Size, like: Tensor) -> Tensor:
    """Sines, then cosines of f t, f x, f y and f z for f = 1, 2, 4 in turn: `[N, 24, X, Y, Z]`."""
    axes = [torch.arange(n, dtype=torch.float64, device=like.device) for n in (batch[1], *grid)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), 1)  # [T, 4, X, Y, Z]
    code = torch.cat([wave(f * places) for f in FREQUENCIES for wave in (torch.sin, torch.cos)], 1)
    return code.to(like).repeat(batch[0], 1, 1, 1, 1)


class Decoder(nn.Module):
    """The six planes' samples to logits `[N, K, X, Y, Z]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        query, hid, head = config.query, config.hidden, config.head
        self.blocks = nn.ModuleDict({plane: PlaneBlock(config.latent, query) for plane in PLANES})
        self.up = nn.ModuleDict({plane: PlaneUp(query, 2 if plane in TEMPORAL else 1) for plane in PLANES})
        self.add_module("in", Pointwise(query, hid))  # "in" is a keyword of Python
        self.res3 = Residual(nn.Conv3d(hid, hid, 3, padding=1), nn.Conv3d(hid, hid, 3, padding=1), activate=True)
        self.res1 = Residual(Pointwise(hid, hid), Pointwise(hid, hid), activate=True)
        self.expand = nn.ConvTranspose3d(hid, head, 2, stride=2)
        self.head = Head(head + 8 * len(FREQUENCIES), config.classes)

    def forward(self, samples: dict[str, Tensor], batch: torch.Size) -> Tensor:
        product = 1
        for plane in PLANES:
            features = self.up[plane](self.blocks[plane](samples[plane]))
            product = product * features[..., *(slice(None) if axis in plane else None for axis in "txyz")]
        a = lrelu(self._modules["in"](product.movedim(2, 1).flatten(0, 1)))
        f = self.expand(self.res1(self.res3(a)))
        return self.head(torch.cat([f, coordinates(batch, f.shape[2:], f)], 1))


class DynamicCity(nn.Module):
    """The whole model: labels `[B, T, X, Y, Z]` to logits `[B, T, X, Y, Z, K]`.

    `shape` is (T, X, Y, Z), on which the weights depend.
    """

    def __init__(self, config: Config, shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        if any(n % 2 for n in shape):
            raise ValueError(f"{shape} cannot be halved")
        if config.latent % config.heads:
            raise ValueError(f"{config.latent} channels cannot be shared by {config.heads} heads")
        self.config = config
        self.encoder = Encoder(config, shape)
        self.distributions = nn.ModuleDict({plane: Pointwise(config.latent, 2 * config.latent) for plane in PLANES})
        self.decoder = Decoder(config)

    def forward(self, labels: Tensor, noise: Noise | None = None) -> Output:
        """Samples the planes with `noise`; without it (evaluation) the means are used."""
        planes = self.encoder(labels.long())
        mu, logvar, samples = [], [], {}
        for k, plane in enumerate(PLANES):
            m, v = self.distributions[plane](planes[plane]).chunk(2, 1)
            samples[plane] = m if noise is None else m + noise(k, m) * (v / 2).exp()
            mu.append(m)
            logvar.append(v)
        logits = self.decoder(samples, labels.shape[:2])
        return Output(logits.movedim(1, -1).unflatten(0, labels.shape[:2]), mu, logvar)


def training_losses(output: Output, labels: Tensor, class_weights: Tensor) -> dict[str, Tensor]:
    """The parts of the training loss, and `total`, `CE + Lovasz + 0.0015 KL`."""
    ce, lovasz = segmentation_losses(output.logits, labels, class_weights)
    kl = kl_divergence(output.mu, output.logvar)
    return {"ce": ce, "lovasz": lovasz, "kl": kl, "total": ce + lovasz + KL_WEIGHT * kl}
