"""Whether the wheels install and run where there is neither a checkout nor a compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import version
from zig import TARGETS, this_machine

STORY = ["generate", "Once upon a time", "-n", "16", "--temperature", "0", "--backend"]


def packages(out: Path, tag: str) -> list[str]:
    """The packages that have a wheel with this platform tag."""
    return sorted(path.name.split("-")[0] for path in out.glob(f"*-{tag}.whl"))


def faults(out: Path) -> list[str]:
    """Install all wheels for this machine into an empty environment and run them; what went wrong.

    Each backend must tell the story that it tells in this checkout.
    """
    uv = shutil.which("uv")
    assert uv is not None
    with tempfile.TemporaryDirectory(prefix="sis-trial-") as folder:
        place = Path(folder, "env")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
        programs = next(p for p in (place / "bin", place / "Scripts") if p.is_dir())
        env = {**os.environ, "PATH": str(programs), "VIRTUAL_ENV": str(place)}
        env.pop("PYTHONPATH", None)

        def run(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(
                    f"{' '.join(command[:6])} … exited with {done.returncode}:\n{done.stdout}{done.stderr}"
                )
            return done.stdout

        native = packages(out, TARGETS[this_machine()][1])
        wanted = [f"{name}=={version.read(version.ROOT)}" for name in (*packages(out, "any"), *native)]
        try:
            run(uv, "pip", "install", "--quiet", "--no-build", "--find-links", str(out), *wanted)
            plugins = [json.loads(line) for line in run(str(programs / "sis"), "plugins", "--json").splitlines()]
            backends = (*(name.removeprefix("sis_") for name in native), "numpy")
            found = {name: run(str(programs / "sis"), *STORY, name) for name in backends}
        except RuntimeError as error:
            return [str(error)]
    wrong = [f"plugin {plugin['name']}: {plugin['problem']}" for plugin in plugins if plugin["problem"]]
    for name, story in found.items():
        here = [sys.executable, "-m", "sis_core", *STORY, name]
        told = subprocess.run(here, cwd=version.ROOT, capture_output=True, text=True, check=True).stdout
        if story != told:
            wrong.append(f"on {name} the wheels tell {story!r}, this checkout {told!r}")
    return wrong
