"""The losses of SEP-4D: weighted cross entropy, Lovasz-softmax (exact and binned) and the KL divergence."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 1024
KL_WEIGHT = 0.005

# CarlaSC's 23 raw ids -> 11 classes, and the raw voxel counts of its training scenes (docs of the dataset).
CARLASC_MAP = [0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 2, 5, 3, 7, 3, 3, 2, 5, 3, 3, 3, 7]
CARLASC_COUNTS = [
    3763643297, 39644538, 8417042, 362221, 546581, 2265328, 3319457, 184640959, 105036782, 20811569, 9942710, 18401902,
    96415, 0, 6995101, 538555, 4313, 8965598, 66443, 3009867, 2982851, 234650, 66806621,
]  # fmt: skip


def carlasc_class_weights() -> Tensor:
    """`(max f / f_c)^(1/3)` over the mapped class frequencies of CarlaSC, `[11]` f32."""
    counts = torch.zeros(11, dtype=torch.float64)
    counts.index_add_(0, torch.tensor(CARLASC_MAP), torch.tensor(CARLASC_COUNTS, dtype=torch.float64))
    return (counts.max() / counts).pow(1 / 3).float()


def lovasz_exact(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Lovasz-softmax with the errors sorted (Berman et al. 2018): `[P, K]`, `[P]` -> mean over the classes present."""
    losses = []
    for c in labels.unique():
        foreground = (labels == c).to(probabilities.dtype)
        errors, order = (foreground - probabilities[:, c]).abs().sort(descending=True)
        foreground = foreground[order]
        total = foreground.sum()
        jaccard = 1 - (total - foreground.cumsum(0)) / (total + (1 - foreground).cumsum(0))
        losses.append(errors @ jaccard.diff(prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean()


class LovaszBinned(torch.autograd.Function):
    """Lovasz-softmax without a sort: errors are counted in 1024 bins, foreground and background apart.

    An element's slope is that of the Jaccard loss at its bin's midpoint, rescaled to the bin's exact increment.
    """

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, labels: Tensor) -> Tensor:
        classes = probabilities.shape[1]
        foreground = F.one_hot(labels, classes).bool()
        errors = torch.where(foreground, 1 - probabilities, probabilities)
        bins = (errors * BINS).long().clamp(max=BINS - 1)
        # Counts per class and bin, ordered from high error to low.
        cell = bins + BINS * torch.arange(classes, device=bins.device)
        count = [
            torch.bincount(cell[side], minlength=BINS * classes).view(classes, BINS).flip(1).to(probabilities.dtype)
            for side in (foreground, ~foreground)
        ]
        f, b = count
        f_before, b_before = f.cumsum(1) - f, b.cumsum(1) - b
        total = f.sum(1, keepdim=True)
        present = (total > 0).to(f)
        total = total.clamp(min=1)

        def jaccard(f: Tensor, b: Tensor) -> Tensor:
            return 1 - (total - f) / (total + b)

        increment = (jaccard(f_before + f, b_before + b) - jaccard(f_before, b_before)) * present
        union = total + b_before + b / 2
        slope_f = 1 / union
        slope_b = (total - f_before - f / 2) / union**2
        unscaled = f * slope_f + b * slope_b
        scale = torch.where(unscaled > 0, increment / unscaled.where(unscaled > 0, 1), 0) / present.sum()
        slope_f, slope_b = (slope_f * scale).flip(1).flatten(), (slope_b * scale).flip(1).flatten()
        ctx.save_for_backward(torch.where(foreground, -slope_f[cell], slope_b[cell]))

        midpoint = (torch.arange(BINS, device=f.device).flip(0) + 0.5).to(f) / BINS
        return (increment @ midpoint).sum() / present.sum()

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return d_loss * slopes, None


def segmentation_losses(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross entropy and Lovasz-softmax of logits `[B, T, X, Y, Z, K]` against labels `[B, T, X, Y, Z]`.

    Lovasz is that of the whole batch at once.
    """
    logits, labels = logits.flatten(0, -2), labels.flatten().long()
    ce = F.cross_entropy(logits, labels, weight=class_weights)
    return ce, LovaszBinned.apply(logits.softmax(1), labels)


def kl_divergence(mu: list[Tensor], logvar: list[Tensor]) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)), averaged over every element of all six planes."""
    m = torch.cat([plane.flatten() for plane in mu])
    v = torch.cat([plane.flatten() for plane in logvar])
    return 0.5 * (m**2 + v.exp() - 1 - v).mean()


@dataclass
class Losses:
    """The parts of the training loss; `lovasz` is the binned form."""

    ce: Tensor
    lovasz: Tensor
    kl: Tensor

    @property
    def total(self) -> Tensor:
        """`CE + Lovasz + 0.005 KL`."""
        return self.ce + self.lovasz + KL_WEIGHT * self.kl


def training_losses(
    logits: Tensor, labels: Tensor, mu: list[Tensor], logvar: list[Tensor], class_weights: Tensor
) -> Losses:
    """Loss of logits `[B, T, X, Y, Z, K]` against labels `[B, T, X, Y, Z]`."""
    return Losses(*segmentation_losses(logits, labels, class_weights), kl_divergence(mu, logvar))
