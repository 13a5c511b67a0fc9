"""What an editable installation needs beyond a wheel: the folder `plugins/` under the name that it is imported by."""

import os
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableHook(BuildHookInterface[Any]):
    """Puts a package `jcache_plugins` beside the `.pth` file, whose modules are those of the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Do so, for `pip install -e`; nothing for a wheel."""
        if version != "editable":
            return
        self._made = tempfile.NamedTemporaryFile("w", suffix=".py")  # noqa: SIM115 - lasts until it is in the archive
        self._made.write(f"__path__ = [{os.path.join(self.root, 'plugins')!r}]\n")
        self._made.flush()
        build_data["force_include_editable"] = {
            self._made.name: "jcache_plugins/__init__.py",
            os.path.join(self.root, "jcache/activate/jcache.pth"): "jcache.pth",
        }
