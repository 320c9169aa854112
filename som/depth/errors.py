"""The exceptions of this package."""


class DepthError(ValueError):
    """Bad input: the message says which file or argument, what was expected and what to do."""


class NoParallaxError(DepthError):
    """The camera stands still, only turns, or moves too little: the views show no depth that could be measured."""
