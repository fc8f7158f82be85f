"""Pictures of series, written where they were asked for."""

from pathlib import Path

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.trends.plotting import Picture, PlotUnavailable, draw_png, draw_svg

KINDS = (".svg", ".png")


def check_plot(path: Path | None) -> None:
    """Raises CommandError if no plot is written under such a name."""
    if path is not None and path.suffix.lower() not in KINDS:
        raise CommandError(
            f"--plot {path}: expected a name that ends in {' or '.join(KINDS)}", exit_code=ExitCode.USAGE
        )


def write_picture(path: Path, picture: Picture) -> None:
    """Draw it, as the name's ending says. Raises CommandError."""
    try:
        data = draw_png(picture) if path.suffix.lower() == ".png" else draw_svg(picture).encode()
        _write(path, data)
    except PlotUnavailable as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    """Write a whole picture or none: one that was there before stays if this one has no room."""
    if path.exists() and not path.is_file():  # a pipe, a device
        path.write_bytes(data)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
