"""Constraints: value forms, fitness distance, SelectSettings (https://w3c.github.io/mediacapture-main/#constrainable-interface).

Pure. What a device can do is a `Space` (see `msrecd.media.space`): a product of dimensions, each with candidates for
some properties. A constraint set is a sum over properties, so every dimension is judged alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msrecd.dom.dictionaries import warn_of_unknown
from msrecd.flow.units import Kind
from msrecd.vocabulary.constraints import PROPERTIES, ValueType

Value = float | str | bool
Settings = Mapping[str, Any]


_ALL = PROPERTIES["video"] | PROPERTIES["audio"]
_TOLERANCES = {"aspect_ratio": 1e-3, "frame_rate": 1e-3}  # sizes are whole, 29.97 is 30000/1001
_LARGEST_ULONG = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What is asked of one property. `exact` and `ideal` hold alternatives for strings, else at most one value."""

    min: float | None = None
    max: float | None = None
    exact: tuple[Value, ...] = ()
    ideal: tuple[Value, ...] = ()

    @property
    def is_required(self) -> bool:
        return self.min is not None or self.max is not None or bool(self.exact)

    def numbers(self) -> list[float]:
        """All numbers in it: at one of them (or at an end of the property's range) the distance is smallest."""
        found = (self.min, self.max, *self.exact, *self.ideal)
        return [value for value in found if isinstance(value, (int, float)) and not isinstance(value, bool)]


ConstraintSet = Mapping[str, Constraint]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintSets:
    """MediaTrackConstraints after conversion: the basic set and the advanced ones in their order."""

    basic: ConstraintSet
    advanced: tuple[ConstraintSet, ...] = ()

    @property
    def mentioned(self) -> frozenset[str]:
        """Every property that is constrained somewhere."""
        return frozenset(name for members in (self.basic, *self.advanced) for name in members)

    def numbers(self, name: str) -> list[float]:
        """Every number that is said of a property."""
        return [
            number for members in (self.basic, *self.advanced) if name in members for number in members[name].numbers()
        ]


class Dimension(Protocol):
    """Properties that can be chosen independently of all others."""

    def candidates(self, sets: ConstraintSets) -> Sequence[Settings]:
        """What can be chosen, preferred first; of a continuous range the points at which `sets` can be met best."""


Space = Sequence[Dimension]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """A dimension of a few possibilities."""

    options: tuple[Settings, ...]

    def candidates(self, sets: ConstraintSets) -> Sequence[Settings]:
        del sets
        return self.options


def fixed_space(settings: Settings) -> Space:
    """A space of one point, for sources with nothing to choose."""
    return tuple(Choices(options=({name: value},)) for name, value in settings.items())


def convert(constraints: object, kind: Kind) -> ConstraintSets:
    """MediaTrackConstraints as WebIDL would take them: constraints of the other kind and unknown names are left out.

    Raises:
        TypeError: a member has a wrong type; the message names it.
    """
    if not isinstance(constraints, Mapping):
        raise TypeError(f"constraints must be a mapping, not {type(constraints).__name__}")
    advanced = constraints.get("advanced")
    if advanced is None:
        advanced = ()
    if isinstance(advanced, (str, bytes)) or not isinstance(advanced, Sequence):
        raise TypeError(f"advanced must be a list of constraint sets, not {type(advanced).__name__}")
    sets = []
    for index, members in enumerate(advanced):
        if not isinstance(members, Mapping):
            raise TypeError(f"advanced[{index}] must be a mapping, not {type(members).__name__}")
        sets.append(_convert_set(members, kind, is_advanced=True))
    return ConstraintSets(basic=_convert_set(constraints, kind, is_advanced=False), advanced=tuple(sets))


def _convert_set(members: Mapping[str, object], kind: Kind, *, is_advanced: bool) -> dict[str, Constraint]:
    converted = {}
    for name, value in members.items():
        if value is None or name == "advanced":
            continue
        value_type = _ALL.get(name)
        if value_type is None:
            continue  # `warn_of_unknown_constraints` names it
        constraint = _convert_value(name, value_type, value, is_advanced)
        if name in PROPERTIES[kind] and constraint != Constraint():
            converted[name] = constraint
    return converted


