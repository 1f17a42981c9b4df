"""What the fields of platforms refuse, because a package index or a runtime of apps would, or read otherwise."""

import pytest
from pydantic import ValidationError

from pipeline.release.platforms.android import Android
from pipeline.release.platforms.linux import Linux
from pipeline.release.platforms.web import Web


@pytest.mark.parametrize("group", ["java", "javax.vision", "android.media", "androidx.camera"])
def test_groups_of_java_and_android_are_theirs(group: str) -> None:
    with pytest.raises(ValidationError, match="whose classes Java and Android keep to themselves"):
        Android(group=group)


@pytest.mark.parametrize("group", ["javanese", "com.java", "edgeproof"])
def test_other_groups_are_free(group: str) -> None:
    assert Android(group=group).group == group


def test_versions_are_of_ascii_digits() -> None:
    for platform in (Android, Web):
        with pytest.raises(ValidationError, match="should match pattern"):
            platform(onnxruntime="\u0661.\u0662.\u0663")


def test_a_range_that_would_end_a_line_of_a_wheels_metadata_is_refused() -> None:
    with pytest.raises(ValidationError, match=r'as pip takes it, like ">=1.18,<2"; got ">=1.21\\n"'):
        Linux(numpy=">=1.21\n")
