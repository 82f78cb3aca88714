"""The variants of SEP-4D in plain PyTorch, written from the section "Variants" of docs/model.md alone.

The letters are those of `sep4d_torch.py`; c is the channels of a latent that is no set of planes, h `config.hidden`.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sep4d_torch import (
    PLANES,
    TEMPORAL,
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
    read_checkpoint,
)

SEEN = 16  # what a score loses at a place that its frame has not seen
ENCODERS = ("planes", "conv3d_se", "bev")


def repeated(planes: dict[str, Tensor]) -> Tensor:
    """The six planes in the order of PLANES, each repeated along the axes that it lacks: `[B, 6, D, T, x, y, z]`."""
    spread = [planes[name][..., *(slice(None) if axis in name else None for axis in "txyz")] for name in PLANES]
    return torch.stack(torch.broadcast_tensors(*spread), 1)


def resample(x: Tensor, maps: Tensor, extents: tuple[int, int, int]) -> Tensor:
    """What lies at `maps [B, T, 3, 4]` of each cell of a grid: `x [B, C, S, x, y, z]`, S = T or 1, to `[B, C, T, *extents]`.

    Trilinear; beyond the grid there are zeros.
    """
    batch, channels, steps = x.shape[:3]
    frames = maps.shape[1]
    cells = torch.stack(torch.meshgrid(*(torch.arange(n).to(x) for n in extents), indexing="ij"), -1)
    places = torch.einsum("btij,uvwj->btuvwi", maps[..., :3], cells) + maps[:, :, None, None, None, :, 3]
    size = torch.tensor(x.shape[3:]).to(x)
    grid = (2 * places / (size - 1) - 1).flip(-1)  # from -1 to 1 between the outermost centres; z before y before x
    volumes = x.movedim(2, 1).expand(-1, frames if steps == 1 else -1, -1, -1, -1, -1).flatten(0, 1)
    found = F.grid_sample(volumes, grid.flatten(0, 1), padding_mode="zeros", align_corners=True)
    return found.unflatten(0, (batch, frames)).movedim(2, 1)


class AlignedFactorisation(PlanarFactorisation):
    """PF whose pool over t takes the features from where the frames meet, each where it has seen something."""

    def forward(self, s: Tensor, maps: Tensor, canonical: tuple[int, int, int]) -> dict[str, Tensor]:
        aligned = resample(s, maps, canonical)
        seen = resample(torch.ones_like(s[:, :1]), maps, canonical)
        values, scores = self.volume(aligned)[0]
        v0 = self.pool(values, scores - SEEN * (1 - seen), "txyz", "t")
        tx, ty, tz = (
            self.pool(*volume, "txyz", pooled)
            for pooled, volume in zip(self.VOLUME_POOLS[1:], self.volume(s)[1:], strict=True)
        )
        xy, xz, yz = (
            self.pool(*volume, "xyz", pooled)
            for pooled, volume in zip(self.STATIC_POOLS, self.static(v0), strict=True)
        )
        return {"xy": xy, "xz": xz, "yz": yz, "tx": tx, "ty": ty, "tz": tz}


class AlignedFusion(Fusion):
    """g_theta whose still volume and gates each frame sees where they are to it."""

    def forward(self, planes: dict[str, Tensor], maps: Tensor) -> Tensor:
        v = (
            torch.einsum("bcz,bcxy->bcxyz", self.attention(planes, "xy"), planes["xy"])
            + torch.einsum("bcy,bcxz->bcxyz", self.attention(planes, "xz"), planes["xz"])
            + torch.einsum("bcx,bcyz->bcxyz", self.attention(planes, "yz"), planes["yz"])
        ) / math.sqrt(3)
        cells = tuple(planes[plane].shape[3] for plane in TEMPORAL)
        gates = resample(2 * self.psi(v).sigmoid().unsqueeze(2), maps, cells).chunk(3, 1)
        v = resample(v.unsqueeze(2), maps, cells)
        w = (
            gates[0] * planes["tx"][..., None, None]
            + gates[1] * planes["ty"][..., None, :, None]
            + gates[2] * planes["tz"][..., None, None, :]
        ) / math.sqrt(3)
        return self.mlp.out(lrelu(self.mlp.static(v) + self.mlp.dynamic(w)))


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

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        wide = 2 * features
        self.down = nn.Conv3d(features, wide, 2, stride=2)
        self.res = Residual(nn.Conv3d(wide, wide, 3, padding=1), nn.Conv3d(wide, wide, 3, padding=1), activate=False)
        self.squeeze = Mlp(wide, features, wide)
        self.distribution = Gaussian(wide, channels)
        self.up = nn.ConvTranspose3d(channels, features, 2, stride=2)

    def encode(self, s: Tensor) -> Tensor:
        """Features `[N, F, x, y, z]` to mean and log variance, stacked `[N, 2c, x/2, y/2, z/2]`."""
        v = lrelu(self.res(F.instance_norm(self.down(s))))
        return self.distribution(v * self.squeeze(v.mean((2, 3, 4), keepdim=True)).sigmoid())

    def decode(self, sample: Tensor) -> Tensor:
        """A sample to what the decoder takes, `[N, F, x, y, z]`."""
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
    These two know no fusion. With `margin` frames are aligned in a grid so many cells larger at either end of x and y, by
    `motion [B, T, 24]`: the maps from that grid into each frame's and back, 3x4 row by row.
    """

    def __init__(
        self,
        config: Config,
        fusion: str = "sep",
        encoder: str = "planes",
        shape: tuple[int, int, int, int] | None = None,
        volume_channels: int = 0,
        margin: int | None = None,
        motion: Tensor | None = None,
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
        self.config, self.encoder, self.margin = config, encoder, margin
        self.register_buffer("motion", motion, persistent=False)
        decoder = config
        if encoder == "planes":
            self.extractor = Extractor(config)
            aligned = margin is not None
            self.planes = (AlignedFactorisation if aligned else PlanarFactorisation)(config.made_of)
            self.distributions = nn.ModuleDict(
                {plane: Distribution(config.made_of, config.latent) for plane in PLANES}
            )
            self.blocks = nn.ModuleDict({plane: PlaneBlock(config.latent, config.features) for plane in PLANES})
            self.fusion = (AlignedFusion if aligned else FUSIONS[fusion])(config.features)
        else:
            channels = volume_channels or latent_channels(config.latent, shape, encoder)
            if encoder == "conv3d_se":
                self.extractor = Extractor(config)
                self.volume = Volume(config.made_of, channels)
                decoder = replace(config, features=config.made_of)
            else:
                self.extractor = Cells(config)
                self.bev = BirdsEyeView(config, shape[3] // 2, channels)
        self.decoder = Decoder(decoder)

    def forward(self, labels: Tensor, noise: Noise | None = None) -> Output:
        """Samples the latent with `noise`; without it (evaluation) the means are used."""
        batch = labels.shape[:2]
        s = self.extractor(labels.flatten(0, 1).long())
        mu, logvar, samples = [], [], []
        maps = (None, None) if self.motion is None else self.motion.unflatten(-1, (2, 3, 4)).unbind(2)
        for k, distribution in enumerate(self.encode(s, batch, maps[0])):
            m, v = distribution.chunk(2, 1)
            samples.append(m if noise is None else m + noise(k, m) * (v / 2).exp())
            mu.append(m)
            logvar.append(v)
        logits = self.decoder(self.decode(samples, maps[1]))
        return Output(logits.movedim(1, -1).unflatten(0, batch), mu, logvar)

    def encode(self, s: Tensor, batch: torch.Size, maps: Tensor | None) -> list[Tensor]:
        """The extractor's features `[N, ., x, y, z]` to mean and log variance, stacked, of all that is sampled.

        These are the six planes, or one latent `[B, 2c, T, ...]`.
        """
        if self.encoder == "planes":
            s = s.unflatten(0, batch).movedim(2, 1)
            x, y, z = s.shape[3:]
            margin = self.margin
            planes = self.planes(s) if maps is None else self.planes(s, maps, (x + 2 * margin, y + 2 * margin, z))
            return [self.distributions[plane](planes[plane]) for plane in PLANES]
        coder = self.volume if self.encoder == "conv3d_se" else self.bev
        return [coder.encode(s).unflatten(0, batch).movedim(2, 1)]

    def decode(self, samples: list[Tensor], maps: Tensor | None) -> Tensor:
        """What was sampled to the decoder's input `[N, ., x, y, z]`."""
        if self.encoder == "planes":
            planes = {plane: self.blocks[plane](s) for plane, s in zip(PLANES, samples, strict=True)}
            z = self.fusion(planes) if maps is None else self.fusion(planes, maps)
            return z.movedim(2, 1).flatten(0, 1)
        coder = self.volume if self.encoder == "conv3d_se" else self.bev
        return coder.decode(samples[0].movedim(2, 1).flatten(0, 1))


def load_aligned(path: str | Path, motion: Tensor) -> tuple[Sep4dVariant, dict]:
    """Reads a checkpoint whose frames are aligned, for clips that lie as `motion [B, T, 24]` says, and the run's settings."""
    config, tensors, run = read_checkpoint(path)
    model = Sep4dVariant(config, margin=run["model"].get("margin", 0), motion=motion)
    model.load_state_dict(tensors)
    return model, run
