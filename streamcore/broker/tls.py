"""The listener's TLS, from PEM files as Kafka takes them."""

import ssl

from streamcore.broker.config import BrokerConfig
from streamcore.errors import InvalidConfigError

_CLIENT_AUTH = {"none": ssl.CERT_NONE, "requested": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def server_context(config: BrokerConfig) -> ssl.SSLContext | None:
    """What `loop.create_server` takes; None for a listener without TLS.

    Raises:
        InvalidConfigError: a file is not there or not what it should be.
    """
    if not config.has_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client's, which would cost the server more than the client
    # Without a password the library would ask on the terminal.
    password = config.ssl_key_password
    try:
        context.load_cert_chain(config.ssl_keystore_location, password=lambda: password)
    except (OSError, ValueError) as error:
        raise InvalidConfigError(
            f"ssl.keystore.location={config.ssl_keystore_location}: {_reason(error)}; it is a PEM file with the "
            "private key (ssl.key.password opens it) and its certificate, then those up to its CA"
        ) from error
    context.verify_mode = _CLIENT_AUTH[config.ssl_client_auth]
    try:
        if config.ssl_truststore_location:
            context.load_verify_locations(config.ssl_truststore_location)
        elif config.ssl_client_auth != "none":
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    except OSError as error:
        raise InvalidConfigError(
            f"ssl.truststore.location={config.ssl_truststore_location}: {_reason(error)}; it is a PEM file of CAs"
        ) from error
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "no PEM"
    return getattr(error, "strerror", None) or str(error)
