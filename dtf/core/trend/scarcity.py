"""How much history a series needs before a change in it can be found at all."""

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
