"""A request for the examination of an upload."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.overrides.matching import OverrideSet
from gateway.policy_in_force import PolicyInForce
from gateway.upload import Upload
from imagesafety.policy import Mode


@dataclass(frozen=True, slots=True)
class ExaminationRequest:
    """An upload, and all that its examination depends on, as it was when it began."""

    id: str
    upload: Upload
    client: str
    mode: Mode
    user_agent: str
    policy: PolicyInForce
    overrides: OverrideSet

    @property
    def media_type(self) -> str:
        """The declared type of the file; of a form, known when its headers were read."""
        return self.upload.media_type
