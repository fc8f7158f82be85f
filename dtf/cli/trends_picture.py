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
        path.write_bytes(data)
    except PlotUnavailable as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
