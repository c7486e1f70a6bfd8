"""The one exception that is meant for the person at the keyboard."""


class StreampetrError(Exception):
    """Bad input: the message names the file, topic, frame or parameter and says what to do about it."""
