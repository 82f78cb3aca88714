"""Times sep4d beside PyTorch and burn on this machine and prints one table of ratios.

All sides do the same from the same numbers; what they get is compared before it is timed. Samples are interleaved: each
round times every side once, so that whatever else the machine does falls on all alike.

Example: python benches/peers/compare.py --case step:demo:4:32x32x8 --peer torch-f32
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CASES = [
    "conv3d:16:16:128x128x8",
    "conv3d:64:64:64x64x4",
    "conv3d:128:128:64x64x4",
    "step:demo:4:32x32x8",
    "step:demo:4:64x64x8",
    "step:demo:8:32x32x8:dynamic_city",
    "step:demo:8:32x32x8:occ_sora",
]
CUDA_CASES = ["step:paper:16:128x128x8", "step:paper:16:128x128x8:f16"]
# A sample runs a part as often as it takes to last this long.
SAMPLE_SECS = 0.3
# Results that differ by more are not the same computation: for single precision, and for the others.
TOLERANCE, ROUGH_TOLERANCE = 1e-3, 5e-2


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Side:
    """A process that obeys requests: ours or a peer's."""

    name: str
    command: list[str]
    tolerance: float = TOLERANCE
    kinds: tuple[str, ...] = ("conv3d", "step")
    process: subprocess.Popen | None = None

    def ask(self, request: str, **parameters: object) -> dict:
        """The answer; `{"error": ...}` if there is none."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        try:
            self.process.stdin.write(json.dumps({request: parameters}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            self.process = None
            return {"error": f"ended with code {code}"}
        return json.loads(line)

    def cpu_secs(self) -> float:
        """CPU time of the process so far; 0 where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends the process by closing its input."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


@dataclass
class Timing:
    """What one side needed for one part of one case."""

    repeat: int = 1
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def sample(self, side: Side, part: str) -> str | None:
        """Takes one; a sentence if it cannot be taken."""
        before = side.cpu_secs()
        answer = side.ask("time", part=part, repeat=self.repeat)
        if "error" in answer:
            return answer["error"]
        self.cpu += side.cpu_secs() - before
        self.seconds.append(answer["seconds"])
        return None

    def calibrate(self, side: Side, part: str) -> str | None:
        """Warms up and chooses how often a sample repeats the part."""
        for _ in range(2):
            why = self.sample(side, part)
            if why:
                return why
            self.repeat = max(1, min(1000, round(SAMPLE_SECS / max(self.seconds[-1], 1e-6))))
        self.seconds, self.cpu = [], 0.0
        return None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_per_run(self) -> float:
        return self.cpu / (self.repeat * len(self.seconds))


def describe(case: str) -> tuple[str, dict, list[str]]:
    """The request that prepares a case, its parameters, and its parts."""
    kind, *rest = case.split(":")
    if kind == "conv3d" and len(rest) == 3:
        inputs, outputs, size = rest
        parameters = {"inputs": int(inputs), "outputs": int(outputs)}
        return kind, parameters | {"size": sides(size)}, ["forward", "data", "weight"]
    precision = rest.pop() if rest[-1:] == ["f16"] else "f32"
    model = rest.pop() if len(rest) == 4 else "sep4d"
    if kind == "step" and len(rest) == 3:
        preset, frames, size = rest
        parameters = {"preset": preset, "frames": int(frames), "size": sides(size)}
        return kind, parameters | {"architecture": model, "precision": precision}, ["step"]
    sys.exit(f"--case {case}: give conv3d:INPUTS:OUTPUTS:XxYxZ or step:PRESET:FRAMES:XxYxZ[:MODEL][:f16]")


def sides(size: str) -> list[int]:
    return [int(side) for side in size.split("x")]


