"""Build hook: with SESSILE_COMPILE=1 a wheel holds the balancer's data path compiled by mypyc, beside its source.

The Python source is what is written, tested and, by default, shipped: without the variable, in an editable install, and
where there is no C compiler or no Python headers (one line says so) the wheel is pure. Nothing else of the package is
compiled. Run as a script, it compiles into a folder: hatch_build.py FOLDER.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).resolve().parent / "src"
MODULES = ("client", "flow", "phases", "request_head", "servers", "upstream", "usual", "worker")
"""Of `sessile.balancer`: what every request passes through."""
TOOLS = ["mypy>=1.15", "setuptools>=65"]


class CompileBalancer(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled modules to the wheel."""

    def dependencies(self) -> list[str]:
        return TOOLS if is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not is_wanted():
            return
        self._folder = tempfile.TemporaryDirectory(prefix="sessile-compiled-")
        folder = Path(self._folder.name)
        try:
            compiled = compile_into(folder)
        except OSError as problem:
            self.app.display_warning(f"the balancer is not compiled, this wheel is pure Python: {problem}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in compiled:
            build_data["force_include"][str(path)] = str(path.relative_to(folder))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del version, build_data, artifact_path
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def is_wanted() -> bool:
    """Compiling was asked for."""
    return os.environ.get("SESSILE_COMPILE") == "1"


def compile_into(folder: Path) -> list[Path]:
    """The compiled modules, in the package's folders under `folder`; OSError with the reason where that cannot be done."""
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this very file
    compiled = sorted(folder.rglob("*.so"))
    if done.returncode or len(compiled) <= len(MODULES):
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        reasons = [line for line in said if "error" in line.lower()] or said or ["no reason given"]
        raise OSError(reasons[0])
    return compiled


def main() -> None:
    """Compile the modules into the folder that is named."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only a build that compiles has it
    from setuptools import setup  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="sessile-c-") as scratch:
        os.chdir(SOURCE)
        options = ["--config-file=", f"--cache-dir={scratch}/mypy", "--ignore-missing-imports"]
        paths = [f"sessile/balancer/{name}.py" for name in MODULES]
        extensions = mypycify([*options, *paths], target_dir=scratch, debug_level="0", group_name="sessile_balancer")
        where = ["--build-lib", str(Path(sys.argv[1]).resolve()), "--build-temp", scratch]
        setup(name="sessile", packages=[], ext_modules=extensions, script_args=["--quiet", "build_ext", *where])


if __name__ == "__main__":
    main()
