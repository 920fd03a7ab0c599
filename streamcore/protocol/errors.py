"""What can be wrong with bytes that claim to be a message."""

from streamcore.errors import StreamcoreError


class MalformedMessageError(StreamcoreError):
    """Bytes that are no message: the connection ends."""


class UnsupportedVersionError(StreamcoreError):
    """A message, or a version of it, that this side does not speak."""

    code = 35
