"""Locations as records keep them: what a later command opens again, without credentials."""

from d2prune.redaction import redact, redact_text
from d2prune.store.patterns import split_query


def recordable(url: str) -> str:
    """`url` without credentials and without the query of a web URL.

    Unlike `redact`, which is for messages, it keeps a `?` in the name of an object or a folder.
    """
    if "://" not in url:
        return url
    head, mark, tail = split_query(url)[0].partition("?")
    return redact(head) + mark + tail


def is_recordable(text: str) -> bool:
    """Whether a location or a name can be read from a JSON record, which holds no credentials, unchanged.

    A folder `password=abcd` or one named like a secret of the environment looks like a credential.
    """
    return redact_text(recordable(text)) == text
