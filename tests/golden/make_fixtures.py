"""Writes the golden figures of SEP-4D: `model.safetensors` (the whole model) and `layers.safetensors` (single ops).

Everything is computed in f64 and stored as f32; the same is run in f32 to show which tolerance is realistic.
"""

import json
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import philox
from losses import LovaszBinned, carlasc_class_weights, kl_divergence, lovasz_exact, training_losses
from sep4d_torch import PLANES, PRESETS, Config, Noise, Sep4d, attention_pool, positional_code

FOLDER = Path(__file__).parent
CONFIG = Config(classes=11, latent=4, features=6, hidden=8, head=4)
BATCH, FRAMES, GRID = 2, 3, (8, 6, 4)
SEED, STEPS, LEARNING_RATE = 7, 10, 1e-3
# Seed of the weights and labels: with it no error of the Lovasz loss lies within 1e-4 bins of a bin's edge at step 0,
# so f32 counts the very bins that f64 does.
DATA_SEED = 76
PARAMETER_COUNTS = {"paper": 1_248_343, "base": 541_463}
# Modules whose outputs (evaluation mode) are stored too, so that a deviation can be traced to where it starts.
TRACED = [
    "extractor.down",
    "extractor",
    *(f"distributions.{plane}" for plane in PLANES),
    *(f"blocks.{plane}" for plane in PLANES),
    *(f"fusion.phi.{plane}" for plane in PLANES[:3]),
    "fusion.psi",
    "fusion",
    "decoder.res3",
    "decoder.res1",
    "decoder.up",
]
# These parameters have no effect, so their gradients are 0 but for rounding: a bias before an instance norm, which
# subtracts the mean, and a constant added to all scores of a softmax.
NO_EFFECT = re.compile(
    r"extractor\.down\.bias|(extractor|decoder)\.res\d?\.conv[12]\.bias|blocks\...\.conv1\.bias"
    r"|planes\.(volume|static)\.scores\.bias|planes\.bias\.\w+\.out\.bias"
)
ROUNDING = 1e-12


def philox_noise(step: int) -> Noise:
    """The sampling noise: element i of the channels-last plane k is `normal(SEED, step, k, i)`, rounded to f32."""

    def noise(k: int, like: Tensor) -> Tensor:
        b, c, *axes = like.shape
        eps = torch.from_numpy(philox.normal(SEED, step, k, like.numel())).float()
        return eps.view(b, *axes, c).movedim(-1, 1).to(like)

    return noise


