"""Writes the golden figures of the models of docs/rivals.md: `rivals.safetensors`.

Computed and stored as in `make_fixtures.py`: f64 stored as f32, the same in f32 to show which tolerance is realistic.
There is no dropout. The keys, for each case of CASES, whose sizes the metadata's `cases` hold:

- `class_weights`: CarlaSC's, which DynamicCity's cross entropy takes
- `<case>.param.<name>`: the weights; of OccSora also the running statistics to start with
- `<case>.labels` (u8)
- `<case>.eval.logits`: evaluation mode, of the batch's first clip alone, `[1, T, X, Y, Z, K]`
- `<case>.loss.{ce,lovasz,kl,total}`, with `embedding` for `kl` in OccSora: training mode, seed 7, step 0
- `<case>.grad.<name>`: gradient of the total loss
- `<case>.adam.losses`: total loss before each of ten steps; OccSora's are of AdamW with clipped gradients
- `<case>.codes.{eval,train}` (u8): OccSora's indices in evaluation mode and in training mode at step 0, `[B, t, x, y]`
- `<case>.running.<name>`: OccSora's running statistics after step 0

The metadata's `no_effect` lists, as `<case>.<name>`, the parameters whose gradient is zero but for rounding.
"""

import json
import re
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

import dynamic_city_torch
import occ_sora_torch
import philox
from dynamic_city_torch import Config as CityConfig
from dynamic_city_torch import DynamicCity
from losses import BINS, carlasc_class_weights
from make_fixtures import LEARNING_RATE, ROUNDING, STEPS, philox_noise, relative, save, structured_labels
from occ_sora_torch import Config as SoraConfig
from occ_sora_torch import OccSora

# By T for DynamicCity of 12 classes and 128x128x8 voxels, by K and Z for OccSora.
CITY_PARAMETERS = {4: 1_693_912, 8: 1_695_704, 16: 1_699_288, 32: 1_706_456, 64: 1_720_792}
SORA_PARAMETERS = {(11, 8): 133_175_320, (18, 16): 137_369_744}
WEIGHT_DECAY, CLIP_NORM = 0.01, 35.0
EDGE = 5e-5  # how far errors of the Lovasz loss keep from a bin's edge at step 0, in bins
TIE = 1e-3  # how much farther than the nearest code the second nearest is at least, as a part of its distance


@dataclass(frozen=True)
class Case:
    """A model and a batch, and the seed of labels and weights.

    With the seed no error of the Lovasz loss lies near a bin's edge, no code is nearly as near as another, and ten
    steps meet no kink of a ReLU so closely that f32 takes the other side and drifts away.
    """

    config: CityConfig | SoraConfig
    batch: int
    frames: int
    grid: tuple[int, int, int]
    seed: int


CASES = {
    "dynamic_city_1": Case(
        CityConfig(latent=4, query=6, hidden=6, head=4, mlp=8, depth=2, heads=2, dropout=0),
        batch=2,
        frames=4,
        grid=(10, 6, 4),
        seed=190,
    ),
    "dynamic_city_2": Case(
        CityConfig(latent=6, query=5, hidden=7, head=3, mlp=5, depth=1, heads=3, dropout=0),
        batch=1,
        frames=6,
        grid=(4, 10, 6),
        seed=421,
    ),
    # Padded to 8 and 16 frames; the latents have 1 x 3 x 1 and 2 x 1 x 2 places along t, x and y.
    "occ_sora_1": Case(
        SoraConfig(code_features=3, width=12, blocks=1, code_channels=6, codes=12),
        batch=4,
        frames=2,
        grid=(24, 8, 2),
        seed=52,
    ),
    "occ_sora_2": Case(
        SoraConfig(code_features=2, width=8, blocks=2, code_channels=5, codes=9),
        batch=2,
        frames=9,
        grid=(8, 16, 2),
        seed=641,
    ),
}
ENLARGED = {r"encoder\.down\d\.weight": 3, r"decoder\.up\d\.weight": 4, r"quantizer\.(codes|in\.weight)": 4}
# Biases whose constant a norm takes away, and what decides between the places of an axis that has but one.
NO_EFFECT = re.compile(
    r"dynamic_city_\d\.("
    r"encoder\.(space|time)\.(conv0|down|res[01]\.conv[12])\.bias"
    r"|decoder\.blocks\.(\w\w\.conv1|[xy][yz]\.(conv2|skip))\.bias"
    r"|decoder\.(up\.\w\w\.(transposed|conv)|res[13]\.conv[12]|expand|head\.hidden)\.bias)"
    r"|occ_sora_\d\.(encoder\.conv|quantizer\.out|decoder\.in|\w+\.block\d\.attention\.[xyt]\.out)\.bias"
    r"|occ_sora_1\.\w+\.block\d\.attention\.[ty]\.[qk]\.weight"
    r"|occ_sora_2\.\w+\.block\d\.attention\.x\.[qk]\.weight"
)


