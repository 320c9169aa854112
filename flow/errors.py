"""The root of all errors that a caller can mend, and this package's own."""


class UserError(ValueError):
    """Something the user gave is wrong. The message is one sentence: which file or option, what was expected, what to
    do. Settings are named in backticks by their path, as in ```` `data.seq_name` ````; a command line shows them as its
    options."""


class FlowError(UserError):
    """An input of optical flow or tracking is wrong."""
