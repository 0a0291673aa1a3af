"""Check what `make dist` built: metadata with twine, then the wheel in an environment that has nothing else.

The wheel is installed without extras into a new virtual environment, and tried there as a user of
the library would: a coreset of arrays, the command's version, and a command that lacks an extra.
"""

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MB = 600
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


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # A PYTHONPATH with the sources would make pip find the package installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)


def _expect(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    output = done.stdout + done.stderr
    if done.returncode != code or text not in output:
        sys.exit(
            f"{done.args}: found exit code {done.returncode} and:\n{output}\nexpected {code} and: {text}"
        )


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
        _expect(_run(binaries / "python", "-I", "-c", _CORESET), 0, "6,000 of 20,000")
        first = time.monotonic()
        for arguments, code, text in _COMMANDS:
            _expect(_run(binaries / "d2prune", *arguments), code, text)
        size = sum(path.lstat().st_size for path in Path(folder, "lib").rglob("*") if path.is_file()) / 1e6
    print(f"{wheel.name}: installed in {installed - start:.0f} s, {size:.0f} MB")
    print(f"first coreset, with compilation: {first - installed:.0f} s")
    if size > LIMIT_MB:
        sys.exit(f"found {size:.0f} MB; expected at most {LIMIT_MB}")
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    if "example.com" in source:
        print(f"Before an upload: set project.urls.Source, which is still {source}")


if __name__ == "__main__":
    main()
