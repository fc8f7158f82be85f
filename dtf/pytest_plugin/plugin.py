"""The pytest plug-in `--dtf`. Every pytest of the environment loads this file, so it imports next to nothing."""
