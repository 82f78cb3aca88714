"""Trains the PyTorch SEP-4D on a data set in CarlaSC's layout: the peer for our accuracy and speed.

Example: python train.py DATA --frames 4 --crop 64 64 8 --preset demo --steps 300 --learning-rate 3e-3
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from losses import CARLASC_MAP, carlasc_class_weights, training_losses
from sep4d_torch import PRESETS, Sep4d

GRID = (128, 128, 8)
FREE = 0


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


@torch.no_grad()
def held_out(model: Sep4d, data: Sequences, device: str) -> tuple[float, float]:
    """mIoU over the classes 1.. that occur in the ground truth, and IoU of occupied against free; unobserved masked."""
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
    sizes = {name: value for name in asdict(PRESETS["paper"]) if (value := getattr(arguments, name, None))}
    model = Sep4d(replace(PRESETS[arguments.preset], **sizes)).to(device)
    print(model.config, sum(parameter.numel() for parameter in model.parameters()), "parameters")
    class_weights = carlasc_class_weights().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=arguments.learning_rate)
    milestones = [steps * percent // 100 for percent in (50, 60, 70, 80, 90)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.7)

    times = []
    for step in range(steps):
        windows = torch.randint(len(training.windows), (arguments.batch,)).tolist()
        labels = training.batch(windows)[0].to(device)
        started = time.perf_counter()
        output = model(labels, lambda _k, mean: torch.randn_like(mean))
        losses = training_losses(output.logits, labels, output.mu, output.logvar, class_weights)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        schedule.step()
        total = losses.total.item()  # waits for the device
        times.append(time.perf_counter() - started)
        if step % 10 == 0 or step == steps - 1:
            parts = f"ce {losses.ce:.4f} lovasz {losses.lovasz:.4f} kl {losses.kl:.3f}"
            print(f"step {step} loss {total:.4f} {parts} {times[-1] * 1e3:.0f} ms", flush=True)
    print(f"median step {np.median(times) * 1e3:.1f} ms")
    miou, iou = held_out(model, test, device)
    print(f"held out, {len(test.windows)} windows: mIoU {100 * miou:.1f} IoU {100 * iou:.1f}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds Cartesian/{Train,Test}")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--crop", type=int, nargs=3, default=GRID, metavar=("X", "Y", "Z"))
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    for name, value in asdict(PRESETS["paper"]).items():
        if name != "classes":
            parser.add_argument(f"--{name}", type=int, help=f"overrides the preset (paper: {value})")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
