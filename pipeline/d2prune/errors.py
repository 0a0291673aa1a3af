"""Who is at fault, as exception types.

The command line turns each into one clear line and an exit code; the executor decides by type
whether to retry. Anything else that is raised is a defect of ours and shows its traceback.
"""


class D2PruneError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


class UserError(D2PruneError):
    """Wrong configuration, input or option: one line, exit code 2, nothing written is touched.

    The message names the file, key or option, the value, and what was expected.
    """

    exit_code = 2


class BusyError(D2PruneError):
    """Another live run holds what this one needs: one line, exit code 3."""

    exit_code = 3


class BooksError(D2PruneError):
    """A stage's accounts do not balance (samples in != samples out + rejected): its artifact is not committed."""


class InfrastructureError(D2PruneError):
    """Storage, network or a worker failed: retried with back-off, then the run fails and can be resumed."""
