"""OccSora's 4D tokenizer in plain PyTorch, written from docs/rivals.md alone.

The letters are those of `sep4d_torch.py`; E, W, R and V are `code_features`, `width`, `blocks` and `code_channels` of
the configuration, t x y the places of the latent: an eighth of T, X and Y.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses import segmentation_losses
from sep4d_torch import Pointwise

STRIDE = 8
HEADS = 2
CE_WEIGHT = 10


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    classes: int = 11
    code_features: int = 8
    width: int = 512
    blocks: int = 4
    code_channels: int = 128
    codes: int = 512


class BatchNorm(nn.Module):
    """Batch norm of `[B, C, ...]`; without the count of batches that PyTorch's module keeps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 1e-5)


class AxisAttention(nn.Module):
    """Multi-head self-attention along one axis (its dimension in `[B, W, t, x, y]`)."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        for layer in (self.q, self.k, self.v, self.out):
            nn.init.normal_(layer.weight, std=math.sqrt(1 / width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim((1, self.dim), (-1, -2))  # [B, ., ., S, W]

        def heads(layer: nn.Linear) -> Tensor:
            return layer(x).unflatten(-1, (HEADS, -1)).transpose(-2, -3)  # [B, ., ., heads, S, W/2]

        y = F.scaled_dot_product_attention(heads(self.q), heads(self.k), heads(self.v))
        return self.out(y.transpose(-2, -3).flatten(-2)).movedim((-1, -2), (1, self.dim))


class Block(nn.Module):
    """A residual block with attention along the three axes: `[B, W, t, x, y]` to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = BatchNorm(width)
        self.conv1 = nn.Conv3d(width, width // 2, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(width // 2)
        self.conv2 = Pointwise(width // 2, width, bias=False)
        self.norm3 = BatchNorm(width)
        self.attention = nn.ModuleDict({axis: AxisAttention(width, 2 + "txy".index(axis)) for axis in "yxt"})

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv1(self.norm1(x).relu())
        z = self.conv2(self.norm2(z).relu())
        z = self.norm3(z).relu()
        return x + sum(attention(z) for attention in self.attention.values())


class Trunk(nn.Module):
    """What encoder and decoder have in common: R blocks, a norm and relu."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.blocks = [f"block{i + 1}" for i in range(config.blocks)]
        for block in self.blocks:
            self.add_module(block, Block(config.width))
        self.norm = BatchNorm(config.width)

    def trunk(self, x: Tensor) -> Tensor:
        """`[B, W, t, x, y]` to the same."""
        for block in self.blocks:
            x = self._modules[block](x)
        return self.norm(x).relu()


class Encoder(Trunk):
    """A volume of columns `[B, Z E, T, X, Y]` to `[B, V, t, x, y]`."""

    def __init__(self, config: Config, column: int) -> None:
        super().__init__(config)
        width = config.width
        self.down1 = nn.Conv3d(column, width, 4, stride=2, padding=1)
        self.down2 = nn.Conv3d(width, width, 4, stride=2, padding=1)
        self.down3 = nn.Conv3d(width, width, 4, stride=2, padding=1)
        self.conv = nn.Conv3d(width, width, 3, padding=1)
        self.out = Pointwise(width, config.code_channels)

    def forward(self, x: Tensor) -> Tensor:
        for down in (self.down1, self.down2, self.down3):
            x = down(x).relu()
        return self.out(self.trunk(self.conv(x)))


class Quantizer(nn.Module):
    """`[B, V, t, x, y]` to the same made of the nearest codes, their indices `[B, t, x, y]` and the embedding loss."""

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        self.add_module("in", Pointwise(channels, channels))  # "in" is a keyword of Python
        self.codes = nn.Parameter(torch.empty(codes, channels).uniform_(-1 / codes, 1 / codes))
        self.out = Pointwise(channels, channels)

    def distances(self, z: Tensor) -> Tensor:
        """Of `[..., V]` to each code, `[..., codes]`."""
        return torch.cdist(z.flatten(0, -2), self.codes, compute_mode="donot_use_mm_for_euclid_dist").unflatten(
            0, z.shape[:-1]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self._modules["in"](x).movedim(1, -1)
        with torch.no_grad():
            index = self.distances(z).argmin(-1)
        q = F.embedding(index, self.codes)
        loss = F.mse_loss(z, q.detach()) + F.mse_loss(q, z.detach())
        return self.out((z + (q - z).detach()).movedim(-1, 1)), index, loss


class Decoder(Trunk):
    """`[B, V, t, x, y]` to a volume of columns `[B, Z E, T, X, Y]`."""

    def __init__(self, config: Config, column: int) -> None:
        super().__init__(config)
        width = config.width
        self.add_module("in", Pointwise(config.code_channels, width))  # "in" is a keyword of Python
        self.up1 = nn.ConvTranspose3d(width, width, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose3d(width, width, 4, stride=2, padding=1)
        self.up3 = nn.ConvTranspose3d(width, column, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(self._modules["in"](x))
        return self.up3(self.up2(self.up1(x).relu()).relu())


@dataclass
class Output:
    """Logits `[B, T, X, Y, Z, K]`, the codes' indices `[B, t, x, y]` and the embedding loss."""

    logits: Tensor
    codes: Tensor
    embedding: Tensor


class OccSora(nn.Module):
    """The whole model: labels `[B, T, X, Y, Z]` to logits `[B, T, X, Y, Z, K]`, for columns of `height` voxels."""

    def __init__(self, config: Config, height: int) -> None:
        super().__init__()
        if config.width % 4:
            raise ValueError(f"the width {config.width} is no multiple of 4")
        self.config = config
        column = height * config.code_features
        self.embedding = nn.Embedding(config.classes, config.code_features)
        self.encoder = Encoder(config, column)
        self.quantizer = Quantizer(config.code_channels, config.codes)
        self.decoder = Decoder(config, column)

    def forward(self, labels: Tensor) -> Output:
        """In evaluation mode the batch norms take their running statistics."""
        frames, grid = labels.shape[1], labels.shape[2:]
        if any(n % STRIDE for n in grid[:2]):
            raise ValueError(f"{tuple(grid)} cannot be divided by {STRIDE} along x and y")
        padding = labels[:, -1:].expand(-1, -frames % STRIDE, *grid)
        columns = self.embedding(torch.cat([labels, padding], 1).long()).flatten(-2)  # [B, T, X, Y, Z E]
        y, codes, loss = self.quantizer(self.encoder(columns.movedim(-1, 1)))
        voxels = self.decoder(y)[:, :, :frames].movedim(1, -1).unflatten(-1, (grid[2], -1))
        return Output(voxels @ self.embedding.weight.T, codes, loss)


def training_losses(output: Output, labels: Tensor, class_weights: Tensor | None = None) -> dict[str, Tensor]:
    """The parts of the training loss, and `total`, `10 CE + Lovasz + embedding`."""
    ce, lovasz = segmentation_losses(output.logits, labels, class_weights)
    total = CE_WEIGHT * ce + lovasz + output.embedding
    return {"ce": ce, "lovasz": lovasz, "embedding": output.embedding, "total": total}
