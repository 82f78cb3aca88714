#!/usr/bin/env python3
"""Trains for hours with the window open, and says whether memory, descriptors and threads stayed what they were.

Generates a data set of 60,000 small frames, begins a run in it, opens the run in the window on a display of its own (Xvfb),
goes on with it by F5 and presses keys as a user would: frames, clips, views, panels, themes. Every ten seconds memory,
descriptors, threads and steps go into a CSV file. Needs Xvfb and xdotool; docs/reliability.md states what came of it.

Example: scripts/soak.py --sep4d target/release/sep4d --folder /tmp/soak --hours 2
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

# What is pressed now and then: what changes the view, and what saves; never what exports, stops or closes.
KEYS = (
    "space Left Right shift+Left shift+Right Home End l comma period Page_Up Page_Down Page_Down Page_Down shift+Page_Up "
    "shift+Page_Down n r t f o a d w s shift+a shift+d plus minus 1 2 3 grave shift+4 grave u c x v alt+Up alt+Down "
    "Escape ctrl+s ctrl+s ctrl+shift+l ctrl+0 ctrl+1 ctrl+2 ctrl+3 ctrl+4 ctrl+5 ctrl+6 ctrl+7 ctrl+8 ctrl+9 ctrl+shift+1 "
    "ctrl+shift+2 ctrl+shift+3 ctrl+shift+4 ctrl+shift+5 F8 ctrl+z ctrl+shift+z ctrl+m F7"
).split()
SIZES = ["1280 800", "1000 640", "1440 900", "1280 800"]
# Three traffic levels a town.
TOWNS, FRAMES_A_SEQUENCE = (18, 1, 1), 1000
FIELDS = ["secs", "rss_kib", "pss_kib", "anonymous_kib", "descriptors", "threads", "step"]
# Medians over so long a time are compared.
WINDOW_SECS = 600
ALLOWED_GROWTH = 0.02


def say(text):
    print(text, flush=True)


def generate(sep4d, town):
    """The data set: 60,000 frames of 16x16x8 voxels, 1 GB."""
    if (town / "sep4d_synth.json").is_file() and not (town / "INCOMPLETE.txt").exists():
        return
    train, val, test = map(str, TOWNS)
    grid = ["--grid", "16x16x8", "--voxel-size", "1.6x1.6x0.375", "--frames", str(FRAMES_A_SEQUENCE)]
    subprocess.run(
        [sep4d, "synth", town, *grid, "--towns", train, "--val-towns", val, "--test-towns", test], check=True
    )


def begin(sep4d, town, run):
    """A run of a few steps whose settings let it go on for days."""
    if (run / "config.toml").is_file():
        return
    settings = ["steps=1000000000", "log_every=200", "validate_every=2000", "checkpoint_every=2000"]
    command = [sep4d, "--train", "--preset", "tiny", "--data", town, "--output", run]
    command += [word for setting in settings for word in ("--set", f"train.{setting}")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    if process.wait() != 128 + signal.SIGTERM:
        sys.exit(f"the run could not begin: exit code {process.returncode}")


def last_step(run):
    """The step of the last line of the metrics."""
    with open(run / "metrics.jsonl", "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
        steps = re.findall(rb'"step":(\d+)', file.read())
    return int(steps[-1]) if steps else 0


def sample(pid, run, began):
    """One row of the CSV file."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(re.search(rf"^{name}:\s+(\d+) kB", rollup, re.M)[1]) for name in ("Rss", "Pss", "Anonymous")}
    return {
        "secs": round(time.monotonic() - began),
        "rss_kib": kib["Rss"],
        "pss_kib": kib["Pss"],
        "anonymous_kib": kib["Anonymous"],
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "step": last_step(run),
    }


