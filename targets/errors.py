"""What can go wrong, as users see it.

    EdgeproofError            exit code 1: where, what was expected, what came, what to do
    +-- DeviceError           exit code 4: a device, its runtime or a job on it failed
    |   +-- ConnectionLost    exit code 4: a device that may answer again: waiting is worth while
    |   +-- ModelRefused      exit code 1: the runtime works, but refuses this model
    +-- LogRefused            exit code 1: a log of another tool holds nothing that can be read
    +-- Interrupted           exit code 130: its user ended it
    +-- (pipeline.errors)     exit code 2: wrong usage or recipe

A missed budget is a value, never an exception. Devices carry this file: Python 3.8, standard library.
"""

from __future__ import annotations


class EdgeproofError(Exception):
    """Any failure that is reported to users in one message, without a traceback."""

    exit_code = 1


class DeviceError(EdgeproofError):
    """A device cannot be reached, lacks a runtime, or a job on it died."""

    exit_code = 4


class ConnectionLost(DeviceError):
    """The network or the device's ssh server does not answer, or no longer does; trying again may help."""


class ModelRefused(DeviceError):
    """The runtime cannot read, compile or run this model; the message quotes its reason in one line."""

    exit_code = 1


class Interrupted(EdgeproofError):
    """The user ended the work that this thread is a part of; what it had on a device is cleaned up."""

    exit_code = 130


class LogRefused(EdgeproofError):
    """A log of another tool is not what it should be, or its tool failed; the message gives the tool's reason."""
