"""Writes `tokens.safetensors`: the golden figures of what models of tokens are made of, in the form of `layers.safetensors`."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import philox
from make_fixtures import save

DATA_SEED = 77
BETA = 0.25
DROPOUT = {"probability": 0.3, "seed": 2**40 + 12345, "step": 9, "stream": 5}
# Sequences, queries, keys, heads and channels of a head.
ATTENTION = {"attention": (3, 5, 7, 2, 8), "attention_one": (2, 1, 9, 2, 3), "attention_wide": (2, 6, 4, 2, 20)}
# Cells before and after along x, y and z.
BEFORE, AFTER = (1, 2, -1), (0, -1, 2)


def dropout_mask(shape: tuple[int, ...]) -> Tensor:
    """Which elements are kept: element i by word `i % 4` of block `[i / 4, stream, step, 1]`."""
    blocks = np.arange((np.prod(shape) + 3) // 4, dtype=np.uint64)
    counter = np.stack([blocks, *(np.full_like(blocks, word) for word in (DROPOUT["stream"], DROPOUT["step"], 1))])
    words = philox.philox(counter, (DROPOUT["seed"] & 0xFFFFFFFF, DROPOUT["seed"] >> 32)).T.flatten()
    threshold = int(np.float64(np.float32(DROPOUT["probability"])) * 2**32)
    return torch.from_numpy(words[: np.prod(shape)] >= threshold).view(shape)


def fixture() -> dict[str, Tensor]:
    """Per op its inputs, `y`, `d_y` and the gradient `d_<input>` of each input that has one."""
    generator = torch.Generator().manual_seed(DATA_SEED)
    tensors: dict[str, Tensor] = {}

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def record(op: str, function: Callable[..., Tensor], **inputs: Tensor) -> None:
        leaves = {name: value.double().requires_grad_() for name, value in inputs.items()}
        y = function(**leaves)
        d_y = random(*y.shape)
        y.backward(d_y.double())
        recorded = {**inputs, "y": y.detach(), "d_y": d_y}
        recorded |= {f"d_{name}": leaf.grad for name, leaf in leaves.items()}
        tensors.update({f"{op}.{name}": value for name, value in recorded.items()})

    for name, function in {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "tanh": torch.tanh}.items():
        record(name, lambda x, function=function: function(x), x=2 * random(5, 7, 3))

    record("mul_gate", lambda a, b: a * b, a=random(2, 3, 4, 5, 6), b=random(2, 1, 1, 1, 6))
    record("mul_plane", lambda a, b: a * b, a=random(2, 3, 4, 3, 2, 5), b=random(2, 1, 4, 3, 1, 5))
    record("mul_cells", lambda a, b: a * b, a=random(3, 4, 5, 8), b=random(3, 4, 5, 1))
    record("expand", lambda x: x.expand(2, 5, 3, 2, 4), x=random(2, 1, 3, 1, 4))

    # Entry 6 does not occur.
    tensors["gather.index"] = torch.randint(0, 6, (3, 11), generator=generator)
    record("gather", lambda table: F.embedding(tensors["gather.index"], table), table=random(7, 5))
    record("take_token", lambda x: x[..., 2, :], x=random(2, 3, 4, 5))

    def quantise(z: Tensor, codebook: Tensor) -> Tensor:
        codes = F.embedding(torch.cdist(z, codebook).argmin(-1), codebook)
        through = z + (codes - z).detach()
        loss = F.mse_loss(codes.detach(), z) + BETA * F.mse_loss(codes, z.detach())
        return torch.cat([through.flatten(), loss.view(1)])

    record("quantise", quantise, z=random(4, 9, 6), codebook=random(8, 6))

    x = random(5, 7)
    factors = dropout_mask(x.shape) / (1 - np.float64(np.float32(DROPOUT["probability"])))
    record("dropout", lambda x: x * factors, x=x)

    amounts = [cells for pair in zip(reversed(BEFORE), reversed(AFTER), strict=True) for cells in pair]
    for mode in ("constant", "replicate"):
        record(f"pad_{mode}", lambda x, mode=mode: F.pad(x, amounts, mode=mode), x=random(2, 3, 4, 5, 3))

    # Without class weights, and with voxels that do not count.
    labels = torch.randint(0, 5, (60,), generator=generator)
    labels[::7] = 255
    tensors["cross_entropy.labels"] = labels
    record(
        "cross_entropy",
        lambda logits: F.cross_entropy(logits, labels, ignore_index=255).view(1),
        logits=2 * random(60, 5),
    )

    def of_heads(tokens: Tensor, heads: int) -> Tensor:
        return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        parts = (of_heads(tokens, heads) for tokens in (q, k, v))
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

    def attention_dropped(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (of_heads(tokens, heads) for tokens in (q, k, v))
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        factors = dropout_mask(weights.shape) / (1 - np.float64(np.float32(DROPOUT["probability"])))
        return (weights * factors @ v).transpose(1, 2).flatten(2)

    for name, (sequences, queries, keys, heads, width) in ATTENTION.items():
        q = random(sequences, queries, heads * width)
        k, v = (random(sequences, keys, heads * width) for _ in range(2))
        record(name, lambda q, k, v, heads=heads: attention(q, k, v, heads), q=q, k=k, v=v)
        if name != "attention_one":
            record(f"{name}_dropped", lambda q, k, v, heads=heads: attention_dropped(q, k, v, heads), q=q, k=k, v=v)
    return {key: value if value.is_floating_point() else value.to(torch.uint8) for key, value in tensors.items()}


if __name__ == "__main__":
    philox.check()
    metadata = {
        "command": "python tests/golden/make_tokens.py",
        "data_seed": str(DATA_SEED),
        "beta": str(BETA),
        "dropout": str(DROPOUT),
        "attention": f"{ATTENTION}: sequences, queries, keys, heads, channels of a head",
        "pad": f"before {BEFORE}, after {AFTER} along x, y, z",
    }
    save("tokens.safetensors", fixture(), metadata)
