"""The runs of the export's tests."""

from tests.export.conftest import finish, finished

__all__ = ["finish", "finished"]