class Window:
    """The program on a display of its own."""

    def __init__(self, sep4d, run, folder):
        self.random = random.Random(1)
        read, write = os.pipe()
        self.server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
            pass_fds=[write], stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as display:
            self.environment = os.environ | {
                "DISPLAY": ":" + display.readline().strip(),
                # What the user's own window remembers is neither used nor touched.
                "XDG_DATA_HOME": str(folder / "data-home"),
            }
        self.environment.pop("WAYLAND_DISPLAY", None)
        self.log = open(folder / "window.log", "w")
        self.process = subprocess.Popen(
            [sep4d, "--open", run], env=self.environment, stdout=self.log, stderr=subprocess.STDOUT, cwd=folder
        )
        found = self.xdotool("search", "--sync", "--onlyvisible", "--pid", str(self.process.pid), timeout=120)
        if not found:
            sys.exit("no window has opened: see window.log")
        self.id = found.split()[0]
        self.xdotool("windowfocus", "--sync", self.id)

    def xdotool(self, *words, timeout=30):
        try:
            done = subprocess.run(
                ["xdotool", *words], env=self.environment, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            # On a busy machine a key may come to nothing.
            return ""
        return done.stdout

    def press(self, key):
        self.xdotool("key", key)

    def train(self, run):
        """Presses F5 until steps are taken."""
        before = last_step(run)
        for _ in range(60):
            if self.process.poll() is not None:
                break
            self.press("F5")
            time.sleep(20)
            if last_step(run) > before:
                return
        sys.exit("the window did not begin to train: see window.log")

    def exercise(self):
        """What a user does in a moment."""
        for key in self.random.choices(KEYS, k=6):
            self.press(key)
        if self.random.random() < 0.2:
            self.xdotool("windowsize", self.id, *self.random.choice(SIZES).split())
        # Turns the view that lies there.
        x, y = self.random.randint(300, 700), self.random.randint(200, 400)
        self.xdotool("mousemove", str(x), str(y), "mousedown", "1", "mousemove_relative", "40", "20", "mouseup", "1")

    def close(self):
        """Ends the program as a desktop that shuts down does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()
            self.server.terminate()
            self.server.wait()


def verdict(rows, warm_up):
    """Prints medians of ten minutes each beside the first after the warm-up; true if nothing grew."""
    rows = [row for row in rows if row["secs"] >= warm_up]
    windows = {}
    for row in rows:
        windows.setdefault((row["secs"] - warm_up) // WINDOW_SECS, []).append(row)
    # A last window of a few samples says nothing.
    windows = [part for _, part in sorted(windows.items()) if len(part) >= 6]
    if len(windows) < 2:
        say("too short for a verdict")
        return False
    flat = True
    say(f"{'measure':<14}{'first':>10}{'last':>10}{'largest':>10}{'change':>9}   medians of 10 minutes")
    for name in FIELDS[1:-1]:
        medians = [statistics.median(row[name] for row in part) for part in windows]
        change = medians[-1] / medians[0] - 1
        grew = max(medians) > medians[0] * (1 + ALLOWED_GROWTH) if name.endswith("kib") else medians[-1] > medians[0]
        # The share in libraries depends on who else has them loaded.
        grew &= name != "pss_kib"
        flat &= not grew
        say(
            f"{name:<14}{medians[0]:>10.0f}{medians[-1]:>10.0f}{max(row[name] for row in rows):>10}{change:>+9.2%}   "
            + " ".join(f"{median:.0f}" for median in medians)
            + ("  GREW" if grew else "")
        )
    return flat


def read_rows(path):
    with open(path, newline="") as file:
        return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sep4d", default="target/release/sep4d", help="the program")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/sep4d-soak"), help="for data, run and figures")
    parser.add_argument("--hours", type=float, default=2.0, help="how long")
    parser.add_argument("--warm-up", type=int, default=1200, help="seconds that do not count")
    parser.add_argument("--verdict", type=Path, help="judge the figures of an earlier soak, and stop")
    options = parser.parse_args()
    if options.verdict:
        sys.exit(not verdict(read_rows(options.verdict), options.warm_up))

    sep4d, folder = os.path.abspath(options.sep4d), options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    town, run, figures = folder / "town", folder / "run", folder / "soak.csv"
    generate(sep4d, town)
    begin(sep4d, town, run)
    window = Window(sep4d, run, folder)
    window.train(run)
    began = time.monotonic()
    say(f"training in the window, process {window.process.pid}, from step {last_step(run)}; figures go to {figures}")
    with open(figures, "w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        while time.monotonic() - began < options.hours * 3600 and window.process.poll() is None:
            table.writerow(sample(window.process.pid, run, began))
            file.flush()
            if window.random.random() < 0.5:
                window.exercise()
            time.sleep(10 - (time.monotonic() - began) % 10)
    alive = window.process.poll() is None
    code = window.close()
    rows = read_rows(figures)
    flat = verdict(rows, options.warm_up)
    steps = rows[-1]["step"] - rows[0]["step"]
    say(f"{rows[-1]['secs']} s, {steps} steps; the window {'closed with' if alive else 'ended by itself with'} exit code {code}")
    index = json.loads((run / "checkpoints/index.json").read_text())
    say(f"last checkpoint: step {index['latest']}")
    sys.exit(not (flat and alive and code == 0 and steps > 0 and index["latest"] >= rows[-1]["step"] - 1))


if __name__ == "__main__":
    main()
