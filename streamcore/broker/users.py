"""Who may log in: users of the node's settings, and users whose SCRAM credentials the cluster keeps.

A user of the settings is there for every mechanism and cannot be changed over the wire, so that one name never has two
passwords. The others have come by AlterUserScramCredentials and are in the metadata store.
"""

import hmac
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

from streamcore.broker.metadata_store import MetadataStore
from streamcore.errors import AuthenticationError
from streamcore.sasl import PLAIN, ServerExchange
from streamcore.sasl.plain import PlainServer
from streamcore.sasl.scram import (
    ITERATIONS_LEAST,
    SCRAM_MECHANISMS,
    ScramCredential,
    ScramMechanism,
    decoded,
    encoded,
    new_nonce,
)
from streamcore.sasl.scram_server import ScramServer

logger = logging.getLogger(__name__)

_SCRAM_CREDENTIALS: Final = "scram-credentials"


class Users:
    """Answers for one node."""

    def __init__(self, configured: Mapping[str, str], store: MetadataStore) -> None:
        self._configured = configured
        self._store = store
        self._made: dict[tuple[str, str], ScramCredential] = {}
        # A user that there is not has the same salt at every login, as a real one would.
        self._key = secrets.token_bytes(32)

    def exchange(self, mechanism: str) -> ServerExchange:
        """A login by an enabled mechanism."""
        if mechanism == PLAIN:
            return PlainServer(self._has_password)
        scram = SCRAM_MECHANISMS[mechanism]
        return ScramServer(scram, lambda user: self._credential(scram, user), new_nonce())

    def is_configured(self, user: str) -> bool:
        return user in self._configured

    def names(self) -> list[str]:
        """Everybody who has a SCRAM credential."""
        return sorted({*self._configured, *(user for user in self._document() if self._kept(user))})

    def credentials(self, user: str) -> dict[str, ScramCredential]:
        """A user's, by mechanism; none for one that there is not."""
        if user in self._configured:
            return {mechanism.name: self._of_configured(mechanism, user) for mechanism in SCRAM_MECHANISMS.values()}
        return self._kept(user)

    def change(self, changes: Mapping[tuple[str, str], ScramCredential | None]) -> None:
        """Set or forget (None) the credentials of users by mechanism; they count from the next login on.

        Raises:
            OSError: the metadata store cannot be written; then none of them has changed.
        """
        _, revision = self._store.get(_SCRAM_CREDENTIALS)
        document = {user: dict(credentials) for user, credentials in self._document().items()}
        for (user, mechanism), credential in changes.items():
            if credential is None:
                document.get(user, {}).pop(mechanism, None)
            else:
                document.setdefault(user, {})[mechanism] = _to_json(credential)
        document = {user: credentials for user, credentials in document.items() if credentials}
        self._store.put(_SCRAM_CREDENTIALS, document, revision)

    def _has_password(self, user: str, password: str) -> bool:
        known = self._configured.get(user)
        # As much work for a name that there is not, and for a password of any length.
        given, right = (hmac.digest(self._key, text.encode(), "sha256") for text in (password, known or ""))
        return hmac.compare_digest(given, right) and known is not None

    def _credential(self, mechanism: ScramMechanism, user: str) -> ScramCredential:
        if user in self._configured:
            return self._of_configured(mechanism, user)
        known = self._kept(user).get(mechanism.name)
        if known is not None:
            return known
        salt = mechanism.hmac(self._key, user.encode())
        return ScramCredential(salt[:16], ITERATIONS_LEAST, mechanism.hash(self._key + salt), salt)

    def _of_configured(self, mechanism: ScramMechanism, user: str) -> ScramCredential:
        made = self._made.get((mechanism.name, user))
        if made is None:
            # On first use: it costs milliseconds, and a broker has to be there at once.
            made = self._made[mechanism.name, user] = ScramCredential.of(mechanism, self._configured[user])
        return made

    def _document(self) -> dict[str, Any]:
        document, _ = self._store.get(_SCRAM_CREDENTIALS)
        return document if isinstance(document, dict) else {}

    def _kept(self, user: str) -> dict[str, ScramCredential]:
        # Of one user only: a login must not cost more where there are many.
        credentials = self._document().get(user, {})
        try:
            return {mechanism: _from_json(credential) for mechanism, credential in credentials.items()}
        except (AttributeError, KeyError, TypeError, ValueError, AuthenticationError) as error:
            logger.error("the credentials of %r cannot be read, so it cannot log in: %s", user, error)
            return {}


def _to_json(credential: ScramCredential) -> dict[str, Any]:
    return {
        "salt": encoded(credential.salt),
        "iterations": credential.iterations,
        "stored_key": encoded(credential.stored_key),
        "server_key": encoded(credential.server_key),
    }


def _from_json(document: Mapping[str, Any]) -> ScramCredential:
    return ScramCredential(
        decoded(document["salt"]),
        int(document["iterations"]),
        decoded(document["stored_key"]),
        decoded(document["server_key"]),
    )
