"""Errors that are the user's to mend: the commands print them as one sentence and exit with code 2."""


class UserError(ValueError):
    """Something the user gave is wrong. The message names the file or option, what was expected and what to do."""
