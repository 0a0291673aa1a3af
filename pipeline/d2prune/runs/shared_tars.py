"""Which tars that outputs share (`write.stable`) no other output lists: pruning an output deletes them."""

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import layout
from d2prune.output.manifest import read_manifest
from d2prune.store import FileInfo


class SharedTars:
    """Finds unlisted tars; reads each version of the manifest of each output below a root once.

    A process that finds a fault in an output deletes its manifest without holding the folder of shared
    tars, and may complete the output whenever the folder is not held. So nothing but a version of a
    manifest outlasts a call.
    """

    def __init__(self) -> None:
        """Read nothing yet."""
        self._listed: dict[tuple[str, str], frozenset[str]] = {}

    def find_unlisted(self, output: str) -> list[str]:
        """URLs of the shared files that no complete output beside this one lists, those of killed runs, too.

        Args:
            output: URL of the output folder; its folder of shared tars is held.

        Raises:
            UserError: a manifest cannot be read, so what its output lists is unknown.
        """
        shared = layout.shared_folder(output)
        root = shared.rpartition("/")[0]
        own = store.resolve(output)
        others: set[str] = set()
        for file in store.list_files(root, f"*/{layout.MANIFEST}"):
            folder = file.url.rpartition("/")[0]
            if store.resolve(folder) != own:
                others |= self._read(file, folder)
        names = {file.url.rpartition("/")[2] for file in store.list_files(shared, "*")}
        return [layout.locate(output, name) for name in sorted(names - others) if layout.is_shared(name)]

    def _read(self, file: FileInfo, folder: str) -> frozenset[str]:
        key = (file.url, file.version)
        if key not in self._listed:
            unknown = "the shared tars that it lists are unknown"
            try:
                manifest = read_manifest(folder)
            except UserError as error:
                raise UserError(f"{error}; {unknown}") from error
            if manifest is None:
                raise UserError(f"{store.redact(file.url)}: deleted while it was read; {unknown}")
            names = frozenset(file.name for file in manifest.files if layout.is_shared(file.name))
            self._listed[key] = names
        return self._listed[key]
