"""The errors of the property system, in one tree.

RFC 9622 section 8 lets ``SetProperty`` answer with an ErrorCode.  Here it is an exception that
carries the code, and that is also what Python raises for a mistake of the same sort, so that
``except KeyError`` or ``except ValueError`` do what they say.  None of them ends a Connection.

::

    PropertyError (GreentapsError)           code        also a
    ├── UnknownPropertyError                 UNKNOWN     KeyError
    ├── PropertyNameError                    NAME        ValueError       (only when registering)
    ├── PropertyTypeError                    TYPE        TypeError
    ├── PropertyValueError                   VALUE       ValueError
    ├── PropertyReadOnlyError                READ_ONLY   AttributeError
    │   └── PropertyMomentError              MOMENT      AttributeError
    ├── PropertyUnsupportedError             UNSUPPORTED NotImplementedError
    └── PropertyRefusedError                 REFUSED     RuntimeError
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from ...errors import GreentapsError

__all__ = [
    "ErrorCode",
    "PropertyError",
    "PropertyMomentError",
    "PropertyNameError",
    "PropertyNameWarning",
    "PropertyReadOnlyError",
    "PropertyRefusedError",
    "PropertyTypeError",
    "PropertyUnsupportedError",
    "PropertyValueError",
    "UnknownPropertyError",
]


class ErrorCode(Enum):
    """What was wrong with setting or reading a property (RFC 9622 section 8)."""

    UNKNOWN = "no such property"
    NAME = "not a name for a new property"
    TYPE = "wrong type"
    VALUE = "wrong value"
    READ_ONLY = "never set by an application"
    MOMENT = "cannot be set here, or not any more"
    UNSUPPORTED = "not a property of the protocols in use"
    REFUSED = "the protocol stack could not apply it"


class PropertyError(GreentapsError):
    """A property was not set, or not read; everything is as it was before.

    `message` (str) says why and what would be right, `name` (str) is the property's name as it
    was given or as the RFC spells it, `code` (`ErrorCode`) is the RFC's ErrorCode.
    """

    code: ClassVar[ErrorCode]
    message: str
    name: Any

    def __init__(self, message: str, name: Any = "") -> None:
        super().__init__(message, name)
        self.message = message
        self.name = name

    def __str__(self) -> str:
        # KeyError would show the repr of its argument.
        return self.message


class UnknownPropertyError(PropertyError, KeyError):
    """No property has this name, in any spelling."""

    code = ErrorCode.UNKNOWN


class PropertyNameError(PropertyError, ValueError):
    """A property of one's own may not be called this (RFC 9622 section 4.1)."""

    code = ErrorCode.NAME


class PropertyTypeError(PropertyError, TypeError):
    """The value is of a type that the property does not take."""

    code = ErrorCode.TYPE


class PropertyValueError(PropertyError, ValueError):
    """The type is right, but the property has no such value."""

    code = ErrorCode.VALUE


class PropertyReadOnlyError(PropertyError, AttributeError):
    """The library alone says what the value is."""

    code = ErrorCode.READ_ONLY


class PropertyMomentError(PropertyReadOnlyError):
    """The property can be set, but not on this object: a Selection Property once there is a
    Connection, or a property that is not one of Messages on a MessageContext."""

    code = ErrorCode.MOMENT


class PropertyUnsupportedError(PropertyError, NotImplementedError):
    """A protocol's own property, and that protocol is not part of the stack in use."""

    code = ErrorCode.UNSUPPORTED


class PropertyRefusedError(PropertyError, RuntimeError):
    """The stack could not apply the value; ``__cause__`` is what it raised.  The old value
    stays."""

    code = ErrorCode.REFUSED


class PropertyNameWarning(UserWarning):
    """A vendor's name contains a keyword that RFC 9622 section 4.1 wants kept out of it."""
