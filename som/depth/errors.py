"""Errors of depth estimation."""

from som.errors import UserError


class DepthError(UserError):
    """Bad input: the message says which file or argument, what was expected and what to do."""


class NoParallaxError(DepthError):
    """The camera stands still, only turns, or moves too little: the views show no depth that could be measured."""
