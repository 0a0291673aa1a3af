"""Which tars that outputs share (`write.stable`) an output alone lists: pruning it deletes them."""

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import layout
from d2prune.output.manifest import OutputManifest, read_manifest


class SharedTars:
    """Reads the manifest of each output below a root once."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._listed: dict[str, frozenset[str]] = {}

    def find_unlisted(self, output: str, manifest: OutputManifest) -> list[str]:
        """URLs of the shared files that an output lists and no other complete output beside it does.

        Args:
            output: URL of the output folder; its folder of shared tars is held.
            manifest: of the output.

        Raises:
            UserError: a manifest cannot be read, so what its output lists is unknown.
        """
        root = layout.shared_folder(output).rpartition("/")[0]
        own = store.resolve(output)
        others: set[str] = set()
        for file in store.list_files(root, f"*/{layout.MANIFEST}"):
            folder = file.url.rpartition("/")[0]
            if store.resolve(folder) != own:
                others |= self._read(folder)
        names = {file.name for file in manifest.files if layout.is_shared(file.name)}
        return [layout.locate(output, name) for name in sorted(names - others)]

    def _read(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                manifest = read_manifest(folder)
            except UserError as error:
                raise UserError(f"{error}; the shared tars that it lists are unknown") from error
            files = () if manifest is None else manifest.files
            self._listed[folder] = frozenset(file.name for file in files if layout.is_shared(file.name))
        return self._listed[folder]
