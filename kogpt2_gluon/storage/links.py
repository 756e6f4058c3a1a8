"""Names and links in folders that come from elsewhere: what they name must lie there, or any file could be read."""

from __future__ import annotations

from pathlib import Path


def file_in(folder: Path, name: str) -> Path | None:
    """Returns the file of a folder that another file names, such as a manifest; None if it is not there.

    A name that is a path, and so could lead out of the folder, names no file.
    """
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        return None
    try:
        return folder / name if (folder / name).is_file() else None
    except (OSError, ValueError):  # too long, or not of this file system's characters
        return None


def leads_out(path: Path) -> bool:
    """Returns True for a link to a file that is not below the link's own folder. The folder may be a link itself."""
    try:
        return path.is_symlink() and path.parent.resolve() not in path.resolve().parents
    except (OSError, RuntimeError):  # a ring of links
        return True
