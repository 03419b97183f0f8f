"""What holds for all tests: options, and no test that fails because a machine is slow."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        default=None,
        help="Run tests/conformance against this server instead of the stand-in, for example"
        " 'tensorflow_model_server --port={port} --rest_api_port={rest_port}"
        " --model_config_file={config} {flags}'.",
    )
