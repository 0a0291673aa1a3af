import pytest

from tests.report.synthetic import build_run, items


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("run"), items(130))
