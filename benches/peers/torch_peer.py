"""PyTorch's side of `compare.py`: obeys one request a line of standard input and answers each with a line of JSON.

Requests are documented in README.md beside this file. Runs with any Python that has PyTorch.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

try:
    import torch
except ImportError:
    sys.exit("PyTorch is missing from this Python; install it (pip install torch) or name another with --python")
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))
import dynamic_city_torch  # noqa: E402
import losses as sep4d_losses  # noqa: E402
import occ_sora_torch  # noqa: E402
import sep4d_torch  # noqa: E402

Parts = dict[str, Callable[[], object]]
# Samples of a model's latents are made with the noise of each, if it has any.
Forward = Callable[[list[Tensor]], object]


def read(folder: Path, name: str, *shape: int) -> Tensor:
    """The f32 tensor that our side wrote."""
    return torch.frombuffer(bytearray((folder / f"{name}.f32").read_bytes()), dtype=torch.float32).view(shape)


def relative(a: Tensor, b: Tensor) -> float:
    """`|a - b| / |b|`."""
    a, b = a.detach().cpu().double(), b.double()
    return ((a - b).norm() / b.norm()).item()


def single(output: object) -> object:
    """A model's output in single precision."""

    def converted(value: object) -> object:
        if isinstance(value, list):
            return [converted(each) for each in value]
        return value.float() if value.is_floating_point() else value

    fields = dataclasses.fields(output)
    return dataclasses.replace(output, **{field.name: converted(getattr(output, field.name)) for field in fields})


def model_of(sizes: dict, labels: Tensor) -> tuple[nn.Module, Forward, Callable[[object], dict[str, Tensor]]]:
    """A model, how it is called with the labels, and its losses."""
    (_, frames, *grid), classes = labels.shape, sizes["classes"]
    weights = torch.ones(classes, device=labels.device)
    if sizes["architecture"] == "dynamic_city":
        names = {"latent": "latent_channels", "query": "query_channels"}
        names |= {name: name for name in ("classes", "hidden", "head", "mlp", "depth", "heads", "dropout")}
        config = dynamic_city_torch.Config(**{name: sizes[key] for name, key in names.items()})
        model = dynamic_city_torch.DynamicCity(config, (frames, *grid))
        losses = dynamic_city_torch.training_losses
        return model, lambda noise: model(labels, lambda k, _: noise[k]), lambda y: losses(y, labels, weights)
    if sizes["architecture"] == "occ_sora":
        names = ("classes", "code_features", "width", "blocks", "code_channels", "codes")
        model = occ_sora_torch.OccSora(occ_sora_torch.Config(**{name: sizes[name] for name in names}), grid[2])
        losses = occ_sora_torch.training_losses
        return model, lambda _: model(labels), lambda y: losses(y, labels, weights)
    names = ("classes", "latent_channels", "plane_features", "hidden", "head")
    model = sep4d_torch.Sep4d(sep4d_torch.Config(*(sizes[name] for name in names)))

    def parts(y: sep4d_torch.Output) -> dict[str, Tensor]:
        found = sep4d_losses.training_losses(y.logits, labels, y.mu, y.logvar, weights)
        return {"ce": found.ce, "lovasz": found.lovasz, "kl": found.kl, "total": found.total}

    return model, lambda noise: model(labels, lambda k, _: noise[k]), parts


