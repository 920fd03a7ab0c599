"""A client's settings by Java's names and by librdkafka's, and what is said of those that do not fit."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.config import AppConfig
from streamcore.errors import UsageError
from streamcore.transport.client_settings import ClientSecurity, client_settings, read_properties

JAVA = r"""
# a comment, = and all
! another one
bootstrap.servers = ignored:9092
group.id=ignored
security.protocol=SASL_SSL
sasl.mechanism : SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
    username="alice" \
    password="a \\"quoted\\" = secret";
ssl.truststore.type=PEM
ssl.truststore.location=/etc/ca.pem
ssl.keystore.location /etc/client.pem
ssl.key.password=h\u0075sh
ssl.endpoint.identification.algorithm=
"""
LIBRDKAFKA = {
    "security.protocol": "sasl_ssl",
    "sasl.mechanisms": "SCRAM-SHA-512",
    "sasl.username": "alice",
    "sasl.password": 'a "quoted" = secret',
    "ssl.ca.location": "/etc/ca.pem",
    "ssl.certificate.location": "/etc/client.pem",
    "ssl.key.password": "hush",
    "ssl.endpoint.identification.algorithm": "none",
}


def test_both_vocabularies_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(JAVA)
    by_java = ClientSecurity.parse(client_settings(str(file)))
    assert by_java == ClientSecurity.parse(LIBRDKAFKA)
    assert by_java == ClientSecurity(
        protocol="SASL_SSL",
        mechanism="SCRAM-SHA-512",
        username="alice",
        password='a "quoted" = secret',
        ca_location="/etc/ca.pem",
        certificate_location="/etc/client.pem",
        key_password="hush",
        checks_name=False,
    )


def test_nothing_is_plaintext_and_passwords_are_not_shown() -> None:
    assert ClientSecurity.parse({}) == ClientSecurity()
    for shown in (repr(ClientSecurity.parse(LIBRDKAFKA)), repr(AppConfig.of("a", {"broker_config": LIBRDKAFKA}))):
        assert "secret" not in shown
        assert "hush" not in shown


LOGIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "a", "sasl.password": "b"}
BAD = [
    ({"security.protocol": "TLS"}, "security.protocol must be one of PLAINTEXT, SSL"),
    ({"sasl.mechanism": "GSSAPI"}, "sasl.mechanism must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
    ({**LOGIN, "sasl.mechanism": ""}, "sasl.mechanism must be one of"),
    ({"security.protocol": "SASL_SSL"}, "needs sasl.mechanism"),
    ({**LOGIN, "sasl.password": ""}, "needs sasl.username and sasl.password"),
    ({"sasl.username": "a", "sasl.password": "b"}, "sasl.username is given without security.protocol"),
    ({**LOGIN, "sasl.mechanisms": "SCRAM-SHA-256"}, "sasl.mechanism and sasl.mechanisms say the same, and differently"),
    ({"sasl.pasword": "x"}, "'sasl.pasword' is unknown; did you mean sasl.password?"),
    ({"ssl.cipher.suites": "x"}, "is unknown"),
    ({"ssl.truststore.type": "JKS"}, "ssl.truststore.type=JKS: only PEM files"),
    ({"sasl.jaas.config": "Krb5LoginModule required;"}, "no username and password that could be read"),
    ({**LOGIN, "sasl.password": "\udcff"}, "sasl.password is no UTF-8"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_settings_that_do_not_fit_are_told(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as told:
        ClientSecurity.parse(settings)
    assert "secret" not in str(told.value)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_properties(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it is no UTF-8 text"):
        read_properties(tmp_path / "binary")
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(UsageError, match="the line 'hello' is not NAME=VALUE"):
        read_properties(tmp_path / "text")


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_categories=["Cc", "Zs"]), min_size=1),
        st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1),
    )
)
def test_properties_are_read_as_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, pairs: dict[str, str]
) -> None:
    def escaped(text: str) -> str:
        return "".join(f"\\{letter}" if letter in "\\=:#!" else letter for letter in text)

    file = tmp_path_factory.mktemp("properties") / "file"
    file.write_text("".join(f"{escaped(name)} = {escaped(value)}\n" for name, value in pairs.items()), encoding="utf-8")
    assert read_properties(file) == pairs
