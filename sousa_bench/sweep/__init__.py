"""How runs become a sweep: identities, the manifest, supervised processes, records and progress.

Nothing here imports torch: the front end of a sweep starts in a fraction of a second, and only the fork server
(:mod:`sousa_bench.sweep.forkserver`) and the runs that it forks hold the heavy libraries.
"""

from sousa_bench.config.config_errors import explain
from sousa_bench.sweep.session import command, command_line, completed_folders, execute, exit_code

__all__ = ["command", "command_line", "completed_folders", "execute", "exit_code", "explain"]
