"""Trains a PyTorch model on a data set in CarlaSC's layout: the peer for our accuracy and speed.

Example: python train.py DATA --frames 4 --crop 64 64 8 --preset demo --steps 300 --learning-rate 3e-3
"""

import argparse
import math
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import dynamic_city_torch
import occ_sora_torch
from dynamic_city_torch import DynamicCity
from losses import CARLASC_MAP, carlasc_class_weights, training_losses
from occ_sora_torch import OccSora
from sep4d_torch import PRESETS, Config, Sep4d

GRID = (128, 128, 8)
FREE = 0
# Sizes that the command line can override, with the models that have them and their defaults.
CONFIGS = {"sep4d": Config, "dynamic_city": dynamic_city_torch.Config, "occ_sora": occ_sora_torch.Config}
WARMUP = 200  # steps, of OccSora


class Sequences:
    """Every stride-1 window of `frames` frames of the scenes of a split, cropped around the grid's centre."""

    def __init__(self, root: Path, split: str, frames: int, crop: tuple[int, int, int]) -> None:
        self.frames = frames
        starts = [(size - kept) // 2 for size, kept in zip(GRID, crop, strict=True)]
        region = tuple(slice(start, start + kept) for start, kept in zip(starts, crop, strict=True))
        classes = np.array(CARLASC_MAP, dtype=np.uint8)
        self.scenes: list[tuple[Tensor, Tensor]] = []  # per scene labels [F, X, Y, Z] and which voxels were observed
        for folder in sorted((root / "Cartesian" / split).glob("*/cartesian/evaluation")):
            labels, observed = [], []
            for path in sorted(folder.glob("*.label")):
                labels.append(classes[np.fromfile(path, "<u4").reshape(GRID)[region]])
                observed.append(np.fromfile(path.with_suffix(".bin"), "<f4").reshape(GRID)[region] != 0)
            self.scenes.append((torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(observed))))
        self.windows = [(s, i) for s, (labels, _) in enumerate(self.scenes) for i in range(len(labels) - frames + 1)]
        if not self.windows:
            raise SystemExit(f"{root}: no window of {frames} frames in split {split}")

    def batch(self, windows: list[int]) -> tuple[Tensor, Tensor]:
        """Labels and observed masks of the windows, `[B, T, X, Y, Z]`."""
        parts = []
        for scene, start in (self.windows[i] for i in windows):
            parts.append([tensor[start : start + self.frames] for tensor in self.scenes[scene]])
        labels, observed = zip(*parts, strict=True)
        return torch.stack(labels), torch.stack(observed)


class Training:
    """A model with what its training needs: its sizes, loss, optimiser and schedule."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.name = arguments.model
        shape = (arguments.frames, *arguments.crop)
        config = PRESETS[arguments.preset] if self.name == "sep4d" else CONFIGS[self.name]()
        sizes = {field.name: getattr(arguments, field.name, None) for field in fields(config)}
        self.config = replace(config, **{name: value for name, value in sizes.items() if value is not None})
        self.class_weights = carlasc_class_weights().to(arguments.device)
        self.model: nn.Module
        if self.name == "sep4d":
            self.model = Sep4d(self.config)
        elif self.name == "dynamic_city":
            self.model = DynamicCity(self.config, shape)
        else:
            self.model = OccSora(self.config, shape[3])
        self.model.to(arguments.device)
        parameters, rate, steps = self.model.parameters(), arguments.learning_rate, arguments.steps
        if self.name == "occ_sora":
            self.clip_norm = 35.0
            self.optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
            self.schedule = lr_scheduler.LambdaLR(self.optimiser, lambda step: warm_cosine(step, steps))
        else:
            self.clip_norm = math.inf
            self.optimiser = torch.optim.Adam(parameters, lr=rate)
            milestones = [steps * percent // 100 for percent in (50, 60, 70, 80, 90)]
            self.schedule = lr_scheduler.MultiStepLR(self.optimiser, milestones, gamma=0.7)

    def losses(self, labels: Tensor) -> dict[str, Tensor]:
        """The parts of the loss, and `total`."""
        if self.name == "occ_sora":
            return occ_sora_torch.training_losses(self.model(labels), labels)
        output = self.model(labels, lambda _k, mean: torch.randn_like(mean))
        if self.name == "dynamic_city":
            return dynamic_city_torch.training_losses(output, labels, self.class_weights)
        losses = training_losses(output.logits, labels, output.mu, output.logvar, self.class_weights)
        return {"ce": losses.ce, "lovasz": losses.lovasz, "kl": losses.kl, "total": losses.total}

    def step(self, labels: Tensor) -> dict[str, Tensor]:
        """One step of the optimiser; the losses before it."""
        losses = self.losses(labels)
        self.optimiser.zero_grad()
        losses["total"].backward()
        if math.isfinite(self.clip_norm):
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        return losses


def warm_cosine(step: int, steps: int) -> float:
    """What the rate is multiplied by: it rises over the first WARMUP steps and falls along half a cosine to 0."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return (1 + math.cos(math.pi * min((step - WARMUP) / max(steps - WARMUP, 1), 1))) / 2


