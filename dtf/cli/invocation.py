"""What the global options of one `dtf` invocation say; commands get it by `@click.pass_obj`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dtf.settings.loader import LoadedSettings, load_settings, load_settings_file
from dtf.settings.project import find_project_dir


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options: which project, which settings."""

    project_dir: Path
    settings_file: Path | None = None
    """Settings taken whole from this file, as the supervisor hands them to the processes it starts."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """`--set table.name=value`, by path."""

    def load(self, **options: object) -> LoadedSettings:
        """The settings, with a command's own options on top: `load(pool__max_workers=4)`.

        None stands for an option not given. Raises SettingsError.
        """
        own = {name.replace("__", "."): value for name, value in options.items()}
        flags = {**self.flags, **{path: value for path, value in own.items() if value is not None}}
        if self.settings_file is not None:
            loaded = load_settings_file(self.settings_file, flags=flags)
            return replace(loaded, project_dir=self.project_dir)
        return load_settings(self.project_dir, flags=flags)


def make_invocation(
    project: Path | None, settings_file: Path | None, assignments: Mapping[str, str]
) -> Invocation:
    """The invocation that global options describe."""
    return Invocation(project.resolve() if project else find_project_dir(), settings_file, assignments)
