"""Options that pytest must know before it collects any folder."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        default=None,
        help="Run tests/conformance against this server instead of the stand-in, for example"
        " 'tensorflow_model_server --port={port} --rest_api_port={rest_port}"
        " --model_config_file={config} {flags}'.",
    )
