from tests.explore.conftest import finished_config, finished_result  # noqa: F401
