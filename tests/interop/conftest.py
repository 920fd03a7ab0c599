"""Every client test runs against our broker and against Apache Kafka; INTEROP_ONLY=NAME picks one of the two."""

import gc
import os
import warnings
from collections.abc import Iterator

import pytest

from tests.interop import apache_kafka, our_broker
from tests.interop.cluster import Cluster

CLUSTERS = {our_broker.NAME: our_broker.our_broker, apache_kafka.NAME: apache_kafka.apache_kafka}


def wanted_clusters() -> list[str]:
    only = os.environ.get("INTEROP_ONLY", "")
    if only and only not in CLUSTERS:
        raise pytest.UsageError(f"INTEROP_ONLY={only}: must be one of {', '.join(CLUSTERS)}")
    return [only] if only else list(CLUSTERS)


@pytest.fixture(scope="session", params=wanted_clusters())
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker for all tests of the session: topics and groups get fresh names."""
    with CLUSTERS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """What other people's clients leave to the collector after the last test fails no test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
