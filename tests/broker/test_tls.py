import ssl
from pathlib import Path

import pytest

from streamcore.broker.config import BrokerConfig
from streamcore.broker.tls import server_context
from streamcore.errors import InvalidConfigError
from tests.certificates import make_certificates


def test_settings_that_lead_to_no_tls_are_told(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    good = {"security.protocol": "SSL", "ssl.keystore.location": str(certificates.server)}
    for changes, message in (
        ({"ssl.keystore.location": "/nowhere"}, "keystore.location=/nowhere: No such file"),
        ({"ssl.keystore.location": str(certificates.ca)}, "it is a PEM file with the private key"),
        ({"ssl.keystore.location": ""}, "needs ssl.keystore.location"),
        ({"ssl.client.auth": "required", "ssl.truststore.location": "/nowhere"}, "it is a PEM file of CAs"),
        ({"ssl.client.auth": "maybe"}, "ssl.client.auth must be one of none, requested, required"),
        ({"ssl.keystore.type": "JKS"}, "ssl.keystore.type must be one of PEM"),
        ({"security.protocol": "TLS"}, "security.protocol must be one of PLAINTEXT, SSL"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            server_context(BrokerConfig.parse({**good, **changes}))


def test_a_listener_without_tls_has_no_context_and_one_with_it_asks_for_what_it_is_told(tmp_path: Path) -> None:
    assert server_context(BrokerConfig()) is None
    certificates = make_certificates(tmp_path)
    for client_auth, mode in (
        ("none", ssl.CERT_NONE),
        ("requested", ssl.CERT_OPTIONAL),
        ("required", ssl.CERT_REQUIRED),
    ):
        context = server_context(
            BrokerConfig.parse(
                {
                    "security.protocol": "SSL",
                    "ssl.keystore.location": str(certificates.server),
                    "ssl.truststore.location": str(certificates.ca),
                    "ssl.client.auth": client_auth,
                }
            )
        )
        assert context is not None
        assert context.verify_mode == mode
