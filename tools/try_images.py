"""Execute the Dockerfiles of `deploy/docker/` without a container engine.

The base image is replaced by a bare Debian root with what that image promises: Python, Ray, and a
user `ray` without other rights. Every instruction then runs in that root in its order, as its user,
with its environment and its build context; the first that fails ends the program with 1. Requires
root, debootstrap, and the package registries. What was executed is recorded in
`deploy/docker/tried.json`, and `tests/tools/test_try_images.py` fails for a Dockerfile that differs.

    python -m tools.try_images
"""

import argparse
import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "deploy" / "docker"
TRIED = DOCKER / "tried.json"
_UID, _GID, _HOME = 1000, 100, "/home/ray"
_PYTHON = f"{_HOME}/anaconda3"
_CHECKS = (
    "d2prune --version",
    "python -c 'import open_clip, ray, s3fs, torch, torchvision'",
    "python jobs/filter.py --help > /dev/null",
    "test $(id -u) = 1000",
)


@dataclass(frozen=True)
class Instruction:
    """A line of a Dockerfile: its name, such as `RUN`, and the rest, joined to one line."""

    name: str
    text: str


@dataclass
class Stage:
    """A root folder on the way from the base image to the image.

    Attributes:
        root: the folder.
        mounts: folders of this machine that commands may read, at the same path.
        environment: of the commands.
        folder: in which they run.
        user: who runs them.
    """

    root: Path
    mounts: Sequence[Path]
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = _HOME
    user: str = "ray"


def parse(text: str) -> list[Instruction]:
    """Instructions of a Dockerfile.

    Raises:
        ValueError: names the first instruction that cannot be tried.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    instructions = []
    for line in joined.splitlines():
        name, _, rest = line.partition(" ")
        if name not in _EXECUTE:
            raise ValueError(f"{line}: found {name}; expected one of {', '.join(sorted(_EXECUTE))}")
        instructions.append(Instruction(name, rest.strip()))
    return instructions


def fingerprint(instructions: Sequence[Instruction]) -> str:
    """Digest of the instructions, without comments and layout."""
    text = "\n".join(f"{one.name} {one.text}" for one in instructions)
    return hashlib.sha256(text.encode()).hexdigest()


def context_files(names: Sequence[str], ignore: str) -> list[str]:
    """The files that `.dockerignore` leaves: the last pattern that matches decides.

    Args:
        names: paths relative to the context.
        ignore: text of `.dockerignore`.
    """
    patterns = [line.strip() for line in ignore.splitlines() if line.strip() and not line.startswith("#")]

    def is_left(name: str) -> bool:
        kept = True
        parents = ["/".join(name.split("/")[: n + 1]) for n in range(name.count("/") + 1)]
        for pattern in patterns:
            bare = pattern.removeprefix("!").strip("/")
            forms = [bare, bare.removeprefix("**/")]
            if any(fnmatch.fnmatchcase(parent, form) for parent in parents for form in forms):
                kept = pattern.startswith("!")
        return kept

    return [name for name in names if is_left(name)]


def _from(stage: Stage, text: str) -> None:
    """Give the root what the base image has: its Python and its Ray."""
    found = re.fullmatch(r"rayproject/ray:([\d.]+)-py3(\d+)-cpu", text)
    if not found:
        sys.exit(f"FROM {text}: expected rayproject/ray:VERSION-pyVERSION-cpu")
    stage.environment |= {"HOME": _HOME, "PATH": f"{_PYTHON}/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    stage.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    _run(stage, f"python3.{found[2]} -m venv {_PYTHON}")
    _run(stage, f"pip install --quiet 'ray[default]=={found[1]}' setuptools wheel")


def _env(stage: Stage, text: str) -> None:
    stage.environment |= dict(word.split("=", 1) for word in shlex.split(text))


def _workdir(stage: Stage, text: str) -> None:
    stage.folder = text
    folder = stage.root / text.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    # BuildKit gives a new WORKDIR to root; the images' later COPY --chown fill it.
    os.chown(folder, _UID, _GID)


def _copy(stage: Stage, text: str) -> None:
    *sources, target = [word for word in text.split() if not word.startswith("--")]
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True)
    files = context_files(names.stdout.splitlines(), (ROOT / ".dockerignore").read_text())
    for source in sources:
        found = [name for name in files if name == source or name.startswith(f"{source}/")]
        if not found:
            sys.exit(f"COPY {text}: found no {source} in the build context")
        for name in found:
            inside = name.removeprefix(source).strip("/") or Path(name).name
            path = stage.root / stage.folder.strip("/") / target / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, path)
    subprocess.run(["chown", "-R", f"{_UID}:{_GID}", stage.root / stage.folder.strip("/")], check=True)


def _user(stage: Stage, text: str) -> None:
    stage.user = text


def _run(stage: Stage, text: str) -> None:
    """Run a command in the root, in namespaces of its own.

    The mounts are gone when it ends.
    """
    root, words = shlex.quote(str(stage.root)), []
    for place in map(str, stage.mounts):
        inside = shlex.quote(f"{stage.root}{place}")
        words.append(f"mkdir -p {inside} && mount --bind -o ro {shlex.quote(place)} {inside}")
    words += [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    variables = shlex.join(f"{name}={value}" for name, value in stage.environment.items())
    inner = shlex.quote(f"cd {shlex.quote(stage.folder)} && {text}")
    owner = f"{_UID}:{_GID}" if stage.user == "ray" else "0:0"
    words.append(f"exec chroot --userspec={owner} {root} /usr/bin/env -i {variables} /bin/sh -c {inner}")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", " && ".join(words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\nRUN {text}\nfailed with exit code {done.returncode}")


_EXECUTE = {
    "FROM": _from,
    "ENV": _env,
    "WORKDIR": _workdir,
    "COPY": _copy,
    "USER": _user,
    "RUN": _run,
}


def make_bare_root(root: Path) -> None:
    """A minimal Debian with Python, certificates, the user `ray`, and this machine's pip configuration."""
    packages = "python3,python3-venv,ca-certificates"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(root / "etc/passwd", "a") as passwd:
        passwd.write(f"ray:x:{_UID}:{_GID}::{_HOME}:/bin/bash\n")
    (root / _HOME.strip("/")).mkdir(parents=True)
    os.chown(root / _HOME.strip("/"), _UID, _GID)
    for name in ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).exists():
            shutil.copyfile(Path("/", name), root / name)


