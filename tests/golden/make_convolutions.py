"""Writes `convolutions.safetensors`: convolutions with strides and padding, and transposed ones.

Everything is computed in f64 and stored as f32, like the figures of `make_fixtures.py`.
"""

import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

FILE = Path(__file__).parent / "convolutions.safetensors"
SEED = 5


def main() -> None:
    """Per convolution `x`, `weight` and perhaps `bias`, `y`, a given `d_y`, and the gradients of the inputs."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, Tensor] = {}

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def record(
        name: str, function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, **how: object
    ) -> None:
        inputs = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
        leaves = {part: value.double().requires_grad_() for part, value in inputs.items()}
        y = function(leaves["x"], leaves["weight"], leaves.get("bias"), **how)
        d_y = random(*y.shape)
        y.backward(d_y.double())
        recorded = inputs | {"y": y.detach().float(), "d_y": d_y}
        recorded |= {f"d_{part}": leaf.grad.float() for part, leaf in leaves.items()}
        tensors.update({f"{name}.{part}": value.contiguous() for part, value in recorded.items()})

    record("k3_p0", F.conv3d, random(2, 3, 5, 4, 6), random(5, 3, 3, 3, 3), random(5))
    record("k2_p1", F.conv3d, random(2, 4, 3, 4, 2), random(8, 4, 2, 2, 2), None, padding=1)
    record("k4_s2_p1", F.conv3d, random(2, 3, 6, 4, 8), random(5, 3, 4, 4, 4), random(5), stride=2, padding=1)
    record("k3_s2_p1", F.conv3d, random(1, 4, 5, 6, 7), random(4, 4, 3, 3, 3), None, stride=2, padding=1)
    record("k2_s2", F.conv3d, random(2, 4, 4, 6, 3), random(3, 4, 2, 2, 2), random(3), stride=2)
    record("k211_s211", F.conv3d, random(1, 3, 5, 4, 3), random(4, 3, 2, 1, 1), random(4), stride=(2, 1, 1))
    record("plane_k3_s2_p1", F.conv2d, random(2, 3, 7, 8), random(6, 3, 3, 3), random(6), stride=2, padding=1)
    up = F.conv_transpose3d
    record("transposed_k4_s2_p1", up, random(2, 5, 3, 2, 4), random(5, 3, 4, 4, 4), random(3), stride=2, padding=1)
    record("transposed_k2_s2", up, random(2, 4, 3, 2, 2), random(4, 3, 2, 2, 2), None, stride=2)
    record("transposed_k211_s211", up, random(1, 4, 3, 2, 4), random(4, 5, 2, 1, 1), random(5), stride=(2, 1, 1))
    record("transposed_k3_s1_p1", up, random(1, 3, 4, 3, 5), random(3, 4, 3, 3, 3), random(4), padding=1)
    record("transposed_k3_s2_p1", up, random(1, 3, 3, 2, 4), random(3, 4, 3, 3, 3), random(4), stride=2, padding=1)

    command = {"command": "python tests/golden/make_convolutions.py", "seed": str(SEED)}
    save_file(tensors, FILE, {"torch": torch.__version__, "python": platform.python_version()} | command)
    FILE.chmod(0o644)
    print(f"{FILE.name}: {len(tensors)} tensors, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
