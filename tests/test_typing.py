"""The stub says what the module has: no name more or less, and the same parameters."""

import ast
import importlib.resources
import inspect
import sys

import pytest

import bsa
from bsa import _core

PACKAGE = importlib.resources.files(bsa)
STUB = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
OLD = sys.version_info < (3, 12)  # where buffers have no methods

TYPES = [bsa.Allocator, bsa.Section, bsa.Slab, bsa.Block]
ERRORS = [value for value in vars(bsa).values() if isinstance(value, type)]
ERRORS = [error for error in ERRORS if issubclass(error, bsa.AllocError)]


def statements(nodes):
    """With those under `if`."""
    for node in nodes:
        if isinstance(node, ast.If):
            yield from statements([*node.body, *node.orelse])
        else:
            yield node


def definitions(nodes):
    """Name to the definitions of functions, classes and values; of aliases and imports not."""
    found = {}
    for node in statements(nodes):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign) and "TypeAlias" not in ast.dump(node.annotation):
            found.setdefault(node.target.id, []).append(node)
    return found


STUBS = definitions(STUB.body)


def members(name):
    return definitions(STUBS[name][0].body)


def public(names):
    return {name for name in names if not name.startswith("_")}


def parameters_of_stub(function):
    """(name, kind, default as text) of each parameter but self."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + a.defaults
    found = []
    for place, (argument, default) in enumerate(zip(positional, defaults)):
        only = place < len(a.posonlyargs)
        kind = (
            inspect.Parameter.POSITIONAL_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        found.append((argument.arg, kind, default))
    for argument, default in zip(a.kwonlyargs, a.kw_defaults):
        found.append((argument.arg, inspect.Parameter.KEYWORD_ONLY, default))
    return [
        (name, kind, None if default is None else ast.unparse(default))
        for name, kind, default in found
        if name not in ("self", "cls")
    ]


def parameters_of_module(function):
    empty = inspect.Parameter.empty
    return [
        (p.name, p.kind, None if p.default is empty else repr(p.default))
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]


def methods(cls):
    return {n: m for n, m in vars(cls).items() if inspect.ismethoddescriptor(m)}


PUBLIC_METHODS = [
    pytest.param(cls, name, id=f"{cls.__name__}.{name}")
    for cls in TYPES
    for name in sorted(public(methods(cls)))
]
FUNCTIONS = [name for name in vars(_core) if inspect.isbuiltin(getattr(_core, name))]


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_the_stub_and_the_module_have_the_same_names():
    of_module = {name for name in vars(_core) if not name.startswith("__")}
    assert set(STUBS) == of_module


def test_every_name_of_the_module_but_private_ones_is_the_packages_too():
    of_module = public(vars(_core))
    assert of_module <= set(bsa.__all__)
    assert all(getattr(bsa, name) is getattr(_core, name) for name in of_module)


def test_all_names_that_the_package_offers_are_there():
    assert [name for name in bsa.__all__ if not hasattr(bsa, name)] == []
    assert len(set(bsa.__all__)) == len(bsa.__all__)


@pytest.mark.parametrize("cls", TYPES)
def test_the_stub_of_a_type_has_its_public_members(cls):
    assert public(members(cls.__name__)) == public(vars(cls))


@pytest.mark.parametrize("cls", TYPES)
def test_the_special_methods_of_a_stub_exist(cls):
    special = {name for name in members(cls.__name__) if name.startswith("_")}
    special -= {"__buffer__", "__release_buffer__"} if OLD else set()
    assert [name for name in special if not hasattr(cls, name)] == []


@pytest.mark.parametrize("cls", TYPES)
def test_a_type_is_final_in_the_stub_if_it_cannot_be_inherited_from(cls):
    decorators = [ast.unparse(decorator) for decorator in STUBS[cls.__name__][0].decorator_list]
    try:
        type("Heir", (cls,), {})
    except TypeError:
        assert decorators == ["final"]
    else:
        assert decorators == []


@pytest.mark.parametrize("cls", TYPES)
def test_the_stub_tells_properties_from_methods(cls):
    for name, nodes in members(cls.__name__).items():
        if not name.startswith("_"):
            decorators = [ast.unparse(decorator) for decorator in nodes[0].decorator_list]
            assert ("property" in decorators) == inspect.isgetsetdescriptor(getattr(cls, name))


@pytest.mark.parametrize("cls", TYPES)
def test_the_stub_has_setters_for_what_can_be_set(cls):
    for name, nodes in members(cls.__name__).items():
        setters = [n for n in nodes[1:] if isinstance(n, ast.FunctionDef) and n.decorator_list]
        settable = {"limit", "on_oom"} if cls is bsa.Allocator else set()
        if inspect.isgetsetdescriptor(getattr(cls, name, None)):
            assert bool(setters) == (name in settable)


@pytest.mark.parametrize("cls, name", PUBLIC_METHODS)
def test_the_parameters_of_a_method_are_those_of_its_stub(cls, name):
    (stub,) = members(cls.__name__)[name]
    assert parameters_of_stub(stub) == parameters_of_module(getattr(cls, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_parameters_of_a_function_are_those_of_its_stub(name):
    (stub,) = STUBS[name]
    assert parameters_of_stub(stub) == parameters_of_module(getattr(_core, name))


def test_the_parameters_of_allocator_are_those_of_its_stub():
    (stub,) = members("Allocator")["__new__"]
    assert parameters_of_stub(stub) == parameters_of_module(bsa.Allocator)


@pytest.mark.parametrize("cls, name", PUBLIC_METHODS)
def test_a_public_method_has_a_docstring(cls, name):
    assert len(getattr(cls, name).__doc__) > 10


@pytest.mark.parametrize("cls", TYPES)
def test_a_type_and_its_properties_have_docstrings(cls):
    assert len(cls.__doc__) > 20
    undocumented = [n for n in public(vars(cls)) if not getattr(cls, n).__doc__]
    assert undocumented == []


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_has_a_docstring_and_the_bases_of_its_stub(error):
    assert len(error.__doc__) > 20
    if error.__name__ in STUBS:
        bases = [ast.unparse(base) for base in STUBS[error.__name__][0].bases]
        assert bases == [base.__name__ for base in error.__bases__]


def test_the_stub_of_stats_has_its_fields_in_their_order():
    fields = [name for name in members("Stats") if not name.startswith("_")]
    assert fields == list(bsa.Stats.__match_args__)
    assert len(fields) == bsa.Stats.n_fields == bsa.Stats.n_sequence_fields


def test_the_fields_of_stats_have_docstrings():
    assert all(getattr(bsa.Stats, name).__doc__ for name in bsa.Stats.__match_args__)


def test_the_value_of_max_order_is_that_of_the_stub():
    assert ast.literal_eval(STUBS["MAX_ORDER"][0].value) == bsa.MAX_ORDER


def test_a_default_of_a_method_works_as_written():
    with bsa.Allocator(1 << 20) as heap:
        heap.free(heap.malloc(10, align=None, zero=False))
        heap.alloc_pages(1, align=None, exact=False).free()
        assert len(heap.slabs(size=None)) == len(heap.slabs()) == 1


def test_help_teaches_the_main_methods():
    text = inspect.getdoc(bsa.Allocator)
    for name in ("alloc", "malloc", "free", "add_region"):
        assert name in text


def test_help_shows_signatures(capsys):
    help(bsa.Allocator)
    shown = capsys.readouterr().out
    for signature in (
        "alloc(self, /, size",
        "malloc(self, /, size",
        "free(self, addr",
        "check(self",
    ):
        assert signature in shown
