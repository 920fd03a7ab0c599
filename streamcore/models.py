"""Typed models for keys and values: a `Record` is a msgspec struct with Faust's verbs."""

import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import msgspec

from streamcore.errors import DecodeError

R = TypeVar("R", bound="Record")

# Class keywords that Faust takes; those that say how a model is read are honoured, the others belong to
# msgspec's own behaviour (ISO dates and typed fields are always on) and are accepted without effect.
_FAUST_KEYWORDS = {
    "serializer", "namespace", "include_metadata", "isodates", "abstract", "allow_blessed_key", "decimals",
    "coerce", "coercions", "polymorphic_fields", "validation", "date_parser", "lazy_creation",
}  # fmt: skip


def _is_optional(annotation: Any) -> bool:
    if isinstance(annotation, str):
        text = annotation.replace(" ", "")
        return text.startswith(("Optional[", "typing.Optional[", "None|")) or "|None" in text
    return type(None) in getattr(annotation, "__args__", ())


@dataclass_transform(field_specifiers=(msgspec.field,))
class RecordMeta(type(msgspec.Struct)):  # type: ignore[misc]
    """Adds Faust's class keywords, and None as the default of an `X | None` field."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any) -> Any:
        given = {k: keywords.pop(k) for k in list(keywords) if k in _FAUST_KEYWORDS}
        seen_default = False
        for field, annotation in namespace.get("__annotations__", {}).items():
            if "ClassVar" in str(annotation):
                continue
            # A trailing optional field defaults to None, as Faust's do; one in front of required fields cannot.
            if field not in namespace and _is_optional(annotation) and (seen_default or _all_later(namespace, field)):
                namespace[field] = None
            seen_default = seen_default or field in namespace
        cls = super().__new__(mcls, name, bases, namespace, **keywords)
        for option in ("coerce", "serializer"):
            if option in given:
                setattr(cls, f"__{option}__", given[option])
        return cls


def _all_later(namespace: Mapping[str, Any], field: str) -> bool:
    annotations = list(namespace["__annotations__"].items())
    later = annotations[[name for name, _ in annotations].index(field) :]
    return all(name in namespace or _is_optional(annotation) for name, annotation in later)


class Record(msgspec.Struct, metaclass=RecordMeta):
    """A typed value or key: fields are annotations, bytes on the log are JSON.

    `Model.field` is an accessor that `relative_to_field`, `topic(key=…)` and `topic(event_time=…)` take.
    An unknown keyword raises TypeError; an unknown field in data is ignored, as in Faust.
    """

    __coerce__: ClassVar[bool] = False  # lenient reading: "3" for an int
    __serializer__: ClassVar[str] = "json"

    def asdict(self) -> dict[str, Any]:
        """Fields by name, values as they are."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def to_representation(self) -> dict[str, Any]:
        """Fields by name in JSON's own types: what goes on the log."""
        representation: dict[str, Any] = msgspec.to_builtins(self)
        return representation

    def dumps(self, *, serializer: str | None = None) -> bytes:
        """The value's bytes; JSON unless `serializer` names another codec."""
        from streamcore.codecs import codec_for

        return codec_for(type(self), serializer or self.__serializer__).dumps(self)

    @classmethod
    def loads(cls, data: bytes, *, serializer: str | None = None) -> Self:
        """Read one value.

        Raises:
            DecodeError: the bytes are not such a value.
        """
        from streamcore.codecs import codec_for

        loaded: Self = codec_for(cls, serializer or cls.__serializer__).loads(data)
        return loaded

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """From a mapping in JSON's own types.

        Raises:
            DecodeError: a field is missing or of the wrong type.
        """
        try:
            return msgspec.convert(data, cls, strict=not cls.__coerce__)
        except msgspec.ValidationError as error:
            raise DecodeError(f"this is not a {cls.__name__}: {error}") from error

    def derive(self, *objects: "Record", **fields: Any) -> Self:
        """A copy with the fields of `objects` and `fields` laid over it."""
        merged = self.asdict()
        for other in objects:
            merged.update(other.asdict())
        merged.update(fields)
        return type(self)(**merged)

    @property
    def validation_errors(self) -> list[str]:
        """What is wrong with the field types; empty for a valid value."""
        try:
            msgspec.convert(msgspec.to_builtins(self), type(self))
        except (msgspec.ValidationError, TypeError) as error:
            return [str(error)]
        return []

    def is_valid(self) -> bool:
        return not self.validation_errors

    def validate(self) -> list[str]:
        return self.validation_errors

    def validate_or_raise(self) -> None:
        errors = self.validation_errors
        if errors:
            raise DecodeError(f"this is not a valid {type(self).__name__}: {errors[0]}")


def field_name(accessor: Any) -> str | None:
    """The name behind `Model.field`, or None for anything else."""
    return sys.intern(accessor.__name__) if type(accessor).__name__ == "member_descriptor" else None