@torch.no_grad()
def held_out(model: nn.Module, data: Sequences, device: str) -> tuple[float, float]:
    """mIoU over the classes 1.. that occur in the ground truth, and IoU of occupied against free; unobserved masked."""
    model.eval()
    classes = model.config.classes
    confusion = torch.zeros(classes, classes, dtype=torch.long)  # [truth, prediction]
    for window in range(len(data.windows)):
        labels, observed = data.batch([window])
        predicted = model(labels.to(device)).logits.argmax(-1).cpu()
        pairs = labels[observed].long() * classes + predicted[observed]
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    hits, truth, predictions = confusion.diag(), confusion.sum(1), confusion.sum(0)
    iou = (hits / (truth + predictions - hits))[1:][truth[1:] > 0]
    occupied = confusion[1:, 1:].sum()
    return iou.mean().item(), (occupied / (confusion.sum() - confusion[FREE, FREE])).item()


def train(arguments: argparse.Namespace) -> None:
    """Trains for `steps` steps and prints losses, step time and held-out figures."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    device, steps = arguments.device, arguments.steps
    crop = tuple(arguments.crop)
    training = Sequences(arguments.data, "Train", arguments.frames, crop)
    test = Sequences(arguments.data, "Test", arguments.frames, crop)
    peer = Training(arguments)
    print(peer.config, sum(parameter.numel() for parameter in peer.model.parameters()), "parameters")

    times = []
    for step in range(steps):
        windows = torch.randint(len(training.windows), (arguments.batch,)).tolist()
        labels = training.batch(windows)[0].to(device)
        started = time.perf_counter()
        losses = peer.step(labels)
        total = losses.pop("total").item()  # waits for the device
        times.append(time.perf_counter() - started)
        if step % 10 == 0 or step == steps - 1:
            parts = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            print(f"step {step} loss {total:.4f} {parts} {times[-1] * 1e3:.0f} ms", flush=True)
    print(f"median step {np.median(times) * 1e3:.1f} ms")
    miou, iou = held_out(peer.model, test, device)
    print(f"held out, {len(test.windows)} windows: mIoU {100 * miou:.1f} IoU {100 * iou:.1f}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds Cartesian/{Train,Test}")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--crop", type=int, nargs=3, default=GRID, metavar=("X", "Y", "Z"))
    parser.add_argument("--model", choices=CONFIGS, default="sep4d")
    parser.add_argument("--preset", choices=PRESETS, default="paper", help="of sep4d's sizes")
    defaults: dict[str, list[str]] = {}
    for model, config in CONFIGS.items():
        for field in fields(config):
            defaults.setdefault(field.name, []).append(f"{model}: {field.default}")
    defaults.pop("classes")
    for name, models in defaults.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, help=f"overrides the default ({', '.join(models)})")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
