"""The error with which an AWS API refuses a request."""


class ApiError(Exception):
    """AWS refuses the request: `code` is AWS's error code, the text its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
