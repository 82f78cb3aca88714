"""Writes `norms.safetensors`: PyTorch's figures of norms, softmax and batched matrix products.

Everything is computed in f64 from inputs rounded to f32, and stored as f32.
"""

import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

TARGET = Path(__file__).parent / "norms.safetensors"
SEED, MOMENTUM, GROUPS, EPS = 11, 0.3, 3, 1e-6


def main() -> None:
    """Records per op its inputs, `y`, `d_y` and the gradient `d_<input>` of each input."""
    generator = torch.Generator().manual_seed(SEED)
    tensors: dict[str, Tensor] = {}

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def record(op: str, function: Callable[..., Tensor], **inputs: Tensor) -> None:
        leaves = {name: value.double().requires_grad_() for name, value in inputs.items()}
        y = function(**leaves)
        d_y = random(*y.shape)
        y.backward(d_y.double())
        recorded = {**inputs, "y": y.detach(), "d_y": d_y} | {f"d_{name}": leaf.grad for name, leaf in leaves.items()}
        tensors.update({f"{op}.{name}": value for name, value in recorded.items()})

    def affine(channels: int) -> dict[str, Tensor]:
        return {"weight": random(channels), "bias": random(channels)}

    record("layer_norm", lambda x, weight, bias: F.layer_norm(x, [7], weight, bias), x=random(2, 5, 7) * 2 + 1, **affine(7))
    record("softmax", lambda x: x.softmax(-1), x=random(3, 5, 9) * 3)
    record("matmul", lambda a, b: 0.25 * torch.bmm(a, b), a=random(3, 5, 7), b=random(3, 7, 6))
    record(
        "matmul_transposed",
        lambda a, b: torch.bmm(a.transpose(1, 2), b.transpose(1, 2)),
        a=random(2, 8, 5),
        b=random(2, 3, 8),
    )
    volume = random(2, 6, 5, 3, 2) * 2 + 1
    record("group_norm", lambda x, weight, bias: F.group_norm(x, GROUPS, weight, bias, EPS), x=volume, **affine(6))
    record(
        "instance_norm_affine",
        lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias),
        x=volume,
        **affine(6),
    )

    # Two steps in training mode, then evaluation mode with the running statistics that they have left.
    norm = torch.nn.BatchNorm3d(6, momentum=MOMENTUM).double()
    for step in range(2):
        record(
            f"batch_norm.{step}",
            lambda x, weight, bias: F.batch_norm(
                x, norm.running_mean, norm.running_var, weight, bias, True, MOMENTUM, norm.eps
            ),
            x=random(2, 6, 5, 3, 2) * (step + 1) + step,
            **affine(6),
        )
        tensors |= {f"batch_norm.{step}.running_{name}": getattr(norm, f"running_{name}").clone() for name in ("mean", "var")}
    record(
        "batch_norm_inference",
        lambda x, weight, bias: F.batch_norm(x, norm.running_mean, norm.running_var, weight, bias, False, 0.0, norm.eps),
        x=volume,
        **affine(6),
    )

    stored = {key: value.float().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    metadata = {"torch": torch.__version__, "python": platform.python_version(), "seed": str(SEED)}
    save_file(stored, TARGET, metadata | {"command": "python tests/golden/make_norms.py"})
    TARGET.chmod(0o644)
    print(f"{TARGET.name}: {len(stored)} tensors, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
