"""Platforms of images: operating system and processor, as OCI names them, such as `linux/arm64`.

Source: OCI image index specification, "platform"; the names are Go's GOOS and GOARCH.
"""

from __future__ import annotations

# What the kernel calls a processor, where that is another word.
_KERNEL_NAMES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "386": "i686",
    "arm": "armv7l",
    "arm/v7": "armv7l",
    "arm/v6": "armv6l",
}


def format_platform(system: str, architecture: str, variant: str = "") -> str:
    """Return the name of a platform.

    Args:
        system: the operating system.
        architecture: the processor's architecture.
        variant: the version of the architecture; it counts for 32-bit ARM only, because others
            are written with and without it.
    """
    version = variant if architecture == "arm" else ""
    return "/".join(filter(None, (system, architecture, version)))


def is_platform(found: str, wanted: str) -> bool:
    """Return whether an image's platform is the wanted one, which may leave its variant open."""
    return f"{found}/".startswith(f"{wanted}/")


def kernel_name(platform: str) -> str:
    """Return what the kernel calls the processor of a platform, such as `x86_64`."""
    processor = platform.partition("/")[2]
    return _KERNEL_NAMES.get(processor, processor)


def architecture_of(kernel_name: str) -> str:
    """Return the architecture of a processor by its name in the kernel."""
    return next((name for name, own in _KERNEL_NAMES.items() if own == kernel_name), kernel_name)
