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
    "python -c 'import ray, s3fs'",
    # Imports torch and open_clip as a run does.
    "d2prune models ViT-B-32/openai",
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
    """Set what the base image sets. `make_base` has installed what it holds."""
    stage.environment |= {"HOME": _HOME, "PATH": f"{_PYTHON}/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    stage.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def _env(stage: Stage, text: str) -> None:
    stage.environment |= dict(word.split("=", 1) for word in shlex.split(text))


def _workdir(stage: Stage, text: str) -> None:
    # As the strictest engines do: a folder that does not exist belongs to root.
    stage.folder = text
    (stage.root / text.strip("/")).mkdir(parents=True, exist_ok=True)


def _copy(stage: Stage, text: str) -> None:
    words = text.split()
    *sources, target = [word for word in words if not word.startswith("--")]
    owner = (_UID, _GID) if "--chown=ray:users" in words else (0, 0)
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True)
    files = context_files(names.stdout.splitlines(), (ROOT / ".dockerignore").read_text())
    for source in sources:
        found = [name for name in files if name == source or name.startswith(f"{source}/")]
        if not found:
            sys.exit(f"COPY {text}: found no {source} in the build context")
        for name in found:
            inside = name.removeprefix(source).strip("/") or Path(name).name
            path = stage.root / stage.folder.strip("/") / target / inside
            new = [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, path)
            for made in [*new, path]:
                os.chown(made, *owner)


def _user(stage: Stage, text: str) -> None:
    stage.user = text


def _run(stage: Stage, text: str) -> None:
    """Run a command in the root, in its own namespaces.

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


def make_base(root: Path, image: str, mounts: Sequence[Path]) -> None:
    """A minimal Debian with what the base image promises, and this machine's pip configuration."""
    found = re.fullmatch(r"rayproject/ray:([\d.]+)-py3(\d+)-cpu", image)
    if not found:
        sys.exit(f"FROM {image}: expected rayproject/ray:VERSION-pyVERSION-cpu")
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
    stage = Stage(root, mounts)
    _from(stage, image)
    _run(stage, f"python3.{found[2]} -m venv {_PYTHON}")
    _run(stage, f"pip install --quiet 'ray[default]=={found[1]}' setuptools wheel")


def try_image(path: Path, base: Path, folder: Path, mounts: Sequence[Path]) -> None:
    """Execute a Dockerfile in a copy of its base; exits at the first instruction that fails."""
    root = folder / path.stem
    subprocess.run(["cp", "--archive", base, root], check=True)
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
        bases: dict[str, Path] = {}
        for path in paths:
            if arguments.names and path.stem not in arguments.names:
                continue
            instructions = parse(path.read_text())
            image = instructions[0].text
            if image not in bases:
                bases[image] = Path(folder, f"base-{len(bases)}")
                make_base(bases[image], image, arguments.mount)
            try_image(path, bases[image], Path(folder), arguments.mount)
            tried[path.name] = fingerprint(instructions)
            TRIED.write_text(json.dumps(tried, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
