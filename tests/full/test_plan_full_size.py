"""What the plan counts is what a step really takes, at SDXL's full size on a CPU."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import torch
from benchmarks.step import inputs, make_step, modes
from brushwork.models.spec import SDXL

def resident(which):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(which)) * 1024

torch.set_num_threads(1)
device = torch.device("cpu")
(mode,) = modes(SDXL, device, [sys.argv[1]])
mode.prepare()
small, given = inputs(SDXL, 128, 1, device), inputs(SDXL, int(sys.argv[2]), 1, device)
make_step(mode, small, optimizer=None)  # what the libraries set up once
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
before = resident("VmRSS")
make_step(mode, given, optimizer=None)
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
    print(f"{policy} at {resolution} px: {taken:.3f} GiB taken, {expected:.3f} counted")

    assert taken == pytest.approx(expected, rel=0.15)
