"""DescribeUserScramCredentials 0, AlterUserScramCredentials 0 (KIP-554): users over the wire.

The client salts and hashes the password, so it never comes here. A new credential counts from the next login on. Users
of the node's settings are described as well, and cannot be altered.
"""

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.sasl.scram import ITERATIONS_LEAST, ITERATIONS_MOST, SCRAM_MECHANISMS, ScramCredential

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

logger = logging.getLogger(__name__)

_Describe = messages.DescribeUserScramCredentials
_Alter = messages.AlterUserScramCredentials
_BY_NUMBER = {mechanism.number: mechanism for mechanism in SCRAM_MECHANISMS.values()}


class _RefusedError(StreamcoreError):
    def __init__(self, error_code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


async def describe_user_scram_credentials(broker: "Broker", request: Any, context: Context) -> Any:
    asked = Counter(user.name for user in request.users or ())
    return _Describe.Response(
        error_message=None,
        results=[_described(broker, user, count) for user, count in asked.items()]
        if asked
        else [_described(broker, user, 1) for user in broker.users.names()],
    )


def _described(broker: "Broker", user: str, count: int) -> Any:
    result = _Describe.DescribeUserScramCredentialsResult(user=user, error_message=None)
    found = broker.users.credentials(user)
    if count > 1:
        result.error_code, result.error_message = ErrorCode.DUPLICATE_RESOURCE, f"the request names {user!r} twice"
    elif not found:
        result.error_code, result.error_message = ErrorCode.RESOURCE_NOT_FOUND, f"{user!r} has no SCRAM credential"
    result.credential_infos = [
        _Describe.CredentialInfo(mechanism=SCRAM_MECHANISMS[mechanism].number, iterations=credential.iterations)
        for mechanism, credential in sorted(found.items())
        if count == 1
    ]
    return result


async def alter_user_scram_credentials(broker: "Broker", request: Any, context: Context) -> Any:
    entries = [*request.deletions, *request.upsertions]
    times = Counter((entry.name, entry.mechanism) for entry in entries)
    changes: dict[tuple[str, str], ScramCredential | None] = {}
    refused: dict[str, _RefusedError] = {}
    for entry in entries:
        try:
            if times[entry.name, entry.mechanism] > 1:
                raise _RefusedError(ErrorCode.DUPLICATE_RESOURCE, f"the request alters {entry.name!r} twice")
            mechanism, credential = _change(broker, entry)
            changes[entry.name, mechanism] = credential
        except _RefusedError as error:
            refused.setdefault(entry.name, error)
    # A user is altered as asked, or not at all.
    changes = {place: credential for place, credential in changes.items() if place[0] not in refused}
    users = dict.fromkeys(entry.name for entry in entries)
    if changes:
        try:
            broker.users.change(changes)
        except OSError as error:
            logger.error("the cluster's users cannot be stored: %s", error)
            failed = _RefusedError(ErrorCode.KAFKA_STORAGE_ERROR, "the broker cannot store its users: see its log")
            refused.update((user, failed) for user in users if user not in refused)
        else:
            names = ", ".join(sorted({repr(user) for user, _ in changes}))
            logger.info("SCRAM credentials of %s altered by %s", names, context.authentication.user or context.peer)
    return _Alter.Response(results=[_altered(user, refused.get(user)) for user in users])


def _altered(user: str, refused: _RefusedError | None) -> Any:
    return _Alter.AlterUserScramCredentialsResult(
        user=user,
        error_code=ErrorCode.NONE if refused is None else refused.error_code,
        error_message=None if refused is None else str(refused),
    )


def _change(broker: "Broker", entry: Any) -> tuple[str, ScramCredential | None]:
    """
    Raises:
        _RefusedError
    """
    is_deletion = isinstance(entry, _Alter.ScramCredentialDeletion)
    mechanism = _BY_NUMBER.get(entry.mechanism)
    if not entry.name:
        raise _RefusedError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "a user has a name")
    if mechanism is None:
        raise _RefusedError(ErrorCode.UNSUPPORTED_SASL_MECHANISM, f"there is no SCRAM mechanism {entry.mechanism}")
    if is_deletion and mechanism.name not in broker.users.credentials(entry.name):
        raise _RefusedError(ErrorCode.RESOURCE_NOT_FOUND, f"{entry.name!r} has no credential for {mechanism.name}")
    if broker.users.is_configured(entry.name):
        raise _RefusedError(
            ErrorCode.UNACCEPTABLE_CREDENTIAL, f"{entry.name!r} is set in the broker's settings: change it there"
        )
    if is_deletion:
        return mechanism.name, None
    if not ITERATIONS_LEAST <= entry.iterations <= ITERATIONS_MOST:
        raise _RefusedError(
            ErrorCode.UNACCEPTABLE_CREDENTIAL,
            f"{entry.iterations} iterations; {ITERATIONS_LEAST} to {ITERATIONS_MOST} are taken",
        )
    if not entry.salt or not entry.salted_password:
        raise _RefusedError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "a credential has a salt and a salted password")
    salted, salt = bytes(entry.salted_password), bytes(entry.salt)
    return mechanism.name, ScramCredential.from_salted(mechanism, salted, salt, entry.iterations)


HANDLERS = {_Describe: describe_user_scram_credentials, _Alter: alter_user_scram_credentials}
