"""Links in folders that come from elsewhere: a file in one must lie in it, or anything on this machine could be read."""

from __future__ import annotations

from pathlib import Path


def leads_out(path: Path) -> bool:
    """Returns True for a link to a file that is not below the link's own folder. The folder may be a link itself."""
    try:
        return path.is_symlink() and path.parent.resolve() not in path.resolve().parents
    except (OSError, RuntimeError):  # a ring of links
        return True
