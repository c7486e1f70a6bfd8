"""What a lookup can raise."""


class TransformException(Exception):
    """Base of all the others."""


class LookupException(TransformException):
    """A frame is not known."""


class ConnectivityException(TransformException):
    """Two frames are in different trees."""


class ExtrapolationException(TransformException):
    """A transform is known, but not at the time asked for."""


class InvalidArgumentException(TransformException):
    """A frame name is empty or starts with a slash."""
