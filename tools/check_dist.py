"""Check what `make dist` built: metadata with twine, then the wheel in an environment that has nothing else.

The wheel is installed without extras into a new virtual environment, and tried there as a user of
the library would: a coreset of arrays with nothing compiled yet, the command's version, and commands
that lack an extra. What each distribution takes on the disk is printed.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MB = 500
_CORESET = """
import sys
import numpy as np
import d2prune
rows = np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32)
coreset = d2prune.d2_prune(rows, rows[:, 0], fraction=0.3)
assert len(coreset.indices) == 6_000
assert not {"torch", "ray", "open_clip", "s3fs"} & set(sys.modules)
print(coreset)
"""
# Arguments of `d2prune`, the exit code and a part of what is printed.
_COMMANDS = (
    (["--version"], 0, "d2prune "),
    (["models"], 2, "pip install 'd2prune[clip]'"),
    (["demo"], 2, "pip install 'd2prune[demo]'"),
    (["verify", "s3://bucket/output"], 2, "pip install 'd2prune[s3]'"),
)


def _run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # A PYTHONPATH with the sources would make pip find the package installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)


def _expect(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    output = done.stdout + done.stderr
    if done.returncode != code or text not in output:
        sys.exit(
            f"{done.args}: found exit code {done.returncode} and:\n{output}\nexpected {code} and: {text}"
        )


def measure(folder: Path) -> dict[str, float]:
    """Megabytes of each distribution in an environment, without bytecode and the installer; largest first."""
    (packages,) = folder.glob("lib/python*/site-packages")
    found = {}
    for one in importlib.metadata.distributions(path=[str(packages)]):
        if one.name not in ("pip", "setuptools"):
            files = {Path(str(file.locate())) for file in one.files or [] if "__pycache__" not in file.parts}
            found[f"{one.name} {one.version}"] = sum(path.lstat().st_size for path in files) / 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main() -> None:
    """Check the only wheel and sdist in `dist/`."""
    (wheel,), (sdist,) = (sorted((ROOT / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    _expect(_run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist), 0, "PASSED")
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        _expect(_run(sys.executable, "-m", "venv", folder), 0, "")
        binaries, constraints = Path(folder, "bin"), ROOT / "constraints.txt"
        _expect(_run(binaries / "pip", "install", "--quiet", "--constraint", constraints, wheel), 0, "")
        installed = time.monotonic()
        # Kernels are kept in a folder that is empty, and removed with the rest.
        empty = {"XDG_CACHE_HOME": str(Path(folder, "cache")), "NUMBA_CACHE_DIR": ""}
        compiled = _run(binaries / "python", "-I", "-c", _CORESET, **empty)
        _expect(compiled, 0, "6,000 of 20,000")
        _expect(compiled, 0, "compiling kernels")
        first = time.monotonic()
        for arguments, code, text in _COMMANDS:
            _expect(_run(binaries / "d2prune", *arguments), code, text)
        sizes = measure(Path(folder))
    size = sum(sizes.values())
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB; installed in {installed - start:.0f} s")
    print(f"first coreset, with compilation: {first - installed:.0f} s")
    print(f"{size:.0f} MB on the disk: " + ", ".join(f"{name} {mb:.1f}" for name, mb in sizes.items()))
    if size > LIMIT_MB:
        sys.exit(f"found {size:.0f} MB; expected at most {LIMIT_MB}")
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    if "example.com" in source:
        print(f"Before an upload: set project.urls.Source, which is still {source}")


if __name__ == "__main__":
    main()