def structured_labels(
    generator: torch.Generator, grid: tuple[int, int, int] = GRID, batch: int = BATCH, frames: int = FRAMES
) -> Tensor:
    """Blocks of 2 x 2 x 2 voxels that move along x from frame to frame, a tenth of the voxels replaced at random."""
    shape = (batch, frames, *grid)
    blocks = torch.randint(0, CONFIG.classes, (batch, *(n // 2 for n in grid)), generator=generator)
    still = blocks.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    moving = torch.stack([still.roll(t, 1) for t in range(frames)], 1)
    speckle = torch.randint(0, CONFIG.classes, shape, generator=generator)
    labels = torch.where(torch.rand(shape, generator=generator) < 0.1, speckle, moving)
    assert labels.unique().numel() == CONFIG.classes
    return labels


def perturb(model: nn.Module) -> None:
    """Perturbs what starts at zero, so that every gradient path is alive.

    The last weights are enlarged, so that the errors spread over the bins of the Lovasz loss.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
        model.decoder.head.out.weight *= 4


def perturbed_model() -> Sep4d:
    """PyTorch's initialisation, perturbed."""
    torch.manual_seed(DATA_SEED)
    model = Sep4d(CONFIG)
    perturb(model)
    return model


def evaluate(model: Sep4d, labels: Tensor) -> dict[str, Tensor]:
    """Logits and intermediate tensors in evaluation mode, as `eval.<name>`."""
    trace: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: trace.__setitem__(f"eval.{name}", output)

    def keep_planes(_module: object, _inputs: object, output: dict[str, Tensor]) -> None:
        trace.update({f"eval.planes.{plane}": value for plane, value in output.items()})

    def keep_v_and_w(_module: object, inputs: tuple[Tensor, Tensor], _output: Tensor) -> None:
        trace["eval.fusion.v"], trace["eval.fusion.w"] = inputs

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in TRACED]
    hooks.append(model.planes.register_forward_hook(keep_planes))
    hooks.append(model.fusion.mlp.register_forward_hook(keep_v_and_w))
    with torch.no_grad():
        trace["eval.logits"] = model(labels).logits
    for hook in hooks:
        hook.remove()
    return trace


@dataclass
class Figures:
    """What the model gives at one precision."""

    trace: dict[str, Tensor]
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]
    adam: Tensor


def run_model(labels: Tensor, class_weights: Tensor, dtype: torch.dtype) -> Figures:
    """Evaluation, then training."""
    model = perturbed_model().to(dtype)
    return Figures(evaluate(model, labels), *train_model(model, labels, class_weights.to(dtype)))


def train_model(
    model: nn.Module, labels: Tensor, class_weights: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Losses and gradients of step 0, and the total losses of ten steps of Adam on the same batch."""
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8)
    losses, gradients, adam = {}, {}, []
    for step in range(STEPS):
        output = model(labels, philox_noise(step))
        parts = training_losses(output.logits, labels, output.mu, output.logvar, class_weights)
        optimiser.zero_grad()
        parts.total.backward()
        if step == 0:
            exact = lovasz_exact(output.logits.flatten(0, -2).softmax(1), labels.flatten())
            losses = {"ce": parts.ce, "lovasz": parts.lovasz, "kl": parts.kl, "total": parts.total}
            losses = {f"loss.{name}": value.detach() for name, value in {**losses, "lovasz_exact": exact}.items()}
            gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        optimiser.step()
        adam.append(parts.total.detach())
    return losses, gradients, torch.stack(adam)


def relative(a: Tensor, b: Tensor) -> float:
    """`|a - b| / |b|`."""
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def model_fixture() -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of `model.safetensors` and its own metadata; prints sanity figures."""
    labels = structured_labels(torch.Generator().manual_seed(DATA_SEED))
    class_weights = carlasc_class_weights()
    reference = run_model(labels, class_weights, torch.float64)
    single = run_model(labels, class_weights, torch.float32)

    no_effect = []
    print(f"{'parameter':42} {'norm':>10} {'f32 vs f64':>11}")
    for name, gradient in reference.gradients.items():
        norm = gradient.norm().item()
        assert (norm < ROUNDING) == bool(NO_EFFECT.fullmatch(name)), f"{name}: gradient norm {norm}"
        if norm < ROUNDING:
            no_effect.append(name)
            print(f"{name:42} {norm:10.2e} {single.gradients[name].norm().item():11.2e} (f32 norm; no effect)")
        else:
            print(f"{name:42} {norm:10.2e} {relative(single.gradients[name], gradient):11.2e}")
    for name, value in reference.losses.items():
        print(f"{name:42} {value.item():10.6f} {relative(single.losses[name], value):11.2e}")
    for name, value in reference.trace.items():
        print(f"{name:42} {value.norm().item():10.2e} {relative(single.trace[name], value):11.2e}")
    print("largest deviation of a logit", (single.trace["eval.logits"] - reference.trace["eval.logits"]).abs().max())
    print("adam losses", reference.adam.tolist(), "\ndeviation", (single.adam - reference.adam).tolist())

    tensors = {f"param.{name}": parameter.detach() for name, parameter in perturbed_model().named_parameters()}
    tensors |= {f"grad.{name}": value for name, value in reference.gradients.items()}
    tensors |= reference.trace | reference.losses
    tensors |= {"adam.losses": reference.adam, "class_weights": class_weights, "labels": labels.to(torch.uint8)}
    metadata = {"no_effect": " ".join(no_effect), "config": json.dumps(asdict(CONFIG))}
    return tensors, metadata | {"learning_rate": str(LEARNING_RATE)}


def layer_fixture() -> dict[str, Tensor]:
    """The tensors of `layers.safetensors`: per op its inputs, `y`, `d_y` and the gradient `d_<input>` of each input."""
    generator = torch.Generator().manual_seed(DATA_SEED)
    tensors: dict[str, Tensor] = {}

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def record(op: str, function: Callable[..., Tensor], **inputs: Tensor) -> None:
        leaves = {name: value.double().requires_grad_() for name, value in inputs.items()}
        y = function(**leaves)
        d_y = random(*y.shape) if y.dim() else torch.ones(())
        y.backward(d_y.double())
        recorded = {**inputs, "y": y.detach(), "d_y": d_y}
        recorded |= {f"d_{name}": leaf.grad for name, leaf in leaves.items()}
        tensors.update({f"{op}.{name}": value for name, value in recorded.items()})

    x2, x3 = random(2, 3, 5, 4), random(2, 3, 5, 4, 3)
    pad = {"padding": 1}
    record(
        "conv3d",
        lambda x, weight, bias: F.conv3d(x, weight, bias, **pad),
        x=x3,
        weight=random(5, 3, 3, 3, 3),
        bias=random(5),
    )
    record(
        "conv2d",
        lambda x, weight, bias: F.conv2d(x, weight, bias, **pad),
        x=x2,
        weight=random(5, 3, 3, 3),
        bias=random(5),
    )
    record(
        "conv3d_down",
        lambda x, weight, bias: F.conv3d(x, weight, bias, stride=2),
        x=random(2, 3, 6, 4, 2),
        weight=random(5, 3, 2, 2, 2),
        bias=random(5),
    )
    record(
        "conv_transpose3d",
        lambda x, weight, bias: F.conv_transpose3d(x, weight, bias, stride=2),
        x=x3,
        weight=random(3, 5, 2, 2, 2),
        bias=random(5),
    )
    record(
        "linear", lambda x, weight, bias: F.linear(x, weight, bias), x=random(7, 3), weight=random(5, 3), bias=random(5)
    )
    record("instance_norm", lambda x: F.instance_norm(x), x=x3 * 2 + 1)
    record("lrelu", lambda x: F.leaky_relu(x, 0.1), x=x3)
    record("pool_x", lambda values, scores: attention_pool(values, scores, [2]), values=x3, scores=random(*x3.shape))
    record(
        "pool_yz", lambda values, scores: attention_pool(values, scores, [3, 4]), values=x3, scores=random(*x3.shape)
    )
    record("kl", lambda mu, logvar: kl_divergence([mu], [logvar]), mu=x2, logvar=random(*x2.shape) - 2)

    # Class 3 is absent; the logits favour the true class, so that errors spread over the bins.
    labels = torch.randint(0, 3, (600,), generator=generator) + torch.tensor([0, 0, 1]).repeat(200)
    labels[labels == 3] = 4
    logits = random(600, 5) * 2 + 2 * F.one_hot(labels, 5)
    class_weights = carlasc_class_weights()[:5]
    record("cross_entropy", lambda logits: F.cross_entropy(logits, labels, class_weights.double()), logits=logits)
    probabilities = logits.softmax(1)
    record("lovasz_exact", lambda probabilities: lovasz_exact(probabilities, labels), probabilities=probabilities)
    record("lovasz", lambda probabilities: LovaszBinned.apply(probabilities, labels), probabilities=probabilities)
    exact, binned = tensors["lovasz_exact.d_probabilities"], tensors["lovasz.d_probabilities"]
    cosine = F.cosine_similarity(exact.flatten(), binned.flatten(), 0)
    values = [tensors[f"{form}.y"].item() for form in ("lovasz_exact", "lovasz")]
    print(f"lovasz exact, binned {values}, cosine of gradients {cosine:.6f}")
    tensors |= {"loss.labels": labels.to(torch.uint8), "loss.class_weights": class_weights}

    weight = random(6).double().requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=0.01)
    gradients, weights = random(5, 6), [weight.detach().clone()]
    for gradient in gradients:
        weight.grad = gradient.double()
        optimiser.step()
        weights.append(weight.detach().clone())
    tensors |= {"adam.gradients": gradients, "adam.weights": torch.stack(weights)}

    tensors["positional_code.5"] = positional_code(5, torch.zeros((), dtype=torch.float64))
    for name, (seed, step, stream) in {"a": (7, 0, 0), "b": (2**40 + 12345, 9, 5)}.items():
        tensors[f"normal.{name}"] = torch.from_numpy(philox.normal(seed, step, stream, 64))
    return tensors


def save(name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a fixture; what was computed in f64 is stored as f32."""
    stored = {
        key: (value.float() if value.is_floating_point() else value).clone(memory_format=torch.contiguous_format)
        for key, value in tensors.items()
    }
    versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
    command = {"command": "python tests/golden/make_fixtures.py", "seed": str(SEED), "data_seed": str(DATA_SEED)}
    save_file(stored, FOLDER / name, versions | command | metadata)
    (FOLDER / name).chmod(0o644)
    print(f"{name}: {len(stored)} tensors, {(FOLDER / name).stat().st_size} bytes")


def main() -> None:
    """Checks the parts that have known answers, then writes both files."""
    philox.check()
    for preset, expected in PARAMETER_COUNTS.items():
        count = sum(parameter.numel() for parameter in Sep4d(PRESETS[preset]).parameters())
        assert count == expected, f"{preset}: {count} parameters instead of {expected}"
    save("model.safetensors", *model_fixture())
    save(
        "layers.safetensors",
        layer_fixture(),
        {"normal.a": "seed 7, step 0, stream 0", "normal.b": f"seed {2**40 + 12345}, step 9, stream 5"},
    )


if __name__ == "__main__":
    main()
