"""What health says, and why, as plain code: several troubles may hold at once."""

from __future__ import annotations

from enum import Enum

from imagesafety.v1 import scoring_pb2

SERVICE_NAME = scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name
LIVENESS = "liveness"
"""The name that tells a process which has to be started anew from one that is only busy."""


NAMES = ("", SERVICE_NAME, LIVENESS)
"""What health is asked for; the first one is the service as a whole."""


class Trouble(Enum):
    """Why the service should get no calls; DEVICE_LOST comes on top of DEVICE_FAILS."""

    DEVICE_FAILS = "the device fails"
    DEVICE_LOST = "the device has failed for a minute"
    DEVICE_STUCK = "the device does not come back"
    DRAINING = "the service is shutting down"


_DEADLY = {Trouble.DEVICE_LOST, Trouble.DEVICE_STUCK}


class ServingStatus:
    """Which of NAMES are SERVING."""

    def __init__(self) -> None:
        self._troubles: set[Trouble] = set()

    def set(self, trouble: Trouble, holds: bool) -> None:
        """From now on, a trouble holds or does not."""
        (self._troubles.add if holds else self._troubles.discard)(trouble)

    def objection(self, name: str) -> str | None:
        """Why a name is not SERVING, if so.

        Only a device that does not come back or fails for long is no life: a restart helps against
        nothing else, and a service that drains must not be killed for it.
        """
        counted = _DEADLY if name == LIVENESS else set(Trouble)
        return next((one.value for one in Trouble if one in counted & self._troubles), None)
