"""Writes `resample.safetensors`: PyTorch's figures of volumes that are read along affine maps of their cells.

Everything is computed in f64 from inputs rounded to f32, and stored as f32. Volumes are `[B, T, C, X, Y, Z]`.
"""

import platform
from math import radians
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

TARGET = Path(__file__).parent / "resample.safetensors"
SEED, UNSEEN = 13, 16.0
BATCH, FRAMES, CHANNELS = 2, 3, 4
CANONICAL, FRAME, EDGES = (8, 7, 4), (6, 5, 4), (0.4, 0.4, 0.2)
# Degrees about z, y and x, and metres, of each frame.
POSES = [
    [((25, 0, 0), (0.1, -0.2, 0.0)), ((180, 0, 0), (0.0, 0.0, 0.0)), ((-70, 4, -3), (0.5, 0.1, 0.1))],
    [((5, -8, 2), (0.0, 0.0, -0.3)), ((140, 2, 2), (-1.1, 0.3, 0.0)), ((90, 0, 0), (9.0, 0.0, 0.0))],
]


def turn(axis: int, degrees: float) -> Tensor:
    """A rotation about one axis."""
    angle = torch.tensor(radians(degrees), dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i] = matrix[j, j] = torch.cos(angle)
    sign = -1.0 if axis == 1 else 1.0
    matrix[i, j], matrix[j, i] = -sign * torch.sin(angle), sign * torch.sin(angle)
    return matrix


def to_metres(size: tuple[int, ...]) -> Tensor:
    """The 4x4 matrix from cells to metres from the middle of a grid."""
    edges = torch.tensor(EDGES, dtype=torch.float64)
    matrix = torch.diag(torch.cat([edges, edges.new_ones(1)]))
    matrix[:3, 3] = -edges * (torch.tensor(size, dtype=torch.float64) - 1) / 2
    return matrix


def motion() -> Tensor:
    """[B, T, 24] in f32: the maps from the canonical grid to each frame's and back."""
    maps = []
    for angles, shift in (pose for sequence in POSES for pose in sequence):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = turn(2, angles[0]) @ turn(1, angles[1]) @ turn(0, angles[2])
        pose[:3, 3] = torch.tensor(shift, dtype=torch.float64)
        there = torch.linalg.inv(to_metres(FRAME)) @ pose @ to_metres(CANONICAL)
        maps.append(torch.stack([there[:3], torch.linalg.inv(there)[:3]]).flatten())
    return torch.stack(maps).reshape(BATCH, FRAMES, 24).float()


def sampled(x: Tensor, maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """`x` [B, S, C, X, Y, Z] at the places to which `maps` [B, T, 3, 4] put the cells of a grid of `size`."""
    cells = torch.cartesian_prod(*(torch.arange(extent, dtype=torch.float64) for extent in size))
    places = torch.einsum("btij,pj->btpi", maps, torch.cat([cells, torch.ones(len(cells), 1, dtype=torch.float64)], 1))
    extents = torch.tensor(x.shape[3:], dtype=torch.float64)
    # The first coordinate is that of the last axis.
    grid = (2 * places / (extents - 1) - 1).flip(-1).reshape(BATCH * FRAMES, *size, 3)
    volumes = x.expand(BATCH, FRAMES, *x.shape[2:]).flatten(0, 1)
    return F.grid_sample(volumes, grid, align_corners=True).unflatten(0, (BATCH, FRAMES))


def main() -> None:
    """Records `motion`; of both directions `x`, `y`, `d_y` and `d_x`; and `only_seen.scores` with its `y`."""
    generator = torch.Generator().manual_seed(SEED)
    maps = motion()
    there, back = maps.double().unflatten(2, (2, 3, 4)).unbind(2)
    tensors = {"motion": maps}

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    # All frames, and one volume a sequence.
    for name, along, volumes, source, size in [
        ("to_canonical", there, FRAMES, FRAME, CANONICAL),
        ("to_frames", back, 1, CANONICAL, FRAME),
    ]:
        x = random(BATCH, volumes, CHANNELS, *source)
        leaf = x.double().requires_grad_()
        y = sampled(leaf, along, size)
        d_y = random(*y.shape)
        y.backward(d_y.double())
        recorded = {"x": x, "y": y.detach(), "d_y": d_y, "d_x": leaf.grad}
        tensors |= {f"{name}.{part}": value for part, value in recorded.items()}

    scores = random(BATCH, FRAMES, 1, *CANONICAL)
    seen = sampled(torch.ones(BATCH, 1, 1, *FRAME, dtype=torch.float64), there, CANONICAL)
    tensors |= {"only_seen.scores": scores, "only_seen.y": scores.double() - UNSEEN * (1 - seen)}

    stored = {key: value.float().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    metadata = {"torch": torch.__version__, "python": platform.python_version(), "seed": str(SEED)}
    save_file(stored, TARGET, metadata | {"command": "python tests/golden/make_resample.py"})
    TARGET.chmod(0o644)
    print(f"{TARGET.name}: {len(stored)} tensors, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
