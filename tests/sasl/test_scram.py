"""SCRAM: the RFCs' own examples, both ends against each other, and tokens that are none."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.errors import AuthenticationError
from streamcore.sasl.scram import (
    ITERATIONS_LEAST,
    SCRAM_MECHANISMS,
    SCRAM_SHA_256,
    ScramCredential,
    ScramMechanism,
    combined,
    decoded,
    encoded,
    escaped,
    new_nonce,
    unescaped,
)
from streamcore.sasl.scram_client import ScramClient
from streamcore.sasl.scram_server import ScramServer

# The example of RFC 7677, section 3.
USER, PASSWORD = "user", "pencil"
SALT = decoded("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

# Many logins with few hashes each: how many there are is tried elsewhere.
QUICK = settings(deadline=None, max_examples=60)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
mechanisms = st.sampled_from(list(SCRAM_MECHANISMS.values()))


def a_credential(mechanism: ScramMechanism = SCRAM_SHA_256, password: str = PASSWORD) -> ScramCredential:
    salted = mechanism.salted(password, SALT, ITERATIONS_LEAST)
    return ScramCredential.from_salted(mechanism, salted, SALT, ITERATIONS_LEAST)


def a_server(credential: ScramCredential | None = None) -> ScramServer:
    known = credential or a_credential()
    return ScramServer(SCRAM_SHA_256, lambda user: known, SERVER_NONCE)


def test_the_client_says_what_the_rfc_says() -> None:
    client = ScramClient(SCRAM_SHA_256, USER, PASSWORD, CLIENT_NONCE)
    assert client.first() == CLIENT_FIRST
    assert client.step(SERVER_FIRST) == CLIENT_FINAL
    assert not client.is_complete
    client.step(SERVER_FINAL)
    assert client.is_complete


def test_the_server_says_what_the_rfc_says() -> None:
    server = a_server()
    assert server.step(CLIENT_FIRST) == SERVER_FIRST
    assert server.user is None
    assert server.step(CLIENT_FINAL) == SERVER_FINAL
    assert server.user == USER


@QUICK
@given(mechanisms, names, names)
def test_whoever_has_the_password_gets_in_by_any_name(mechanism: ScramMechanism, user: str, password: str) -> None:
    credential = ScramCredential.of(mechanism, password)
    asked: list[str] = []

    def credential_of(name: str) -> ScramCredential:
        asked.append(name)
        return credential

    server = ScramServer(mechanism, credential_of, new_nonce())
    client = ScramClient(mechanism, user, password, new_nonce())
    client.step(server.step(client.step(server.step(client.first()))))
    assert client.is_complete
    assert (server.user, asked) == (user, [user])


@QUICK
@given(mechanisms, names, names)
def test_another_password_does_not_get_in(mechanism: ScramMechanism, password: str, other: str) -> None:
    server = ScramServer(mechanism, lambda user: ScramCredential.of(mechanism, password), new_nonce())
    client = ScramClient(mechanism, USER, other + "x" if other == password else other, new_nonce())
    final = client.step(server.step(client.first()))
    with pytest.raises(AuthenticationError, match="invalid user or password"):
        server.step(final)
    assert server.user is None


@QUICK
@given(names)
def test_escaping_is_undone(name: str) -> None:
    assert not set(escaped(name)) & {","}
    assert unescaped(escaped(name)) == name


@pytest.mark.parametrize("name", ["=", "a=2", "==2C3D", "=2c", "x=3E"])
def test_an_equals_sign_that_is_no_escape_is_refused(name: str) -> None:
    with pytest.raises(AuthenticationError, match="not escaped"):
        unescaped(name)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=100), st.binary(max_size=200))
def test_random_tokens_never_get_in(first: bytes, second: bytes) -> None:
    server = a_server()
    for token in (first, second):
        with pytest.raises(AuthenticationError):
            server.step(token)
    assert server.user is None


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_a_token_with_one_byte_changed_does_not_get_in(data: st.DataObject) -> None:
    changed = bytearray(CLIENT_FINAL)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != changed[place]))
    server = a_server()
    server.step(CLIENT_FIRST)
    with pytest.raises(AuthenticationError):
        server.step(bytes(changed))
    assert server.user is None
    with pytest.raises(AuthenticationError):
        server.step(CLIENT_FINAL)
    assert server.user is None


BAD_FIRST = {
    "channel binding": (b"p=tls-unique,,n=user,r=abc", "channel binding"),
    "no header": (b"n=user,r=abc", "channel binding"),
    "no GS2 header behind the flag": (b"n,b=x,n=user,r=abc", "GS2 header"),
    "somebody else": (b"n,a=root,n=user,r=abc", "somebody else"),
    "no nonce": (b"n,,n=user,r=", "attributes n, r"),
    "no name": (b"n,,n=,r=abc", "attributes n, r"),
    "a mandatory extension": (b"n,,m=x,n=user,r=abc", "attributes n, r"),
    "no UTF-8": (b"n,,n=\xff,r=abc", "not UTF-8"),
}


@pytest.mark.parametrize("what", BAD_FIRST)
def test_a_first_message_that_is_none_is_refused(what: str) -> None:
    message, reason = BAD_FIRST[what]
    with pytest.raises(AuthenticationError, match=reason):
        a_server().step(message)


def test_a_client_may_name_itself_as_whom_it_acts_for_and_say_y() -> None:
    for header in (b"n,a=user,", b"y,,"):
        server = a_server()
        first = header + b"n=user,r=abc"
        challenge = server.step(first).decode()
        unproven = f"c={encoded(header)},r=abc{SERVER_NONCE}"
        salted = SCRAM_SHA_256.salted(PASSWORD, SALT, ITERATIONS_LEAST)
        client_key = SCRAM_SHA_256.hmac(salted, b"Client Key")
        signed = f"n=user,r=abc,{challenge},{unproven}".encode()
        proof = combined(client_key, SCRAM_SHA_256.hmac(SCRAM_SHA_256.hash(client_key), signed))
        server.step(f"{unproven},p={encoded(proof)}".encode())
        assert server.user == USER


BAD_CHALLENGES = {
    "an error": (b"e=unknown-user", "unknown-user"),
    "another nonce": (b"r=xyz,s=QUJD,i=4096", "another login"),
    "our nonce and nothing of its own": (b"r=abc,s=QUJD,i=4096", "another login"),
    "too few iterations": (b"r=abcd,s=QUJD,i=4095", "asks for 4095"),
    "iterations for an hour": (b"r=abcd,s=QUJD,i=999999999", "asks for 999999999"),
    "no number": (b"r=abcd,s=QUJD,i=4x", "number of iterations"),
    "a number of a megabyte": (b"r=abcd,s=QUJD,i=" + b"9" * (1 << 20), "number of iterations"),
    "no base 64": (b"r=abcd,s=!,i=4096", "base 64"),
    "no salt": (b"r=abcd,i=4096", "attributes r, s, i"),
    "no UTF-8": (b"\xff", "not UTF-8"),
}


@pytest.mark.parametrize("what", BAD_CHALLENGES)
def test_a_challenge_that_is_none_is_refused(what: str) -> None:
    challenge, reason = BAD_CHALLENGES[what]
    with pytest.raises(AuthenticationError, match=reason):
        ScramClient(SCRAM_SHA_256, USER, PASSWORD, "abc").step(challenge)


def test_a_broker_that_does_not_know_the_password_is_found_out() -> None:
    client = ScramClient(SCRAM_SHA_256, USER, PASSWORD, CLIENT_NONCE)
    client.step(SERVER_FIRST)
    with pytest.raises(AuthenticationError, match="not who it says it is"):
        client.step(b"v=" + encoded(bytes(32)).encode())
    assert not client.is_complete


def test_what_is_kept_of_a_password_is_not_shown() -> None:
    shown = repr(ScramCredential.of(SCRAM_SHA_256, PASSWORD))
    assert re.fullmatch(r"ScramCredential\(iterations=4096\)", shown)
