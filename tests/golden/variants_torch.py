"""The variants of SEP-4D in plain PyTorch, written from the section "Variants" of docs/model.md alone.

The letters are those of `sep4d_torch.py`; c is the channels of a latent that is no set of planes, h `config.hidden`.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sep4d_torch import (
    PLANES,
    Config,
    Decoder,
    Distribution,
    Extractor,
    Fusion,
    Mlp,
    Noise,
    Output,
    PlanarFactorisation,
    PlaneBlock,
    Pointwise,
    Residual,
    lrelu,
)

ENCODERS = ("planes", "conv3d_se", "bev")


def repeated(planes: dict[str, Tensor]) -> Tensor:
    """The six planes in the order of PLANES, each repeated along the axes that it lacks: `[B, 6, D, T, x, y, z]`."""
    spread = [planes[name][..., *(slice(None) if axis in name else None for axis in "txyz")] for name in PLANES]
    return torch.stack(torch.broadcast_tensors(*spread), 1)


class ConcatFusion(nn.Module):
    """A linear layer on the six planes, one after the other."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out = Pointwise(len(PLANES) * features, features)

    def forward(self, planes: dict[str, Tensor]) -> Tensor:
        return self.out(repeated(planes).flatten(1, 2))


class Conv1dFusion(nn.Module):
    """Two convolutions along the row of the six planes, of kernel 3 and, over all that is left, 6."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(features, features, 3, padding=1)
        self.out = nn.Conv1d(features, features, len(PLANES))

    def forward(self, planes: dict[str, Tensor]) -> Tensor:
        rows = repeated(planes).movedim((2, 1), (-2, -1))  # [B, T, x, y, z, D, 6]
        z = self.out(lrelu(self.along(rows.flatten(0, 4))))
        return z.squeeze(-1).unflatten(0, rows.shape[:5]).movedim(-1, 1)


class MlpFusion(Mlp):
    """Two linear layers on the six planes, one after the other."""

    def __init__(self, features: int) -> None:
        super().__init__(len(PLANES) * features, 2 * features, features)

    def forward(self, planes: dict[str, Tensor]) -> Tensor:
        return super().forward(repeated(planes).flatten(1, 2))


class AveragingFusion(nn.Module):
    """The planes' mean times the root of their number."""

    def __init__(self, _features: int) -> None:
        super().__init__()

    def forward(self, planes: dict[str, Tensor]) -> Tensor:
        return repeated(planes).mean(1) * math.sqrt(len(PLANES))


class DynamicFusion(nn.Module):
    """A mean of the planes weighted by the softmax of one score per plane and place."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scores = nn.ModuleDict({plane: Pointwise(features, 1) for plane in PLANES})

    def forward(self, planes: dict[str, Tensor]) -> Tensor:
        weights = repeated({plane: self.scores[plane](planes[plane]) for plane in PLANES}).softmax(1)
        return (weights * repeated(planes)).sum(1)


FUSIONS = {
    "sep": Fusion,
    "concat": ConcatFusion,
    "conv1d": Conv1dFusion,
    "mlp": MlpFusion,
    "averaging": AveragingFusion,
    "dynamic": DynamicFusion,
}


class Gaussian(Pointwise):
    """A linear layer to c means and c log variances, which start like those of a plane's `Distribution`."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, 2 * channels)
        with torch.no_grad():
            self.weight[channels:] *= 0.1
            self.bias[channels:] = -4


