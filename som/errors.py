"""Errors that are the user's to mend: the commands print them as one sentence and exit with code 2."""

from flow.errors import UserError

__all__ = ["UserError"]
