"""Reports of runs: gathered from the coordinator and the trend analyzer, written as text, page and JSON."""
