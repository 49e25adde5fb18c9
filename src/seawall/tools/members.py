"""Members of typed arguments by their dotted path, as JSON names them."""

from msgspec import Struct, inspect

__all__ = ["has_member"]


def has_member(arguments: type[Struct], path: list[str]) -> bool:
    """Whether arguments of this type may have something at the path."""
    return _has(inspect.type_info(arguments), path)


def _has(kind: inspect.Type, path: list[str]) -> bool:
    """Whether a value of this type may have something at the path, as it is named in JSON."""
    if not path or isinstance(kind, inspect.AnyType | inspect.CustomType):
        return True
    name, *rest = path
    inside: list[tuple[inspect.Type, list[str]]] = []
    match kind:
        case inspect.Metadata():
            inside = [(kind.type, path)]
        case inspect.UnionType():
            inside = [(each, path) for each in kind.types]
        case inspect.TupleType():
            inside = [(each, path) for each in kind.item_types]
        case inspect.CollectionType():
            inside = [(kind.item_type, path)]
        case inspect.DictType():
            inside = [(kind.value_type, rest)]
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            inside = [(each.type, rest) for each in kind.fields if each.encode_name == name]
    return any(_has(*each) for each in inside)
