"""Every write into a dictionary, class or function changes its tags, and nothing else does."""

from __future__ import annotations

import sys
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bac.plan.tags import AVAILABLE, Tags, words_of_class, words_of_dictionary, words_of_function

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this Python has no tags")


class Thing:
    """An object whose attributes are set from here."""

    def __init__(self) -> None:
        self.one = 1
        self.other = 1


class Child(Thing):
    """Its own dictionary is empty but for this text."""


def has_changed(words, change) -> bool:
    tags = Tags(words)
    before = tags.now()
    assert (tags.now() == before).all()
    change()
    return bool((tags.now() != before).any())


WRITES = {
    "assign": lambda d: d.__setitem__("one", 2),
    "add": lambda d: d.__setitem__("new", 2),
    "delete": lambda d: d.__delitem__("one"),
    "pop": lambda d: d.pop("one"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "update": lambda d: d.update(one=2),
    "merge": lambda d: d.__ior__({"one": 2}),
    "setdefault": lambda d: d.setdefault("new", 2),
    "refill": lambda d: (d.clear(), d.update(one=1, other=1)),
    "there and back": lambda d: (d.__setitem__("one", 2), d.__setitem__("one", 1)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("kind", [dict, OrderedDict, lambda **items: vars(filled(Thing(), items))])
def test_a_write_into_a_dictionary_changes_its_tag(kind, write):
    written, other = kind(one=1, other=1), {"one": 1}
    assert not has_changed(words_of_dictionary(other), lambda: write(kind(one=1, other=1)))
    assert has_changed(words_of_dictionary(written), lambda: write(written))


def filled(thing, items):
    vars(thing).update(items)
    return thing


def set_one(thing):
    thing.one += 1


def test_an_attribute_that_specialised_code_sets_changes_the_tag():
    """Python replaces an instruction that runs often by one that writes past the dictionary's methods."""
    young, old = Thing(), Thing()
    for _ in range(1000):
        set_one(young)
    words = words_of_dictionary(vars(old))
    for _ in range(1000):
        assert has_changed(words, lambda: set_one(old))
        assert has_changed(words, lambda: setattr(old, "other", old.other + 1))
    assert has_changed(words, lambda: delattr(old, "one"))
    assert has_changed(words_of_dictionary(vars(young)), lambda: set_one(young))
    for _ in range(1000):
        assert has_changed(words_of_dictionary(vars(young)), lambda: set_one(young))


@pytest.mark.parametrize("cls", [Thing, Child])
def test_an_attribute_of_a_class_changes_the_tag_of_that_class_alone(cls):
    words = words_of_dictionary(cls)
    try:
        assert has_changed(words, lambda: setattr(cls, "scale", 1))
        assert has_changed(words, lambda: setattr(cls, "scale", 2))
        assert has_changed(words, lambda: setattr(cls, "__call__", set_one))
    finally:
        assert has_changed(words, lambda: delattr(cls, "scale"))
        del cls.__call__
    assert not has_changed(words, lambda: vars(cls()))


def test_a_global_variable_changes_the_tag_of_its_module():
    words = words_of_dictionary(globals())
    try:
        for number in range(100):
            assert has_changed(words, lambda number=number: write_global(number))
    finally:
        del globals()["VARIABLE"]


def write_global(number):
    global VARIABLE
    VARIABLE = number


def test_another_class_changes_the_tag_of_an_object():
    thing = Thing()
    assert has_changed(words_of_class(thing), lambda: setattr(thing, "__class__", Child))
    assert not has_changed(words_of_class(thing), lambda: setattr(thing, "one", 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [("__code__", set_one.__code__), ("__defaults__", (3,)), ("__kwdefaults__", {"other": 3}), ("__defaults__", None)],
)
def test_code_and_defaults_of_a_function_change_its_tags(name, value):
    def function(one, other=1, *, third=2): ...

    assert has_changed(words_of_function(function), lambda: setattr(function, name, value))
    assert not has_changed(words_of_function(function), lambda: str(function))


def test_what_has_no_tag_is_left_to_visits():
    class Pretending:
        __class__ = property(lambda self: int)

    assert words_of_dictionary([1]) == words_of_dictionary(type("Sub", (dict,), {})()) == ()
    assert words_of_class(Pretending()) == words_of_function(len) == words_of_function(Thing().__init__) == ()
    assert Tags([]).now().size == 0


KEYS = st.sampled_from(["a", "b", "c", *map(str, range(9))])
WRITE = st.tuples(st.sampled_from(["set", "pop", "update", "clear", "copy", "read"]), KEYS, st.integers(0, 3))


@given(st.sampled_from([dict, OrderedDict]), st.lists(WRITE, max_size=40))
def test_no_change_of_the_items_escapes(kind, writes):
    items = kind(a=1)
    tags = Tags(words_of_dictionary(items))
    for what, key, value in writes:
        before, tag = dict(items), tags.now()
        if what == "set":
            items[key] = value
        elif what == "pop":
            items.pop(key, None)
        elif what == "update":
            items.update({key: value, "z": value})
        elif what == "clear":
            items.clear()
        else:
            items.get(key), items.copy()
        assert items == before or tags.now() != tag
        assert what not in ("copy", "read") or tags.now() == tag


def test_tags_keep_their_objects_alive():
    thing = Thing()
    references = sys.getrefcount(thing)
    tags = Tags(words_of_class(thing))
    assert sys.getrefcount(thing) == references + 1
    del tags
    assert sys.getrefcount(thing) == references
