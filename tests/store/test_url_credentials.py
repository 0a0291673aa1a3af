"""Object stores take no credentials from a URL: those in a query are refused, so no record holds them."""

import pytest

from d2prune import store
from d2prune.errors import UserError
from d2prune.store.filesystem import find_kind

SECRET = "q9Xw7Zr2Tk5Lm8Bv3Nc6Pd1F"


@pytest.mark.parametrize("scheme", ["s3", "s3a", "gs", "gcs", "abfs", "az", "hf"])
@pytest.mark.parametrize("query", ["token=", "v=1&X-Amz-Signature=", "sig=", "access_key=", "any="], ids=str)
def test_a_secret_in_a_query_is_refused_and_not_shown(scheme, query):
    with pytest.raises(UserError, match="found credentials in the URL") as caught:
        find_kind(f"{scheme}://bucket/folder/a.tar?{query}{SECRET}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a?.tar", "a?b=1", "a?versionId=" + SECRET, "what?", "a&token", "name@v1/a?b"]
)
def test_other_names_with_a_question_mark_stay(name):
    url = f"s3://bucket/{name}"
    find_kind(url)
    assert store.recordable(url) == url
