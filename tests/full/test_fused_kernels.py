"""The Triton kernels of `train.fused` give PyTorch's numbers: checked in its interpreter, which needs no card."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full
CHECKS = Path(__file__).with_name("interpreted_kernels.py")


HALF, WHOLE, CONSTANT = "*bf16", "*fp32", "constexpr"
SIZES = dict.fromkeys(("size", "places", "groups", "parts"), "i32")
GROUP = {"mean": WHOLE, "rstd": WHOLE, "weight": HALF, "bias": HALF}
SLOPES = {**GROUP, "sums": WHOLE, "products": WHOLE, **SIZES}
ARGUMENTS: dict[str, dict[str, str]] = {
    "group_moments": {"x": HALF, "means": WHOLE, "squares": WHOLE, "size": "i32", "parts": "i32"},
    "group_normed": {"x": HALF, "y": HALF, **GROUP, "means": WHOLE, "squares": WHOLE, **SIZES, "eps": "fp32"},
    "group_slopes": {"x": HALF, "d_y": HALF, **SLOPES},
    "group_gradient": {"x": HALF, "d_y": HALF, "d_x": HALF, **SLOPES},
    "gate": {"both": HALF, "y": HALF, "width": "i32"},
    "rows_rounded": {"rows": HALF, "factors": WHOLE, "codes": "*i8", "scales": WHOLE, "width": "i32"},
    "sums_scaled": {
        "sums": "*i32",
        "y": HALF,
        **dict.fromkeys(("scales", "factors"), WHOLE),
        "bias": HALF,
        "width": "i32",
    },
    "gate_gradient": {"both": HALF, "d_y": HALF, "d_both": HALF, "width": "i32"},
}


@pytest.fixture(autouse=True)
def triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.fail("Triton is not here, so its kernels cannot be checked: pip install triton (on Linux)")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_kernel_compiles_for_cards_of_three_kinds(name: str, capability: int) -> None:
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from brushwork.lean import triton_kernels

    kernel = getattr(triton_kernels, name)
    for known in (True, False):
        flags = ("SILU", "KNOWN", "WHOLE", "HAS_FACTORS", "HAS_BIAS")
        constants = {"BLOCK": 1024, "LARGEST": 127.0, **dict.fromkeys(flags, known)}
        constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
        signature = {key: ARGUMENTS[name].get(key, CONSTANT) for key in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        assert compiled(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def test_rows_are_rounded_to_fp8_by_cards_that_have_it() -> None:
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from brushwork.lean.triton_kernels import rows_rounded

    signature = dict.fromkeys(rows_rounded.arg_names, CONSTANT) | ARGUMENTS["rows_rounded"] | {"codes": "*fp8e4nv"}
    constants = {"BLOCK": 1024, "LARGEST": 448.0, "WHOLE": False, "HAS_FACTORS": True}
    source = ASTSource(fn=rows_rounded, signature=signature, constexprs=constants)
    assert compiled(source, target=GPUTarget("cuda", 89, 32)).asm["cubin"]


def test_every_kernel_gives_pytorchs_numbers() -> None:
    # In a process of its own: Triton decides when it is imported whether it interprets.
    program = [sys.executable, "-m", "pytest", str(CHECKS), "-m", "full", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        program,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