class Peer:
    """PyTorch on one device at one precision, eager or compiled."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device, self.precision, self.compiled = arguments.device, arguments.precision, arguments.compile
        torch.set_num_threads(arguments.threads)
        tf32 = self.precision != "f32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        self.parts: Parts = {}

    def autocast(self) -> torch.autocast:
        """The mixed precision that is usual on the device: f16 on CUDA, bf16 on a CPU."""
        dtype = torch.float16 if self.device == "cuda" else torch.bfloat16
        return torch.autocast(self.device, dtype, enabled=self.precision == "amp")

    def maybe_compile(self, function: Callable) -> Callable:
        return torch.compile(function) if self.compiled else function

    def conv3d(self, folder: str, inputs: int, outputs: int, size: list[int]) -> dict:
        """A convolution of kernel 3 and each of its gradients by itself."""
        path = Path(folder)
        wide = torch.float32
        if self.precision == "amp":
            wide = torch.float16 if self.device == "cuda" else torch.bfloat16
        names = {"x": (1, inputs, *size), "weight": (outputs, inputs, 3, 3, 3), "bias": (outputs,), "d_y": (1, outputs, *size)}
        x, weight, bias, d_y = (read(path, name, *shape).to(self.device, wide) for name, shape in names.items())

        def backward(mask: list[bool]) -> Callable:
            def run(d_y: Tensor, x: Tensor, weight: Tensor) -> tuple:
                geometry = ([1, 1, 1], [1, 1, 1], [1, 1, 1], False, [0, 0, 0], 1)
                return torch.ops.aten.convolution_backward(d_y, x, weight, [outputs], *geometry, mask)

            return self.maybe_compile(run)

        forward = self.maybe_compile(lambda x, weight, bias: torch.nn.functional.conv3d(x, weight, bias, padding=1))
        data, parameters = backward([True, False, False]), backward([False, True, True])
        self.parts = {
            "forward": lambda: forward(x, weight, bias),
            "data": lambda: data(d_y, x, weight),
            "weight": lambda: parameters(d_y, x, weight),
        }
        y, d_x = self.parts["forward"](), self.parts["data"]()[0]
        _, d_weight, d_bias = self.parts["weight"]()
        results = {"y": y, "d_x": d_x, "d_weight": d_weight, "d_bias": d_bias}
        errors = {name: relative(value, read(path, name, *value.shape)) for name, value in results.items()}
        return {"errors": errors}

    def step(self, folder: str, **_sizes: object) -> dict:
        """A training step of the whole model: forward, losses, backward, Adam."""
        path = Path(folder)
        about = json.loads((path / "step.json").read_text())
        labels = torch.frombuffer(bytearray((path / "labels.u8").read_bytes()), dtype=torch.uint8)
        labels = labels.view(about["batch"]).long().to(self.device)
        model, forward, losses_of = model_of(about["model"], labels)
        flat, state, at = read(path, "parameters", -1), {}, 0
        for parameter in about["parameters"]:
            shape = torch.Size(parameter["shape"])
            state[parameter["name"]] = flat[at : at + shape.numel()].view(shape)
            at += shape.numel()
        model.load_state_dict(state)
        model.to(self.device)
        fused = {"fused": True} if self.device == "cuda" else {}
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=about["learning_rate"], weight_decay=about["weight_decay"], **fused
        )
        scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "amp" and self.device == "cuda")

        def losses(noise: list[Tensor]) -> list[Tensor]:
            with self.autocast():
                output = forward(noise)
            parts = losses_of(single(output))
            return [parts.pop("total"), *parts.values()]

        compiled = self.maybe_compile(losses)

        def take(noise: list[Tensor]) -> list[Tensor]:
            optimiser.zero_grad(set_to_none=True)
            found = compiled(noise)
            scaler.scale(found[0]).backward()
            if about["clip_norm"] > 0:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(model.parameters(), about["clip_norm"])
            scaler.step(optimiser)
            scaler.update()
            return [loss.detach() for loss in found]

        def given(step: int) -> list[Tensor]:
            return [
                read(path, f"noise.{step}.{k}", *shape).movedim(-1, 1).contiguous().to(self.device)
                for k, shape in enumerate(about["noises"])
            ]

        # No two programs drop the same.
        dropouts = {module: module.dropout for module in model.modules() if hasattr(module, "dropout")}
        for module in dropouts:
            module.dropout = 0.0
        found = [[loss.item() for loss in take(given(step))] for step in range(len(about["losses"]))]
        for module, dropout in dropouts.items():
            module.dropout = dropout
        expected = about["losses"]
        errors = {
            f"loss after {step} steps": abs(a[0] - b[0]) / abs(b[0]) for step, (a, b) in enumerate(zip(found, expected, strict=True))
        }

        def timed() -> list[Tensor]:
            shapes = ((batch, channels, *axes) for batch, *axes, channels in about["noises"])
            return take([torch.randn(shape, device=self.device) for shape in shapes])

        self.parts = {"step": timed}
        return {"errors": errors}

    def time(self, part: str, repeat: int) -> dict:
        """Seconds of one of `repeat` runs of a part."""
        run = self.parts[part]
        self.wait()
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        self.wait()
        return {"seconds": (time.perf_counter() - start) / repeat}

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    """Reads the command line, then requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "amp"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--probe", action="store_true", help="only say which version and device this is")
    arguments = parser.parse_args()
    if arguments.probe:
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        print(json.dumps({"version": torch.__version__, "cuda": name}))
        return
    peer = Peer(arguments)
    for line in sys.stdin:
        ((request, parameters),) = json.loads(line).items()
        try:
            answer = getattr(peer, request)(**parameters)
        except Exception as why:  # noqa: BLE001: whatever it is, the next request may work
            answer = {"error": f"{type(why).__name__}: {str(why).splitlines()[0] if str(why) else ''}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
