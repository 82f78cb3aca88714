"""PyTorch's side of `compare.py`: obeys one request a line of standard input and answers each with a line of JSON.

Requests are documented in README.md beside this file. Runs with any Python that has PyTorch.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

try:
    import torch
except ImportError:
    sys.exit("PyTorch is missing from this Python; install it (pip install torch) or name another with --python")
from torch import Tensor

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))
from losses import training_losses  # noqa: E402
from sep4d_torch import Config, Noise, Sep4d  # noqa: E402

Parts = dict[str, Callable[[], object]]


def read(folder: Path, name: str, *shape: int) -> Tensor:
    """The f32 tensor that our side wrote."""
    return torch.frombuffer(bytearray((folder / f"{name}.f32").read_bytes()), dtype=torch.float32).view(shape)


def relative(a: Tensor, b: Tensor) -> float:
    """`|a - b| / |b|`."""
    a, b = a.detach().cpu().double(), b.double()
    return ((a - b).norm() / b.norm()).item()


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
        sizes = about["model"]
        config = Config(sizes["classes"], sizes["latent_channels"], sizes["plane_features"], sizes["hidden"], sizes["head"])
        model = Sep4d(config)
        flat, state, at = read(path, "parameters", -1), {}, 0
        for parameter in about["parameters"]:
            shape = torch.Size(parameter["shape"])
            state[parameter["name"]] = flat[at : at + shape.numel()].view(shape)
            at += shape.numel()
        model.load_state_dict(state)
        model.to(self.device)
        labels = torch.frombuffer(bytearray((path / "labels.u8").read_bytes()), dtype=torch.uint8)
        labels = labels.view(about["batch"]).long().to(self.device)
        class_weights = torch.ones(config.classes, device=self.device)
        fused = {"fused": True} if self.device == "cuda" else {}
        optimiser = torch.optim.Adam(model.parameters(), lr=about["learning_rate"], **fused)
        scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "amp" and self.device == "cuda")

        def losses(noise: list[Tensor]) -> list[Tensor]:
            with self.autocast():
                output = model(labels, lambda k, _like: noise[k])
            parts = training_losses(
                output.logits.float(), labels, [m.float() for m in output.mu], [v.float() for v in output.logvar], class_weights
            )
            return [parts.total, parts.ce, parts.lovasz, parts.kl]

        compiled = self.maybe_compile(losses)

        def take(noise: list[Tensor]) -> list[Tensor]:
            optimiser.zero_grad(set_to_none=True)
            found = compiled(noise)
            scaler.scale(found[0]).backward()
            scaler.step(optimiser)
            scaler.update()
            return [loss.detach() for loss in found]

        batch, frames, *grid = about["batch"]
        x, y, z = (side // 2 for side in grid)
        planes = [(x, y), (x, z), (y, z), (frames, x), (frames, y), (frames, z)]

        def given(step: int) -> list[Tensor]:
            return [
                read(path, f"noise.{step}.{k}", batch, *plane, config.latent).movedim(-1, 1).contiguous().to(self.device)
                for k, plane in enumerate(planes)
            ]

        found = [[loss.item() for loss in take(given(step))] for step in range(len(about["losses"]))]
        expected = about["losses"]
        errors = {
            f"loss after {step} steps": abs(a[0] - b[0]) / abs(b[0]) for step, (a, b) in enumerate(zip(found, expected, strict=True))
        }

        def timed() -> list[Tensor]:
            return take([torch.randn(batch, config.latent, *plane, device=self.device) for plane in planes])

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