def try_image(path: Path, bare: Path, folder: Path, mounts: Sequence[Path]) -> None:
    """Execute a Dockerfile in a copy of a bare root; exits at the first instruction that fails."""
    root = folder / path.stem
    subprocess.run(["cp", "--archive", bare, root], check=True)
    stage = Stage(root, mounts)
    for one in [*parse(path.read_text()), *(Instruction("RUN", check) for check in _CHECKS)]:
        start = time.monotonic()
        _EXECUTE[one.name](stage, one.text)
        print(f"{path.name}: {time.monotonic() - start:6.1f} s  {one.name} {one.text[:80]}", flush=True)
    shutil.rmtree(root)


def main() -> None:
    """Try each Dockerfile, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as cpu; default: every Dockerfile")
    parser.add_argument(
        "--mount", action="append", default=[], type=Path, help="folder of wheels that pip may read"
    )
    parser.add_argument("--folder", type=Path, help="folder for the roots; it needs 8 GB")
    arguments = parser.parse_args()
    paths = sorted(DOCKER.glob("*.Dockerfile"))
    tried = json.loads(TRIED.read_text()) if TRIED.exists() else {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="images-") as folder:
        os.chmod(folder, 0o755)
        bare = Path(folder, "bare")
        make_bare_root(bare)
        for path in paths:
            if not arguments.names or path.stem in arguments.names:
                try_image(path, bare, Path(folder), arguments.mount)
                tried[path.name] = fingerprint(parse(path.read_text()))
                TRIED.write_text(json.dumps(tried, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
