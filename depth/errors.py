"""The exception of this package."""


class DepthError(ValueError):
    """Bad input: the message says which file or argument, what was expected and what to do."""