def inputs(case: Case) -> Tensor:
    """Labels `[B, T, X, Y, Z]`."""
    return structured_labels(torch.Generator().manual_seed(case.seed), case.grid, case.batch, case.frames)


def perturbed(case: Case) -> DynamicCity | OccSora:
    """PyTorch's initialisation in f32 with noise on what starts constant, so that every gradient path is alive.

    Weights are enlarged so that the errors spread over the bins of the Lovasz loss, and in OccSora so that places
    differ and more than one code is chosen. Its running statistics are not far from the batch's.
    """
    torch.manual_seed(case.seed)
    if isinstance(case.config, CityConfig):
        model = DynamicCity(case.config, (case.frames, *case.grid))
    else:
        model = OccSora(case.config, case.grid[2])
    with torch.no_grad():
        for parameter in model.parameters():
            if (parameter == parameter.flatten()[0]).all():
                parameter += torch.randn_like(parameter) * 0.1
        if isinstance(model, DynamicCity):
            model.decoder.head.out.weight *= 4
        else:
            for name, parameter in model.named_parameters():
                for part, factor in ENLARGED.items():
                    if re.fullmatch(part, name):
                        parameter *= factor
            for statistics in model.buffers():
                statistics.zero_()
            for _ in range(10):
                model(inputs(case))
            for name, statistics in model.named_buffers():
                if name.endswith("running_var"):
                    statistics += 0.02
    return model


@dataclass
class Figures:
    """What a model gives at one precision, and how near it comes to where f32 may decide otherwise than f64."""

    tensors: dict[str, Tensor]
    codes: list[Tensor]  # in evaluation and in each step
    edge: float
    tie: float
    norms: list[float]  # of the gradient, step by step


def figures(model: DynamicCity | OccSora, labels: Tensor, class_weights: Tensor) -> Figures:
    """All figures at the precision of the model's weights."""
    is_city, codes, ties, norms, adam = isinstance(model, DynamicCity), [], [], [], []

    def keep_codes(quantizer: occ_sora_torch.Quantizer, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        codes.append(output[1])
        with torch.no_grad():
            nearest = quantizer.distances(quantizer._modules["in"](inputs[0]).movedim(1, -1)).topk(2, largest=False)
        ties.append((1 - nearest.values[..., 0] / nearest.values[..., 1]).min().item())

    if not is_city:
        model.quantizer.register_forward_hook(keep_codes)
    with torch.no_grad():
        tensors = {"eval.logits": model.eval()(labels).logits[:1]}
    model.train()
    if is_city:
        optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    else:
        optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        if is_city:
            output = model(labels, philox_noise(step))
            losses = dynamic_city_torch.training_losses(output, labels, class_weights)
        else:
            output = model(labels)
            losses = occ_sora_torch.training_losses(output, labels)
        optimiser.zero_grad()
        losses["total"].backward()
        gradients = {f"grad.{name}": parameter.grad.clone() for name, parameter in model.named_parameters()}
        if step == 0:
            tensors |= {f"loss.{name}": value.detach() for name, value in losses.items()} | gradients
            tensors |= {f"running.{name}": value.clone() for name, value in model.named_buffers()}
            edge = edge_distance(output.logits.detach())
        limit = float("inf") if is_city else CLIP_NORM
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item())
        optimiser.step()
        adam.append(losses["total"].detach())
    tensors["adam.losses"] = torch.stack(adam)
    if codes:
        tensors |= {"codes.eval": codes[0].to(torch.uint8), "codes.train": codes[1].to(torch.uint8)}
    return Figures(tensors, codes, edge, min(ties, default=1.0), norms)


def edge_distance(logits: Tensor) -> float:
    """How far the nearest error of the Lovasz loss lies from an edge between two bins, in bins."""
    # The errors are p or 1 - p, and the edges are the same from either end.
    position = logits.softmax(-1) * BINS
    return (position - position.round().clamp(1, BINS - 1)).abs().min().item()


