"""What can go wrong by the user's hand: one message, no traceback."""


class UserError(Exception):
    """A mistake that the user can mend; its message names the thing, the value and the way out."""


class ConfigError(UserError):
    """A config that can't be composed or holds an impossible value. Exit code 2, nothing started."""


class DataError(UserError):
    """Missing, malformed or empty data."""


class WeightsError(UserError):
    """Weights that can't be had, or that don't fit the model."""


class PeftError(UserError):
    """A method that doesn't fit a model, or an injection that did not do what its name says."""


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop and saved its state
    """The run was asked to stop (SIGTERM, SIGINT), wrote its last checkpoint and can go on from there."""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, or the name of its class."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the host or on a device. Told without torch, by its name."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
