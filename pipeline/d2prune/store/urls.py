"""URLs as text: join names."""

S3_SCHEMES = ("s3://", "s3a://")


def join(url: str, *names: str) -> str:
    """`url` and names, separated by single slashes."""
    return "/".join([url.rstrip("/"), *(name.strip("/") for name in names)])


def make_relative(url: str, beside: str) -> str:
    """`url` as seen from the folder of `beside`, such as `a.npz` or `../img_emb/a.npy`."""
    folder, names = beside.split("/")[:-1], url.split("/")
    shared = 0
    while shared < min(len(folder), len(names) - 1) and folder[shared] == names[shared]:
        shared += 1
    return "/".join([".."] * (len(folder) - shared) + names[shared:])


def resolve_relative(relative: str, beside: str) -> str:
    """The URL that `make_relative` was given."""
    folder, names = beside.split("/")[:-1], relative.split("/")
    while names[0] == ".." and folder:
        del names[0], folder[-1]
    return "/".join(folder + names)
