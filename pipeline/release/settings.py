"""The recipe's [release] table: what is said of a release, and what its packages are called."""

from typing import Annotated

from pydantic import Field, field_validator

from pipeline.parts import RecipePart
from pipeline.release.licences import LicencePolicy
from pipeline.release.platforms import DEFAULTS, AnyPlatform

Text = Annotated[str, Field(min_length=1, max_length=10_000)]


class ReleaseSettings(RecipePart):
    """What is said of the model, which licences it was made under, and how its packages are made."""

    description: Text | None = Field(default=None, examples=["Reads handwritten digits on meters."])
    """What the model does, in a sentence or two; for its model card."""
    intended_use: Text | None = Field(default=None, examples=["Reading meters in cellars, checked by people."])
    """Who may use it for what."""
    limitations: tuple[Text, ...] = Field(default=(), examples=[["Never saw handwriting of children."]])
    """What it must not be used for, and where it fails."""
    licences: LicencePolicy = LicencePolicy()
    """Of what it was made from, and which ones it must do without."""
    platforms: tuple[AnyPlatform, ...] = Field(default=(), examples=[[{"kind": "android", "group": "com.example"}]])
    """How packages are made for `edgeproof release --for PLATFORM`; a platform that is not listed gets its defaults."""

    @field_validator("platforms")
    @classmethod
    def _platforms_differ(cls, platforms: tuple[AnyPlatform, ...]) -> tuple[AnyPlatform, ...]:
        kinds = [platform.kind for platform in platforms]
        for index, kind in enumerate(kinds):
            if (first := kinds.index(kind)) != index:
                raise ValueError(f'expected each platform once; got "{kind}" in platforms[{first}] and [{index}]')
        return platforms

    def platform(self, kind: str) -> AnyPlatform:
        """Return what the recipe says of a platform, else its defaults; raises KeyError where there is none such."""
        return next((each for each in self.platforms if each.kind == kind), None) or DEFAULTS[kind]
