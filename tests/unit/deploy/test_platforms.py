"""Names of platforms, as OCI and the kernel have them."""

from __future__ import annotations

import pytest

from deploy import platforms


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("linux", "amd64"), "linux/amd64"),
        (("linux", "arm64", "v8"), "linux/arm64"),
        (("linux", "arm", "v7"), "linux/arm/v7"),
    ],
)
def test_a_variant_counts_for_32_bit_arm_alone(parts: tuple[str, ...], name: str) -> None:
    """Tools write that of 64-bit ARM or leave it out."""
    assert platforms.format_platform(*parts) == name


@pytest.mark.parametrize(
    ("found", "wanted", "is_same"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64", "linux/amd64", False),
        ("linux/arm64", "linux/arm", False),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("", "linux/amd64", False),
    ],
)
def test_a_wanted_platform_may_leave_the_variant_open(
    found: str, wanted: str, is_same: bool
) -> None:
    """An engine does not name the variant of its processor."""
    assert platforms.is_platform(found, wanted) is is_same


@pytest.mark.parametrize(
    ("platform", "name"),
    [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64"), ("linux/s390x", "s390x")],
)
def test_the_kernel_has_names_of_its_own(platform: str, name: str) -> None:
    """Wheels and markers have the kernel's."""
    assert platforms.kernel_name(platform) == name
    assert platforms.format_platform("linux", platforms.architecture_of(name)) == platform
