import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.errors import AuthenticationError
from streamcore.sasl.plain import PlainClient, PlainServer

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def a_server() -> PlainServer:
    return PlainServer(lambda user, password: (user, password) == ("alice", "secret"))


@given(names, names)
def test_the_server_reads_what_the_client_writes(user: str, password: str) -> None:
    asked: list[tuple[str, str]] = []
    server = PlainServer(lambda *both: asked.append(both) or True)
    assert server.step(PlainClient(user, password).first()) == b""
    assert (server.user, asked) == (user, [(user, password)])


BAD = {
    "a wrong password": (b"\0alice\0Secret", "invalid user or password"),
    "an unknown user": (b"\0bob\0secret", "invalid user or password"),
    "somebody else, with a wrong password": (b"root\0alice\0x", "invalid user or password"),
    "somebody else": (b"root\0alice\0secret", "may not act for 'root'"),
    "no password": (b"\0alice\0", "no user or no password"),
    "no user": (b"\0\0secret", "no user or no password"),
    "one part": (b"alice", "3 parts, not 1"),
    "four parts": (b"\0alice\0secret\0", "3 parts, not 4"),
    "no UTF-8": (b"\0alice\0\xff", "not UTF-8"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_token_that_is_none_is_refused(what: str) -> None:
    token, reason = BAD[what]
    server = a_server()
    with pytest.raises(AuthenticationError, match=reason):
        server.step(token)
    assert server.user is None


@given(st.binary(max_size=60))
def test_random_tokens_never_get_in(token: bytes) -> None:
    server = a_server()
    with pytest.raises(AuthenticationError):
        server.step(token)
    assert server.user is None


def test_a_client_may_name_itself_as_whom_it_acts_for() -> None:
    server = a_server()
    server.step(b"alice\0alice\0secret")
    assert server.user == "alice"
