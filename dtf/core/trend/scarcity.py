"""What is not looked for: changes in series that are too short, and odd sets of metrics beyond those that are looked at."""

LEAST_POINTS = 12
"""Points from which on one can: a regime is known after eight, and three of a new one tell it from outliers
(docs/statistics.md). With fewer, that nothing was found says nothing."""


def scarcity_text(short: int, count: int, least: int) -> str:
    """ "2 of 7 series have fewer than 12 points; nothing could have been found in them"; "" if none has."""
    if not short:
        return ""
    if count == 1:
        return f"the only series has fewer than {least} points; nothing could have been found in it"
    which = "all" if short == count else f"{short:,} of"
    verb, them = ("has", "it") if short == 1 else ("have", "them")
    return (
        f"{which} {count:,} series {verb} fewer than {least} points; nothing could have been found in {them}"
    )


def together_text(limit: int) -> str:
    """What says that not every set of metrics is looked at; "" where `limit` is 0, for all are."""
    if not limit:
        return ""
    return (
        f"the first {limit:,} sets of metrics of the log are looked at together for runs that are unusual only taken "
        "together; there are more, each of whose metrics is searched by itself"
    )
