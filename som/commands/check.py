"""som4d check: everything that is wrong with a data set folder."""

from __future__ import annotations

from som.errors import UserError
from som.preprocessing.config import CheckRun
from som.settings.command_line import Command


def check(run: CheckRun) -> int:
    """Prints what the folder holds, or all its problems; returns the exit code (1 where there are some).

    Raises:
        UserError: there is no such folder.
    """
    if not run.folder.is_dir():
        raise UserError(f"{run.folder}: no such folder; name the folder of a data set.")
    from som.preprocessing.check import check_folder, render_check  # torch and its kin, only after parsing

    result = check_folder(run.folder, run.seq_name)
    print(COMMAND.render(render_check(result)))
    return 0 if result.ok else 1


COMMAND = Command(
    CheckRun, "List everything that is wrong with a data set folder of any layout.", ("folder", "seq_name"), check
)
