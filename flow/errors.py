"""The one error of this package that is the caller's to mend."""


class FlowError(ValueError):
    """An input is wrong. The message is one sentence: which file or argument, what was expected, what to do."""
