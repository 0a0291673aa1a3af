"""torchvision can be imported after the shim, which is installed only if needed."""

import subprocess
import sys

SCRIPT = """
from d2prune import torchvision_shim
needed = torchvision_shim.is_needed()
torchvision_shim.install_if_needed()
assert (torchvision_shim._library is not None) == needed
import torchvision
assert not torchvision_shim.is_needed()
"""


def test_torchvision_can_be_imported():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
