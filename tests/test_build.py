"""How the kernel is built: for each instruction set alone, with torch's threads, and not at all without a compiler."""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "licenses", "csrc", "src"


def build_without_compiler(folder, **environment):
    """Run `pip wheel` on a copy of the sources where no compiler can be found."""
    pytest.importorskip("scikit_build_core")
    for name in SOURCES:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    without = os.environ | {"CXX": "/nowhere/c++", "REGARD_KERNEL": ""} | environment
    return subprocess.run([*pip, folder], env=without, capture_output=True, text=True)


def test_without_a_compiler_the_package_has_no_kernel_and_says_so(tmp_path):
    built = build_without_compiler(tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "package")
    # -S leaves out the editable install's own way of finding regard.
    paths = [str(tmp_path / "package"), sysconfig.get_path("purelib")]
    ask = f"import sys; sys.path += {paths!r}; from regard.cli import main; main()"
    asked = subprocess.run([sys.executable, "-IS", "-c", ask, "backends", "--json"], capture_output=True, text=True)
    result = {row["name"]: row for row in json.loads(asked.stdout)}
    assert result["torch"]["serves"]
    assert not result["cpu"]["serves"]
    assert "compiler" in result["cpu"]["reasons"][0]


def test_a_kernel_that_is_asked_for_and_cannot_be_built_is_an_error(tmp_path):
    built = build_without_compiler(tmp_path, REGARD_KERNEL="1")
    assert built.returncode != 0
    assert "CMake configuration failed" in built.stdout + built.stderr


HEADERS = sorted([*(ROOT / "csrc/kernel").glob("*.hpp"), *(ROOT / "csrc/tests").glob("*.hpp")])
FLAGS = {
    "simd_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "simd_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a compiler")
@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.stem)
def test_a_header_includes_what_it_uses(header):
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    if (header.stem in FLAGS) > is_x86 or (header.stem == "simd_neon" and is_x86):
        pytest.skip("for another processor")
    command = ["c++", "-std=c++20", "-fsyntax-only", *FLAGS.get(header.stem, []), "-x", "c++", "-include", header]
    compiled = subprocess.run([*command, os.devnull], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr


def objects():
    """What was compiled for each instruction set, where the build's folder is still there."""
    return sorted(ROOT.glob("build/cp*/CMakeFiles/kernel.dir/csrc/kernel/isa/*.o"))


@pytest.mark.skipif(not (shutil.which("nm") and objects()), reason="needs nm and the folder of the build")
@pytest.mark.parametrize("compiled", objects(), ids=lambda path: path.name.split(".")[0])
def test_an_instruction_set_gives_the_linker_nothing_but_its_kernel(compiled):
    # Else the linker could take a function compiled for one processor for that of another.
    listed = subprocess.run(
        ["nm", "--extern-only", "--defined-only", compiled], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    functions = [name for name in names if not name.startswith("DW.ref.")]  # the unwinder's, data
    assert len(functions) == 1
    assert compiled.name.split(".")[0] in functions[0]


CPUINFO = Path("/proc/cpuinfo")
HAS_AMX = CPUINFO.exists() and {"amx_bf16", "amx_int8", "avx512_bf16"} <= set(CPUINFO.read_text().split())


@pytest.mark.skipif(not HAS_AMX, reason="this processor has no tile registers")
@pytest.mark.skipif(not any("amx" in compiled.name for compiled in objects()), reason="amx was not compiled here")
def test_tile_registers_are_used_where_they_are_built_in():
    kernel = pytest.importorskip("regard._kernel")
    assert kernel.kernels()[:2] == ["amx", "avx512bf16"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads in /proc")
def test_the_kernel_works_with_torchs_threads():
    pytest.importorskip("regard._kernel")
    count = """
import os, torch, regard
torch.set_num_threads(2)
def threads(): return len(os.listdir("/proc/self/task"))
alone = threads()
torch.ones(2000, 2000) + 1
with_torch = threads()
regard.attention(*torch.randn(3, 8, 256, 64), backend="cpu")
print(alone, with_torch, threads())
"""
    told = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    alone, with_torch, with_regard = map(int, told.stdout.split())
    assert alone < with_torch == with_regard