def known_members(constraints: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy without unknown names and absent members, as WebIDL's conversion leaves them."""
    known = {name: value for name, value in constraints.items() if name in _ALL and value is not None}
    if constraints.get("advanced") is not None:
        known["advanced"] = [
            {name: value for name, value in members.items() if name in _ALL and value is not None}
            for members in constraints["advanced"]
        ]
    return copy.deepcopy(known)


def warn_of_unknown_constraints(constraints: object, *, stacklevel: int) -> None:
    """One UserWarning for each name that no kind of track knows; `stacklevel` counts from here."""
    if not isinstance(constraints, Mapping):
        return
    warn_of_unknown("a track", constraints, (*_ALL, "advanced"), what="constraint", stacklevel=stacklevel + 1)
    advanced = constraints.get("advanced")
    for members in advanced if isinstance(advanced, Sequence) else ():
        if isinstance(members, Mapping):
            warn_of_unknown("a track", members, _ALL, what="constraint", stacklevel=stacklevel + 1)


def _convert_value(name: str, value_type: ValueType, value: object, is_advanced: bool) -> Constraint:
    if not isinstance(value, Mapping):
        bare = _alternatives(name, value_type, value)
        return Constraint(exact=bare) if is_advanced else Constraint(ideal=bare)
    limits: dict[str, float | None] = {}
    for limit in ("min", "max"):
        given = value.get(limit)
        counts = value_type.is_numeric and given is not None
        limits[limit] = _number(f"{name}.{limit}", value_type, given) if counts else None
    exact, ideal = value.get("exact"), value.get("ideal")
    return Constraint(
        min=limits["min"],
        max=limits["max"],
        exact=() if exact is None else _alternatives(f"{name}.exact", value_type, exact),
        ideal=() if ideal is None else _alternatives(f"{name}.ideal", value_type, ideal),
    )


def _alternatives(path: str, value_type: ValueType, value: object) -> tuple[Value, ...]:
    if not value_type.takes(value):
        raise TypeError(f"{path} must be {value_type.wanted}, not {value!r}")
    if isinstance(value, str):
        return () if value == "" and path.startswith("device_id") else (str(value),)
    if isinstance(value, Sequence):
        return tuple(value)
    return (value if isinstance(value, bool) else _number(path, value_type, value),)


def _number(path: str, value_type: ValueType, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value_type.takes(value):
        raise TypeError(f"{path} must be {value_type.wanted}, not {value!r}")
    if value_type is ValueType.ULONG:  # [Clamp] unsigned long
        return min(max(round(value), 0), _LARGEST_ULONG)
    return value


def satisfies(name: str, constraint: Constraint, settings: Settings) -> bool:
    """Whether settings meet the required part of a constraint."""
    if not constraint.is_required:
        return True
    actual = settings.get(name)
    if constraint.exact and isinstance(constraint.exact[0], bool) and not isinstance(actual, bool):
        return constraint.exact[0] == (actual is not None)  # "zoom: true" asks for a camera that can zoom
    if actual is None:
        return False
    if constraint.exact and not any(_equal(name, actual, wanted) for wanted in constraint.exact):
        return False
    if constraint.min is None and constraint.max is None:
        return True
    slack = _TOLERANCES.get(name, 1e-9) * abs(actual)
    if constraint.min is not None and actual < constraint.min - slack:
        return False
    return constraint.max is None or actual <= constraint.max + slack


def distance(name: str, constraint: Constraint, settings: Settings) -> float:
    """The fitness distance of one member (https://w3c.github.io/mediacapture-main/#dfn-fitness-distance)."""
    if not satisfies(name, constraint, settings):
        return math.inf
    if not constraint.ideal:
        return 0.0
    actual = settings.get(name)
    if isinstance(constraint.ideal[0], bool) and not isinstance(actual, bool):
        return 0.0 if constraint.ideal[0] == (actual is not None) else 1.0
    if actual is None:
        return 1.0
    if isinstance(actual, (int, float)) and not isinstance(actual, bool):
        return min(_relative(name, actual, wanted) for wanted in constraint.ideal)
    return 0.0 if actual in constraint.ideal else 1.0


def _relative(name: str, actual: float, wanted: Value) -> float:
    if isinstance(wanted, str):
        return 1.0
    if _equal(name, actual, wanted):
        return 0.0
    return abs(actual - wanted) / max(abs(actual), abs(wanted))


def _equal(name: str, actual: Value, wanted: Value) -> bool:
    if isinstance(actual, bool) or isinstance(wanted, bool):
        return actual is wanted
    if isinstance(actual, str) or isinstance(wanted, str):
        return actual == wanted
    return math.isclose(actual, wanted, rel_tol=_TOLERANCES.get(name, 1e-9))


def fitness(members: ConstraintSet, settings: Settings) -> float:
    """The fitness distance of a settings dictionary to a set."""
    return sum((distance(name, constraint, settings) for name, constraint in members.items()), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What SelectSettings chose, and how far it is from what was wished."""

    settings: dict[str, Any]
    distance: float


def select_settings(space: Space, sets: ConstraintSets) -> Selection | None:
    """https://w3c.github.io/mediacapture-main/#dfn-selectsettings; None when nothing satisfies the basic set."""
    pools = [dimension.candidates(sets) for dimension in space]
    owners = _owners(pools)
    if any(name not in owners and fitness({name: one}, {}) == math.inf for name, one in sets.basic.items()):
        return None
    remaining: list[list[Settings]] = []
    for index, pool in enumerate(pools):
        members = _members_of(sets.basic, owners, index)
        kept = [candidate for candidate in pool if _finite(members, candidate)]
        if not kept:
            return None
        remaining.append(kept)
    for advanced in sets.advanced:
        remaining = _narrow(remaining, advanced, owners) or remaining
    settings: dict[str, Any] = {}
    total = sum(fitness({name: one}, {}) for name, one in sets.basic.items() if name not in owners)
    for index, candidates in enumerate(remaining):
        members = _members_of(sets.basic, owners, index)
        best = min(candidates, key=lambda candidate: fitness(members, candidate))
        total += fitness(members, best)
        settings |= best
    return Selection(settings=settings, distance=total)


def _owners(pools: Iterable[Iterable[Settings]]) -> dict[str, int]:
    return {name: index for index, pool in enumerate(pools) for candidate in pool for name in candidate}


def _members_of(members: ConstraintSet, owners: Mapping[str, int], index: int) -> ConstraintSet:
    return {name: constraint for name, constraint in members.items() if owners.get(name) == index}


def _finite(members: ConstraintSet, candidate: Settings) -> bool:
    return all(satisfies(name, constraint, candidate) for name, constraint in members.items())


def _narrow(
    pools: list[list[Settings]], advanced: ConstraintSet, owners: Mapping[str, int]
) -> list[list[Settings]] | None:
    """The pools with only what satisfies an advanced set, None when nothing does."""
    if any(name not in owners and not satisfies(name, one, {}) for name, one in advanced.items()):
        return None
    narrowed = []
    for index, pool in enumerate(pools):
        members = _members_of(advanced, owners, index)
        kept = [candidate for candidate in pool if _finite(members, candidate)]
        if not kept:
            return None
        narrowed.append(kept)
    return narrowed


def failed_constraint(spaces: Sequence[Space], sets: ConstraintSets) -> str:
    """The required constraint to blame when no space satisfies the basic set.

    One that fails alone everywhere; else one that fails once the others hold; "" when there is none.
    """
    required = [name for name, constraint in sets.basic.items() if constraint.is_required]

    def possible(names: Iterable[str]) -> bool:
        only = ConstraintSets(basic={name: sets.basic[name] for name in names})
        return any(select_settings(space, only) is not None for space in spaces)

    for name in required:
        if not possible([name]):
            return name
    # A number that does not fit is to blame rather than the mode beside it (decision C17).
    for name in sorted(required, key=lambda one: not sets.basic[one].numbers()):
        if possible(other for other in required if other != name):
            return name
    return required[0] if required else ""


def choose(space: Space, sets: ConstraintSets) -> dict[str, Any] | str:
    """Settings, or the name of the constraint that failed."""
    selection = select_settings(space, sets)
    return failed_constraint([space], sets) if selection is None else selection.settings
