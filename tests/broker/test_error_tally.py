"""Every error of every response is found: the written-out way agrees with looking everywhere."""

from typing import Any

import pytest

from streamcore.broker.error_tally import tally_of
from streamcore.broker.handlers import HANDLERS
from streamcore.protocol import messages
from streamcore.protocol.messages import Api
from streamcore.protocol.schema import Field

APIS = [api for api, _, _ in HANDLERS.values()]


def filled(api: Api, name: str, fields: list[Field], codes: list[int]) -> Any:
    """A structure with two elements in every list, and another error in every place for one."""
    values: dict[str, Any] = {}
    for field in fields:
        if field.name == "error_code":
            codes.append(len(codes) + 1)
            values[field.name] = codes[-1]
        elif field.is_structure:
            parts = [filled(api, field.type, field.fields, codes) for _ in range(2 if field.is_array else 1)]
            values[field.name] = parts if field.is_array else parts[0]
    made = getattr(api, name, None)
    known = getattr(made, "__struct_fields__", ())
    if not set(values) <= set(known):
        made = getattr(api, f"Response{name}")
    return made(**values)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_every_error_of_a_response_is_counted_once(api: Api) -> None:
    codes: list[int] = []
    response = filled(api, "Response", api.response_fields, codes)
    errors: dict[int, int] = {}
    tally_of(api)(response, errors)
    assert errors == dict.fromkeys(codes, 1)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_success_is_not_counted(api: Api) -> None:
    errors: dict[int, int] = {}
    tally_of(api)(api.Response(), errors)
    assert errors == {}


def test_an_error_adds_up() -> None:
    heartbeat: Any = messages.Heartbeat
    errors: dict[int, int] = {}
    for _ in range(3):
        tally_of(heartbeat)(heartbeat.Response(error_code=27), errors)
    assert errors == {27: 3}
