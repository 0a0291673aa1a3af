"""Exception types, by cause.

The command line turns each into one line and an exit code. Any other exception is a bug in this
project and shows its traceback.

Their messages hold no credentials and no control characters, whatever they were made from.
"""

from d2prune.console import one_line


class D2PruneError(Exception):
    """Base class of the errors that this project raises deliberately."""

    exit_code = 1

    def __init__(self, *arguments: object) -> None:
        """Make the message safe to show; see `console.one_line`."""
        super().__init__(*(one_line(value) if isinstance(value, str) else value for value in arguments))


class UserError(D2PruneError):
    """A wrong configuration, input or option: one line, exit code 2.

    Existing outputs stay untouched. The message names the file, key or option, the value found and
    the value expected.
    """

    exit_code = 2


class ArgumentError(UserError, ValueError):
    """A wrong argument of a library function; Python code can catch it as a ValueError.

    The message names the argument, the value found and the value expected.
    """


class LostInputError(UserError):
    """Something that the plan of a run names is lost; a new plan may do without it.

    A run plans again once (`runs.driver`). The message is for callers that do not.
    """


class BusyError(D2PruneError):
    """Another live run holds a folder that this run needs: one line, exit code 3."""

    exit_code = 3


class BooksError(D2PruneError):
    """The sample counts of a stage do not balance, so its artifact is not committed.

    They balance if every sample read was either written or rejected with a reason.
    """


class InfrastructureError(D2PruneError):
    """Storage, the network or the cluster failed: the run ends, and the same command resumes it.

    Raised after the retries of the request that failed (`d2prune.store.retries`), so callers do not
    retry it.
    """


class DamagedFileError(InfrastructureError):
    """A file of a complete unit is missing or is not the one that its receipt lists.

    The unit is rebuilt once its receipt is gone. A run deletes the receipt and
    continues (`stage.rebuilding`). A reader must not write, so the message names what to delete.

    Attributes:
        receipt: URL of the receipt.
    """

    def __init__(self, fault: str, receipt: str = "", remedy: str = "") -> None:
        # All arguments are in `args`, with which an exception is pickled and copied.
        super().__init__(fault, receipt, remedy)
        self.receipt = receipt

    def __str__(self) -> str:
        fault, _, remedy = self.args
        return f"{fault}; {remedy}" if remedy else str(fault)


class WorkerLostError(InfrastructureError):
    """A worker died with its process or its machine: its unit runs again on another worker."""