def cargo_executable(target: str, *options: str) -> str:
    """Builds one of the Rust sides and returns its path."""
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", str(HERE / "Cargo.toml")]
    command += ["--target-dir", str(ROOT / "target" / "peers"), "--bin", target, *options]
    built = subprocess.run([*command, "--message-format=json-render-diagnostics"], stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise OSError(f"`{' '.join(command)}` failed")
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    return next(message["executable"] for message in messages if message.get("executable"))


def torch_sides(python: str, threads: int) -> tuple[list[Side], str]:
    """PyTorch's sides, and what they are; none and why if there is no PyTorch."""
    script = [python, str(HERE / "torch_peer.py")]
    try:
        probe = subprocess.run([*script, "--probe"], capture_output=True, text=True)
    except OSError as why:
        return [], f"{python} cannot be run: {why.strerror}"
    if probe.returncode != 0:
        return [], probe.stderr.strip().splitlines()[-1]
    about = json.loads(probe.stdout)
    device = "cuda" if about["cuda"] else "cpu"
    found = []
    for precision in ["f32", "tf32", "amp"] if about["cuda"] else ["f32", "amp"]:
        for mode in ["eager", "compile"]:
            command = [*script, "--device", device, "--precision", precision, "--threads", str(threads)]
            name = f"torch-{precision}" if mode == "eager" else f"torch-{precision}-compile"
            tolerance = TOLERANCE if precision == "f32" else ROUGH_TOLERANCE
            found.append(Side(name, command + (["--compile"] if mode == "compile" else []), tolerance))
    return found, f"PyTorch {about['version']} on {about['cuda'] or 'the CPU'}"


def table(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


@dataclass
class Row:
    """One part of one case, timed on every side that can do it."""

    case: str
    part: str
    flops: int
    timings: dict[str, Timing]
    errors: dict[str, float]
    wrong: set[str]


def run_case(case: str, ours: Side, peers: list[Side], rounds: int) -> list[Row]:
    """Prepares a case on all sides, compares, then times its parts."""
    request, parameters, parts = describe(case)
    with tempfile.TemporaryDirectory(prefix="sep4d-peers-") as folder:
        about = ours.ask(request, folder=folder, **parameters)
        if "error" in about:
            say(f"{case}: ours: {about['error']}")
            return []
        able, errors, wrong = [ours], {}, {}
        for peer in (peer for peer in peers if request in peer.kinds):
            answer = peer.ask(request, folder=folder, **parameters)
            if "error" in answer:
                say(f"{case}: {peer.name}: {answer['error']}")
                continue
            able.append(peer)
            errors[peer.name] = answer["errors"]
            # Signs of gradients that are nearly 0 decide Adam's first steps, of which batch norms of nearly equal codes make much.
            is_rough = parameters.get("precision") == "f16" or parameters.get("architecture") == "occ_sora"
            tolerance = ROUGH_TOLERANCE if is_rough else peer.tolerance
            wrong[peer.name] = {name for name, error in answer["errors"].items() if not error <= tolerance}
            for name in sorted(wrong[peer.name]):
                say(f"{case}: {peer.name}: {name} differs from ours by {answer['errors'][name]:.2g} of its norm")
    rows = []
    results = {"forward": ["y"], "data": ["d_x"], "weight": ["d_weight", "d_bias"]}
    for part in parts:
        timings = {side.name: Timing() for side in able}
        for side in list(able):
            why = timings[side.name].calibrate(side, part)
            if why:
                say(f"{case}: {side.name}: {part}: {why}")
                del timings[side.name]
        for _ in range(rounds):
            for side in able:
                if side.name in timings:
                    timings[side.name].sample(side, part)
        of_part = {
            peer: max(value for name, value in found.items() if part not in results or name in results[part])
            for peer, found in errors.items()
        }
        bad = {peer for peer, names in wrong.items() if part not in results or names & set(results[part])}
        bad = {peer for peer in bad if wrong[peer]}
        rows.append(Row(case, part, about["flops"], timings, of_part, bad))
    return rows


def total(rows: list[Row]) -> Row | None:
    """The three passes of a convolution together."""
    if len(rows) < 2:
        return None
    names = set.intersection(*(set(row.timings) for row in rows))
    timings = {}
    for name in names:
        each = [row.timings[name] for row in rows]
        seconds = sum(timing.median for timing in each)
        timings[name] = Timing(1, [seconds], sum(timing.cpu_per_run for timing in each))
    errors = {name: max(row.errors.get(name, 0.0) for row in rows) for name in names}
    return Row(rows[0].case, "all", sum(row.flops for row in rows), timings, errors, set().union(*(r.wrong for r in rows)))


def milliseconds(secs: float) -> str:
    return f"{secs * 1e3:.3g}" if secs < 0.1 else f"{secs * 1e3:.0f}"


def cell(row: Row, peer: str) -> str:
    if peer not in row.timings or "ours" not in row.timings:
        return "-"
    ratio = row.timings["ours"].median / row.timings[peer].median
    return f"{ratio:.2f}" + ("*" if peer in row.wrong else "")


def report(rows: list[Row], peers: list[str]) -> str:
    """The table: our time, our rate, and ours / theirs for each peer; below 1 we are faster."""
    lines = [["", "ours ms", "GFLOP/s", *peers]]
    for row in rows:
        ours = row.timings.get("ours")
        if ours is None:
            continue
        name = row.case if row.part == "step" else f"{row.case} {row.part}"
        rate = row.flops / ours.median * 1e-9
        lines.append([name, milliseconds(ours.median), f"{rate:.1f}", *(cell(row, peer) for peer in peers)])
    text = table(lines)
    if any(row.wrong for row in rows):
        text += "\n* differs from ours by more than the tolerance, see above: no comparison of like with like"
    return text


def as_json(rows: list[Row]) -> list[dict]:
    return [
        {
            "case": row.case,
            "part": row.part,
            "flops": row.flops,
            "sides": {
                name: {
                    "median_secs": timing.median,
                    "fastest_secs": min(timing.seconds),
                    "cpu_secs": timing.cpu_per_run,
                    "samples": len(timing.seconds),
                    "repeat": timing.repeat,
                    "error": row.errors.get(name),
                    "agrees": name not in row.wrong,
                }
                for name, timing in row.timings.items()
            },
        }
        for row in rows
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help=f"repeatable; default: {' '.join(CASES)}")
    parser.add_argument("--peer", action="append", help="repeatable: burn, torch-f32, torch-f32-compile, torch-amp, ...; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side that computes on the CPU")
    parser.add_argument("--python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    arguments = parser.parse_args()
    for variable in ("LP_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)

    wanted = arguments.peer
    if shutil.which("cargo") is None:
        sys.exit("cargo is missing; install Rust from https://rustup.rs")
    try:
        ours = Side("ours", [cargo_executable("ours")])
    except OSError as why:
        sys.exit(f"our own side cannot be built: {why}")
    peers: list[Side] = []
    if wanted is None or "burn" in wanted:
        try:
            peers.append(Side("burn", [cargo_executable("burn", "--features", "burn")], kinds=("conv3d",)))
        except OSError as why:
            say(f"burn is left out: {why}")
    if wanted is None or any(name.startswith("torch") for name in wanted):
        found, about = torch_sides(arguments.python, arguments.threads)
        say(about if found else f"PyTorch is left out: {about}")
        peers += found
    peers = [peer for peer in peers if wanted is None or peer.name in wanted]

    on_cuda = any("cuda" in peer.command for peer in peers)
    cases = arguments.case or CASES + (CUDA_CASES if on_cuda else [])
    began = time.monotonic()
    rows = []
    try:
        for case in cases:
            found = run_case(case, ours, peers, arguments.rounds)
            whole = total(found)
            found += [whole] if whole else []
            rows += found
            say(report(found, [peer.name for peer in peers]) if found else "")
    finally:
        for side in [ours, *peers]:
            side.end()
    say("")
    print(f"ours / theirs, medians of {arguments.rounds} interleaved samples, {arguments.threads} threads; below 1 we are faster")
    print(report(rows, [peer.name for peer in peers]))
    print(f"took {time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
