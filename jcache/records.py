"""Dataclasses that take a quarter of the time to import: of all their methods, one is compiled for each class.

What `dataclasses` itself writes and compiles, six methods a class, was a third of what importing JCache took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses
    from operator import attrgetter

    _unset = object()

    def dataclass(*, frozen=False, slots=False, kw_only=False, eq=True):
        """Do as `dataclasses.dataclass` does, for classes without `__post_init__` whose fields are all arguments."""

        def make(cls):
            cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
            members = dataclasses.fields(cls)
            methods = {"__init__": _init(cls, members, frozen=frozen), "__repr__": _repr}
            if eq:
                methods |= _comparing([member.name for member in members if member.compare], hashes=frozen)
            for name, method in methods.items():
                if name not in cls.__dict__ or (name == "__hash__" and cls.__hash__ is None):
                    setattr(cls, name, method)
            if frozen:
                cls.__setattr__ = cls.__delattr__ = _refuse
                cls.__getstate__, cls.__setstate__ = _get_state, _set_state
            return cls

        return make

    def _init(cls, members, *, frozen):
        known = {"_set": object.__setattr__, "_unset": _unset}
        arguments, keywords, lines = ["self"], [], []
        for number, member in enumerate(members):
            name = value = member.name
            given = name
            if member.default is not dataclasses.MISSING:
                known[f"_d{number}"] = member.default
                given = f"{name}=_d{number}"
            elif member.default_factory is not dataclasses.MISSING:
                known[f"_d{number}"] = member.default_factory
                given, value = f"{name}=_unset", f"_d{number}() if {name} is _unset else {name}"
            (keywords if member.kw_only else arguments).append(given)
            lines.append(f" _set(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
        signature = ", ".join([*arguments, *(["*", *keywords] if keywords else [])])
        exec("\n".join([f"def __init__({signature}):", *(lines or [" pass"])]), known)  # noqa: S102 - as `dataclasses` does
        init = known["__init__"]
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        return init

    def _repr(self):
        shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self) if one.repr)
        return f"{type(self).__qualname__}({shown})"

    def _comparing(names, *, hashes):
        values = attrgetter(*names) if names else lambda _: ()

        def __eq__(self, other):  # noqa: N807 - a method
            return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

        def __hash__(self):  # noqa: N807 - a method
            return hash(values(self))

        return {"__eq__": __eq__, "__hash__": __hash__ if hashes else None}

    def _refuse(_, name, *__):
        raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")

    def _get_state(self):
        return [getattr(self, one.name) for one in dataclasses.fields(self)]

    def _set_state(self, state):
        for one, value in zip(dataclasses.fields(self), state, strict=True):
            object.__setattr__(self, one.name, value)