def compare(name: str, reference: Figures, single: Figures) -> list[str]:
    """Prints how far f32 deviates from f64 and asserts what is to be expected; the parameters without effect."""
    no_effect, worst, rounding = [], (0.0, ""), 0.0
    f64, f32 = reference.tensors, single.tensors
    for key in (key for key in f64 if key.startswith("grad.")):
        parameter, norm = key.removeprefix("grad."), f64[key].norm().item()
        expected = bool(NO_EFFECT.fullmatch(f"{name}.{parameter}"))
        assert (norm < ROUNDING) == expected, f"{name}: gradient of {parameter} has the norm {norm}"
        if expected:
            no_effect.append(f"{name}.{parameter}")
            rounding = max(rounding, f32[key].norm().item())
        else:
            worst = max(worst, (relative(f32[key], f64[key]), parameter))
    deviations = {
        key: relative(f32[key], f64[key]) for key in f64 if key.startswith(("eval.", "loss.", "running.", "adam."))
    }
    running = max((value for key, value in deviations.items() if key.startswith("running.")), default=0.0)
    assert max(deviations.values()) < 2e-5, f"{name}: f32 deviates: {deviations}"
    assert all(torch.equal(a, b) for a, b in zip(reference.codes, single.codes, strict=True)), f"{name}: other codes"
    assert reference.edge >= EDGE and reference.tie >= TIE, f"{name}: another seed is needed"
    print(f"  errors {reference.edge:.1e} bins off the edges", end="")
    if reference.codes:
        chosen = " and ".join(str(value.unique().numel()) for value in reference.codes[:2])
        print(f", {chosen} codes in {reference.codes[0].numel()} places, {reference.tie:.1e} off ties", end="")
    print(f"\n  gradient's norm {min(reference.norms):.3g} to {max(reference.norms):.3g}", end="")
    print(f", logits up to {f64['eval.logits'].abs().max():.1f}, f32 vs f64:")
    print("  ", ", ".join(f"{key} {value:.1e}" for key, value in deviations.items() if not key.startswith("running.")))
    print(f"   running {running:.1e}, gradients {worst[0]:.1e} ({worst[1]}), no effect {rounding:.1e}")
    print("   losses", {key: round(value.item(), 6) for key, value in f64.items() if key.startswith("loss.")})
    print("   steps", [round(loss, 6) for loss in f64["adam.losses"].tolist()])
    print("   no effect:", len(no_effect))
    return no_effect


def check_parameter_counts() -> None:
    """The default sizes have as many parameters as docs/rivals.md says."""
    with torch.device("meta"):
        city = CityConfig(classes=12)
        models = {count: DynamicCity(city, (frames, 128, 128, 8)) for frames, count in CITY_PARAMETERS.items()}
        for (classes, height), count in SORA_PARAMETERS.items():
            models[count] = OccSora(SoraConfig(classes=classes), height)
    for expected, model in models.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == expected, f"{type(model).__name__}: {count} parameters instead of {expected}"


def main() -> None:
    """Checks the parts that have known answers, then writes the file."""
    torch.set_num_threads(1)  # the tensors are small, and sums have one order
    philox.check()
    check_parameter_counts()
    class_weights = carlasc_class_weights()
    tensors, no_effect = {"class_weights": class_weights}, []
    for name, case in CASES.items():
        labels, model = inputs(case), perturbed(case)
        own = {f"param.{key}": value.clone() for key, value in model.state_dict().items()}
        print(f"{name}: {sum(value.numel() for value in model.parameters())} parameters")
        reference = figures(perturbed(case).double(), labels, class_weights.double())
        no_effect += compare(name, reference, figures(model, labels, class_weights))
        own |= {"labels": labels.to(torch.uint8)} | reference.tensors
        tensors |= {f"{name}.{key}": value for key, value in own.items()}
    metadata = {
        "command": "python tests/golden/make_rivals.py",
        "data_seed": " ".join(str(case.seed) for case in CASES.values()),
        "cases": json.dumps({name: asdict(case) for name, case in CASES.items()}),
        "no_effect": " ".join(no_effect),
        "learning_rate": str(LEARNING_RATE),
        "occ_sora.weight_decay": str(WEIGHT_DECAY),
        "occ_sora.clip_norm": str(CLIP_NORM),
    }
    save("rivals.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
