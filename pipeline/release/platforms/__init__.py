"""What packages are for: one file a platform, its templates beside it. The union is the registry."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Tag

from pipeline.release.platforms.android import Android
from pipeline.release.platforms.ios import IOS
from pipeline.release.platforms.linux import Linux
from pipeline.release.platforms.web import Web

AnyPlatform = Annotated[
    Annotated[Android, Tag("android")]
    | Annotated[IOS, Tag("ios")]
    | Annotated[Linux, Tag("linux")]
    | Annotated[Web, Tag("web")],
    Discriminator("kind"),
]

DEFAULTS: Mapping[str, AnyPlatform] = {each.kind: each for each in (Android(), IOS(), Linux(), Web())}
"""What a platform is that the recipe says nothing of, by kind."""