class Volume(nn.Module):
    """The encoder `conv3d_se` after the extractor, and its way back: a latent `[N, c, x/2, y/2, z/2]` of each frame."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        wide = 2 * latent
        self.down = nn.Conv3d(latent, wide, 2, stride=2)
        self.res = Residual(nn.Conv3d(wide, wide, 3, padding=1), nn.Conv3d(wide, wide, 3, padding=1), activate=False)
        self.squeeze = Mlp(wide, latent, wide)
        self.distribution = Gaussian(wide, channels)
        self.up = nn.ConvTranspose3d(channels, latent, 2, stride=2)

    def encode(self, s: Tensor) -> Tensor:
        """Features `[N, C, x, y, z]` to mean and log variance, stacked `[N, 2c, x/2, y/2, z/2]`."""
        v = lrelu(self.res(F.instance_norm(self.down(s))))
        return self.distribution(v * self.squeeze(v.mean((2, 3, 4), keepdim=True)).sigmoid())

    def decode(self, sample: Tensor) -> Tensor:
        """A sample to what the decoder takes, `[N, C, x, y, z]`."""
        return self.up(sample)


class Cells(nn.Module):
    """What `bev` has of the extractor: labels of a frame `[N, X, Y, Z]` to `[N, 32, x, y, z]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.classes, 4)
        self.down = nn.Conv3d(4, 32, 2, stride=2)

    def forward(self, labels: Tensor) -> Tensor:
        return F.instance_norm(self.down(self.embedding(labels).movedim(-1, 1)))


class BirdsEyeView(nn.Module):
    """The encoder `bev` after its cells, and its way back: a latent `[N, c, x/2, y/2]` of each frame."""

    def __init__(self, config: Config, height: int, channels: int) -> None:
        super().__init__()
        hid = config.hidden
        self.height = height
        self.add_module("in", Pointwise(32 * height, hid))  # "in" is a keyword of Python
        self.res1 = self.residual(hid)
        self.down = nn.Conv2d(hid, hid, 2, stride=2)
        self.res2 = self.residual(hid)
        self.distribution = Gaussian(hid, channels)
        self.expand = Pointwise(channels, hid)
        self.res3 = self.residual(hid)
        self.up = nn.ConvTranspose2d(hid, hid, 2, stride=2)
        self.res4 = self.residual(hid)
        self.out = Pointwise(hid, height * config.features)

    @staticmethod
    def residual(hid: int) -> Residual:
        """A residual block of h channels on the map."""
        return Residual(nn.Conv2d(hid, hid, 3, padding=1), nn.Conv2d(hid, hid, 3, padding=1), activate=True)

    def encode(self, cells: Tensor) -> Tensor:
        """Cells `[N, 32, x, y, z]` to mean and log variance, stacked `[N, 2c, x/2, y/2]`."""
        columns = cells.movedim(-1, 1).flatten(1, 2)  # channel 32 z + i of [N, 32 z, x, y] is channel i of cell z
        a = self.res1(lrelu(self._modules["in"](columns)))
        return self.distribution(self.res2(lrelu(F.instance_norm(self.down(a)))))

    def decode(self, sample: Tensor) -> Tensor:
        """A sample to what the decoder takes, `[N, D, x, y, z]`."""
        d = self.res3(lrelu(self.expand(sample)))
        columns = self.out(self.res4(lrelu(self.up(d))))
        return columns.unflatten(1, (self.height, -1)).movedim(1, -1)


def latent_channels(latent: int, shape: tuple[int, int, int, int], encoder: str) -> int:
    """The largest c, but at least 1, with which the latent has no more numbers than the planes of C channels have."""
    t, x, y, z = shape[0], *(n // 2 for n in shape[1:])
    planes = latent * (x * y + x * z + y * z + t * (x + y + z))
    cells = t * (x // 2) * (y // 2) * (z // 2 if encoder == "conv3d_se" else 1)
    return max(1, planes // cells)


class Sep4dVariant(nn.Module):
    """The model with another fusion or another encoder: labels `[B, T, X, Y, Z]` to logits `[B, T, X, Y, Z, K]`.

    `shape` is (T, X, Y, Z), on which the weights of `conv3d_se` (where `volume_channels` is 0) and of `bev` depend.
    These two know no fusion.
    """

    def __init__(
        self,
        config: Config,
        fusion: str = "sep",
        encoder: str = "planes",
        shape: tuple[int, int, int, int] | None = None,
        volume_channels: int = 0,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS or encoder not in ENCODERS:
            raise ValueError(f"no such variant: fusion {fusion}, encoder {encoder}")
        if encoder != "planes":
            if fusion != "sep":
                raise ValueError(f"the encoder {encoder} has no fusion")
            if shape is None:
                raise ValueError(f"the encoder {encoder} needs the shape of a clip")
            halved = shape[1:] if encoder == "conv3d_se" else shape[1:3]
            if any(n % 4 for n in halved) or shape[3] % 2:
                raise ValueError(f"{encoder} cannot halve the grid {shape[1:]} twice")
        self.config, self.encoder = config, encoder
        decoder = config
        if encoder == "planes":
            self.extractor = Extractor(config)
            self.planes = PlanarFactorisation(config.latent)
            self.distributions = nn.ModuleDict({plane: Distribution(config.latent) for plane in PLANES})
            self.blocks = nn.ModuleDict({plane: PlaneBlock(config.latent, config.features) for plane in PLANES})
            self.fusion = FUSIONS[fusion](config.features)
        else:
            channels = volume_channels or latent_channels(config.latent, shape, encoder)
            if encoder == "conv3d_se":
                self.extractor = Extractor(config)
                self.volume = Volume(config.latent, channels)
                decoder = replace(config, features=config.latent)
            else:
                self.extractor = Cells(config)
                self.bev = BirdsEyeView(config, shape[3] // 2, channels)
        self.decoder = Decoder(decoder)

    def forward(self, labels: Tensor, noise: Noise | None = None) -> Output:
        """Samples the latent with `noise`; without it (evaluation) the means are used."""
        batch = labels.shape[:2]
        s = self.extractor(labels.flatten(0, 1).long())
        mu, logvar, samples = [], [], []
        for k, distribution in enumerate(self.encode(s, batch)):
            m, v = distribution.chunk(2, 1)
            samples.append(m if noise is None else m + noise(k, m) * (v / 2).exp())
            mu.append(m)
            logvar.append(v)
        logits = self.decoder(self.decode(samples))
        return Output(logits.movedim(1, -1).unflatten(0, batch), mu, logvar)

    def encode(self, s: Tensor, batch: torch.Size) -> list[Tensor]:
        """The extractor's features `[N, ., x, y, z]` to mean and log variance, stacked, of all that is sampled.

        These are the six planes, or one latent `[B, 2c, T, ...]`.
        """
        if self.encoder == "planes":
            planes = self.planes(s.unflatten(0, batch).movedim(2, 1))
            return [self.distributions[plane](planes[plane]) for plane in PLANES]
        coder = self.volume if self.encoder == "conv3d_se" else self.bev
        return [coder.encode(s).unflatten(0, batch).movedim(2, 1)]

    def decode(self, samples: list[Tensor]) -> Tensor:
        """What was sampled to the decoder's input `[N, ., x, y, z]`."""
        if self.encoder == "planes":
            z = self.fusion({plane: self.blocks[plane](s) for plane, s in zip(PLANES, samples, strict=True)})
            return z.movedim(2, 1).flatten(0, 1)
        coder = self.volume if self.encoder == "conv3d_se" else self.bev
        return coder.decode(samples[0].movedim(2, 1).flatten(0, 1))
