"""Errors that the command line prints as one line."""


class EvaluationError(Exception):
    """A user error, or a service or file of the user's that fails. Exit code 2."""


class CheckFailedError(Exception):
    """The images were scored and missed a requested limit. Exit code 1."""
