"""What the plan counts is what a step really takes, at SDXL's full size on a CPU."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from dataclasses import replace
import torch
from benchmarks.step import inputs, make_pass, modes
from brushwork.models.spec import SDXL

def resident(which):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(which)) * 1024

torch.set_num_threads(1)
device = torch.device("cpu")
(mode,) = modes(SDXL, device, [sys.argv[1]])
mode.prepare()
mode = replace(mode, flat=None)  # gradients are counted where they are made, not where they are collected
small, given = inputs(SDXL, 128, 1, device), inputs(SDXL, int(sys.argv[2]), 1, device)
make_pass(mode, small)  # what the libraries set up once
for parameter in mode.learning:
    parameter.grad = None
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
before = resident("VmRSS")
make_pass(mode, given)
print(json.dumps(resident("VmHWM") - before))
"""


@pytest.mark.full
@pytest.mark.parametrize("policy", ["keep", "ff"])
def test_a_step_of_sdxl_takes_what_is_counted(policy: str) -> None:
    from benchmarks.step import counted
    from brushwork.models.spec import SDXL

    resolution = 512
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, policy, str(resolution)], capture_output=True, text=True, check=True
    )
    taken = json.loads(done.stdout.splitlines()[-1]) / 2**30
    expected = counted(SDXL, resolution, 1, [policy])[policy]["peak_gib"]
    print(f"| {policy} at {resolution} px | {expected:.3f} | {taken:.3f} | {taken / expected:.2f} |")

    assert taken == pytest.approx(expected, rel=0.15)
